"""Small folders of class folders, and ways to damage a picture."""

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def make_folder(tmp_path):
    """Function that fills a folder: so many pictures per class, each of a colour of its own.

    Red tells the class (0, 80, 160), green the number within it.
    """

    def make(per_class, *, suffix=".png", size_px=12, name="train"):
        for label, folder in enumerate(CLASSES):
            (tmp_path / name / folder).mkdir(parents=True)
            for number in range(per_class):
                picture = np.full((size_px, size_px, 3), (80 * label, number, 7), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / name / folder / f"{number:03}{suffix}")
        return tmp_path / name

    return make


@pytest.fixture(params=["truncated", "empty", "text"])
def damage(request):
    """Function that damages a file, in each of the ways that happen."""

    def spoil(path):
        content = path.read_bytes()
        spoilt = {"truncated": content[: len(content) * 2 // 3], "empty": b"", "text": b"<html>"}
        path.write_bytes(spoilt[request.param])

    return spoil
