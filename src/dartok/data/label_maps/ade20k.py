"""ADE20K as the scene parsing benchmark packs it (ADEChallengeData2016)."""

from pathlib import Path

from dartok.data.label_maps.ade20k_classes import ADE20K_NAMES
from dartok.data.label_maps.files import existing_folder, first_folder, pairs_by_stem
from dartok.data.label_maps.palette import voc_colours
from dartok.data.label_maps.pictures import IGNORE, MapClasses, PairedMaps

__all__ = ["find_ade20k", "open_ade20k"]

_SPLITS = {"train": "training", "val": "validation"}


def find_ade20k(root: Path) -> Path | None:
    """The folder in which ADE20K lies, if it lies there."""
    found = first_folder(root, "ADEChallengeData2016", holds=("annotations", "images"))
    known = found is not None and any((found / "images" / s).is_dir() for s in _SPLITS.values())
    return found if known else None


def open_ade20k(root: Path, split: str) -> PairedMaps:
    """150 classes; number 0, for everything else, is ignored.

    Args:
        root: Folder with `images/` and `annotations/`.
        split: "train" or "val", or a folder's own name.
    Raises:
        ValueError: If the split is missing or a picture has no labels.
    """
    folder = _SPLITS.get(split, split)
    images = existing_folder(root / "images" / folder, "ADE20K's pictures")
    labels = existing_folder(root / "annotations" / folder, "ADE20K's label maps")
    of_stored = {0: IGNORE} | {number: number - 1 for number in range(1, len(ADE20K_NAMES) + 1)}
    colours = voc_colours(len(ADE20K_NAMES) + 1)[1:]
    return PairedMaps(
        root, pairs_by_stem(root, images, labels), MapClasses(ADE20K_NAMES, colours, of_stored)
    )
