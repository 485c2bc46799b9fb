"""PASCAL VOC 2012, segmentation; also with the larger training set `trainaug`."""

from pathlib import Path

from dartok.data.label_maps.files import (
    existing_folder,
    first_folder,
    missing_labels,
    read_lines,
)
from dartok.data.label_maps.palette import voc_colours
from dartok.data.label_maps.pictures import IGNORE, MapClasses, PairedMaps, PathPair

__all__ = ["find_voc", "open_voc"]

_IMAGES = "JPEGImages"
_LABELS = "SegmentationClass"
_AUGMENTED = "SegmentationClassAug"
"""Where the label maps of `trainaug` usually lie: VOC's and those of the SBD data set."""
_LISTS = "ImageSets/Segmentation"

# fmt: off
_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)
# fmt: on


def find_voc(root: Path) -> Path | None:
    """The folder in which VOC 2012 lies, if it lies there."""
    return first_folder(root, "VOC2012", "VOCdevkit/VOC2012", holds=(_IMAGES, _LABELS))


def open_voc(root: Path, split: str) -> PairedMaps:
    """21 classes, background among them; number 255, along the outlines, is ignored.

    Args:
        root: Folder with `JPEGImages/`, `SegmentationClass/` and `ImageSets/Segmentation/`.
        split: Name of a list in `ImageSets/Segmentation`: "train", "val", "trainval", or
            "trainaug", whose label maps are read from `SegmentationClassAug/` if that is there.
    Raises:
        ValueError: If the list is missing or empty, or a picture has no labels.
    """
    folder = existing_folder(root / _LISTS, "VOC's lists of pictures")
    augmented = split == "trainaug" and (root / _AUGMENTED).is_dir()
    labels = _AUGMENTED if augmented else _LABELS
    path = folder / f"{split}.txt"
    stems = [Path(line.split()[0]).stem for line in read_lines(path)]
    if not stems:
        raise ValueError(f"list {path} names no picture; fill it or name another split")
    known = {file.name for file in (root / labels).glob("*.png")}
    lacking = next((stem for stem in stems if f"{stem}.png" not in known), None)
    if lacking is not None:
        wanted = root / labels / f"{lacking}.png"
        raise ValueError(missing_labels(root / _IMAGES / f"{lacking}.jpg", wanted))
    pairs = [PathPair(f"{_IMAGES}/{stem}.jpg", f"{labels}/{stem}.png") for stem in stems]
    of_stored = {number: number for number in range(len(_NAMES))} | {IGNORE: IGNORE}
    return PairedMaps(root, pairs, MapClasses(_NAMES, voc_colours(len(_NAMES)), of_stored))
