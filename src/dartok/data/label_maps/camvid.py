"""CamVid with 11 classes, as the authors of SegNet packed it."""

from pathlib import Path

from dartok.data.label_maps.files import existing_folder, pairs_by_stem
from dartok.data.label_maps.pictures import IGNORE, MapClasses, PairedMaps

__all__ = ["find_camvid", "open_camvid"]

_COLOURS = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}


def find_camvid(root: Path) -> Path | None:
    """The folder in which CamVid lies, if it lies there."""
    splits = ("train", "val", "test")
    return root if any((root / f"{split}annot").is_dir() for split in splits) else None


def open_camvid(root: Path, split: str) -> PairedMaps:
    """11 classes; number 11, for unlabelled pixels, is ignored.

    Args:
        root: Folder with `train/`, `trainannot/` and so on.
        split: "train", "val" or "test".
    Raises:
        ValueError: If the split is missing or a picture has no labels.
    """
    images = existing_folder(root / split, "CamVid's pictures")
    labels = existing_folder(root / f"{split}annot", "CamVid's label maps")
    of_stored = {number: number for number in range(len(_COLOURS))} | {len(_COLOURS): IGNORE}
    classes = MapClasses(tuple(_COLOURS), tuple(_COLOURS.values()), of_stored)
    return PairedMaps(root, pairs_by_stem(root, images, labels), classes)
