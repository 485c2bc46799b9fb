"""A tiny data set of label maps."""

import numpy as np
from PIL import Image


def write_maps(root):
    """`train` with 6 and `val` with 5 pictures of a bright box on dark ground, of two sizes."""
    (root / "classes.txt").write_text("ground\nbox #ff0000\n")
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 5)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            height, width = (40, 56) if number < 3 else (48, 40)
            labels = np.zeros((height, width), dtype=np.uint8)
            top, left = rng.integers(2, 16, 2)
            labels[top : top + 16, left : left + 16] = 1
            labels[:2] = 255
            noise = rng.normal(60, 10, (height, width, 3)) + 120 * (labels == 1)[..., None]
            picture = Image.fromarray(noise.clip(0, 255).astype(np.uint8))
            picture.save(root / "images" / split / f"{number}.png")
            Image.fromarray(labels).save(root / "labels" / split / f"{number}.png")
    return root
