"""A folder of numbered pictures as a video, as Something-Something is often stored."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from dartok.data.images import open_image
from dartok.data.samples import DamagedError

__all__ = ["FrameFolder", "frames_in"]


class FrameFolder:
    """Pictures as the frames of a video, in the order given.

    Args:
        name: For messages.
        paths: Of the pictures, at least one.
    """

    fps: float | None = None
    """Not known."""

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self._paths = list(paths)
        self.num_frames = len(self._paths)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame, in pixels."""
        height, width = self.frames([0]).shape[-2:]
        return height, width

    def frames(self, indices: Sequence[int]) -> UInt8[Tensor, "T 3 H W"]:
        """Some frames in RGB, in the order asked for.

        Raises:
            DamagedError: If one is damaged, or of another size than the others.
            ValueError: If an index is none of a frame.
        """
        wanted = sorted({int(index) for index in indices})
        if not wanted or wanted[0] < 0 or wanted[-1] >= self.num_frames:
            raise ValueError(
                f"frames of {self.name} must be some from 0 to {self.num_frames - 1}, got {wanted}"
            )
        found = {index: _pixels(self._paths[index]) for index in wanted}
        first = found[wanted[0]]
        for index, pixels in found.items():
            if pixels.shape != first.shape:
                raise DamagedError(
                    f"frames of {self.name} must be of one size, got {_size(first)} and "
                    f"{_size(pixels)} ({self._paths[index].name}); mend or remove the folder"
                )
        pixels = np.stack([found[int(index)] for index in indices])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def frames_in(folder: Path) -> list[Path]:
    """The pictures that lie in a folder, in the order of the numbers in their names.

    Raises:
        ValueError: If there are none.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMG_EXTENSIONS and not path.name.startswith(".")
    ]
    if not found:
        raise ValueError(
            f"folder {folder} holds no picture; name a video file, or a folder of its frames"
        )
    return sorted(found, key=lambda path: _by_number(path.name))


def _by_number(name: str) -> list[tuple[int, str]]:
    """Of "img_10" and "img_9" the latter comes first."""
    parts = re.split(r"(\d+)", name)  # numbers at the odd places
    return [(int(part), "") if place % 2 else (0, part) for place, part in enumerate(parts)]


def _pixels(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    try:
        return np.array(open_image(path))
    except ValueError as error:
        raise DamagedError(str(error)) from error


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]} x {pixels.shape[0]}"
