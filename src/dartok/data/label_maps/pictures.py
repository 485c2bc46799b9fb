"""What a source of pictures with label maps is, and the one behind every layout."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from dartok.data.images import open_image, open_stored

__all__ = [
    "IGNORE",
    "Colour",
    "LabelledPicture",
    "MapClasses",
    "MapSource",
    "PairedMaps",
    "PathPair",
]

IGNORE = 255
"""Label of the pixels that no class is known of: they are neither learned nor counted."""

Colour = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""

_UNKNOWN = -1
_NUMBERED_MODES = ("1", "L", "P", "I", "I;16")
"""Of images that hold one number per pixel; a palette's numbers are its indices."""


class LabelledPicture(NamedTuple):
    """A picture and the class of each of its pixels."""

    image: Image.Image
    """In RGB."""
    labels: Image.Image
    """Of the same size, in mode L: classes from 0, or `IGNORE`."""


class MapSource(Protocol):
    """Pictures with label maps that can be read in any order."""

    class_names: tuple[str, ...]
    """Name of each class; a label is an index into them."""
    colours: tuple[Colour, ...]
    """Of each class, for drawing."""

    def __len__(self) -> int:
        """Number of pictures."""

    def name(self, index: int) -> str:
        """What to call a picture in a message: its path."""

    def load(self, index: int) -> LabelledPicture:
        """Read a picture with its labels; ValueError if they are damaged or do not fit."""


class MapClasses(NamedTuple):
    """The classes of a data set, and how its files number them."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    of_stored: dict[int, int]
    """Number in a file to class from 0, or to `IGNORE`; any other number is refused."""


class PathPair(NamedTuple):
    """A picture and its label map, as paths from the root of the data set."""

    image: str
    labels: str


class PairedMaps:
    """Pictures and label maps in files of their own, in pairs.

    Args:
        root: Folder of the data set.
        pairs: The files, from the root on.
        classes: What the numbers in the label maps mean.
    Example:
        >>> classes = MapClasses(("road", "sky"), ((128, 64, 128), (70, 130, 180)), {0: 0, 1: 1})
        >>> PairedMaps(Path("data"), [PathPair("a.jpg", "a.png")], classes).name(0)
        'a.jpg'
    """

    def __init__(self, root: Path, pairs: Sequence[PathPair], classes: MapClasses) -> None:
        self.root = root
        self.class_names = classes.names
        self.colours = classes.colours
        self._pairs = tuple(pairs)
        self._class_of = _table(classes.of_stored)

    def __len__(self) -> int:
        return len(self._pairs)

    def name(self, index: int) -> str:
        """Path of a picture, from the folder of the data set on."""
        return self._pairs[index].image

    def load(self, index: int) -> LabelledPicture:
        """A picture in RGB, upright, and its labels.

        Raises:
            ValueError: If a file is missing or damaged, their sizes differ, or a label is none of
                the classes; names the file.
        """
        pair = self._pairs[index]
        path = self.root / pair.labels
        image, stored = open_image(self.root / pair.image), open_stored(path)
        if image.size != stored.size:
            raise ValueError(
                f"label map {path} must be as large as its picture, {_size(image)}, "
                f"got {_size(stored)}; mend or remove the pair"
            )
        if stored.mode not in _NUMBERED_MODES:
            raise ValueError(
                f"label map {path} must hold one number per pixel, got mode {stored.mode}; "
                "save it as a PNG of one channel"
            )
        return LabelledPicture(image, Image.fromarray(self._classes(np.asarray(stored), path)))

    def _classes(self, stored: np.ndarray, path: Path) -> np.ndarray:
        numbers = stored.astype(np.int64)
        beyond = len(self._class_of) - 1
        inside = (numbers >= 0) & (numbers < beyond)
        classes = self._class_of[np.where(inside, numbers, beyond)]
        unknown = classes == _UNKNOWN
        if unknown.any():
            raise ValueError(
                f"label map {path} holds the number {numbers[unknown][0]}, which is none of the "
                f"{len(self.class_names)} classes; mend it, or say that it is to be ignored"
            )
        return classes.astype(np.uint8)


def _table(of_stored: dict[int, int]) -> np.ndarray:
    """By number in a file; the last entry stands for all numbers beyond."""
    table = np.full(max(of_stored) + 2, _UNKNOWN, dtype=np.int16)
    table[list(of_stored)] = list(of_stored.values())
    return table


def _size(image: Image.Image) -> str:
    return f"{image.width} x {image.height}"
