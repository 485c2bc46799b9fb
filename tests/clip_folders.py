"""A folder of videos in two classes that only motion tells apart."""

from pathlib import Path

import av
import numpy as np

CLASSES = ("left", "right")
SIZE = (48, 64)


def moving(direction: int, seed: int, num_frames: int = 8) -> np.ndarray:
    """Frames `(T, H, W, 3)` in which a bright square crosses a still texture."""
    generator = np.random.default_rng(seed)
    height, width = SIZE
    coarse = generator.integers(60, 120, (height // 8, width // 8, 3)).astype(np.uint8)
    frames = np.repeat(coarse.repeat(8, 0).repeat(8, 1)[None], num_frames, 0)
    top, start = generator.integers(4, height - 20), generator.integers(0, 8)
    for number in range(num_frames):
        step = start + number * 5
        left = step if direction > 0 else width - 16 - step
        frames[number, top : top + 16, max(0, left) : max(0, left) + 16] = 250
    return frames


def write_film_of(frames: np.ndarray, path: Path) -> Path:
    """An MP4 file of 8 frames a second."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"crf": "10"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt, stream.thread_count = "yuv420p", 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_clips(root: Path, *, train: int = 8, val: int = 3) -> Path:
    """`train/` and `val/` with some videos of each class."""
    for split, count, first in (("train", train, 0), ("val", val, 1000)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                frames = moving(2 * label - 1, first + number)
                write_film_of(frames, root / split / name / f"{number}.mp4")
    return root
