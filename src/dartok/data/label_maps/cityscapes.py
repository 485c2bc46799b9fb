"""Cityscapes with its fine annotations."""

from pathlib import Path
from typing import NamedTuple

from dartok.data.label_maps.files import existing_folder, first_folder, missing_labels, pictures_in
from dartok.data.label_maps.pictures import IGNORE, Colour, MapClasses, PairedMaps, PathPair

__all__ = ["find_cityscapes", "open_cityscapes"]

_IMAGE = "_leftImg8bit"
_LABELS = ("_gtFine_labelIds", "_gtFine_labelTrainIds")
_LARGEST_ID = 33


class _Class(NamedTuple):
    name: str
    number: int
    """In the files of label ids."""
    colour: Colour


_CLASSES = (
    _Class("road", 7, (128, 64, 128)),
    _Class("sidewalk", 8, (244, 35, 232)),
    _Class("building", 11, (70, 70, 70)),
    _Class("wall", 12, (102, 102, 156)),
    _Class("fence", 13, (190, 153, 153)),
    _Class("pole", 17, (153, 153, 153)),
    _Class("traffic light", 19, (250, 170, 30)),
    _Class("traffic sign", 20, (220, 220, 0)),
    _Class("vegetation", 21, (107, 142, 35)),
    _Class("terrain", 22, (152, 251, 152)),
    _Class("sky", 23, (70, 130, 180)),
    _Class("person", 24, (220, 20, 60)),
    _Class("rider", 25, (255, 0, 0)),
    _Class("car", 26, (0, 0, 142)),
    _Class("truck", 27, (0, 0, 70)),
    _Class("bus", 28, (0, 60, 100)),
    _Class("train", 31, (0, 80, 100)),
    _Class("motorcycle", 32, (0, 0, 230)),
    _Class("bicycle", 33, (119, 11, 32)),
)
"""Those that are evaluated, in the order of their training ids."""


def find_cityscapes(root: Path) -> Path | None:
    """The folder in which Cityscapes lies, if it lies there."""
    return first_folder(root, "cityscapes", holds=("leftImg8bit", "gtFine"))


def open_cityscapes(root: Path, split: str) -> PairedMaps:
    """19 classes. The files of label ids are read or, where they are missing, of training ids.

    Args:
        root: Folder with `leftImg8bit/` and `gtFine/`.
        split: "train" or "val".
    Raises:
        ValueError: If the split is missing or a picture has no labels.
    """
    images = existing_folder(root / "leftImg8bit" / split, "Cityscapes' pictures")
    labels = existing_folder(root / "gtFine" / split, "Cityscapes' label maps")
    known = {path.relative_to(labels).as_posix() for path in labels.glob("*/*.png")}
    stems = [_stem(path.relative_to(images), path) for path in pictures_in(images)]
    ending = next((e for e in _LABELS if f"{stems[0]}{e}.png" in known), _LABELS[0])
    pairs = []
    for stem in stems:
        if f"{stem}{ending}.png" not in known:
            wanted = labels / f"{stem}{ending}.png"
            raise ValueError(missing_labels(images / f"{stem}{_IMAGE}.png", wanted))
        image = f"leftImg8bit/{split}/{stem}{_IMAGE}.png"
        pairs.append(PathPair(image, f"gtFine/{split}/{stem}{ending}.png"))
    return PairedMaps(root, pairs, _classes(ids=ending == _LABELS[0]))


def _stem(path: Path, whole: Path) -> str:
    """City and frame of a picture."""
    stem = path.with_suffix("").as_posix()
    if not stem.endswith(_IMAGE):
        raise ValueError(f"picture {whole} must be named *{_IMAGE}.png as Cityscapes' are")
    return stem.removesuffix(_IMAGE)


def _classes(*, ids: bool) -> MapClasses:
    ignored = range(_LARGEST_ID + 1) if ids else ()
    numbers = [kind.number for kind in _CLASSES] if ids else list(range(len(_CLASSES)))
    of_stored = dict.fromkeys(ignored, IGNORE) | {IGNORE: IGNORE}
    of_stored |= {number: label for label, number in enumerate(numbers)}
    names = tuple(kind.name for kind in _CLASSES)
    return MapClasses(names, tuple(kind.colour for kind in _CLASSES), of_stored)
