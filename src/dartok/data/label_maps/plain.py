"""Folders of pictures and label maps beside a text file that names the classes."""

import re
from pathlib import Path

from dartok.data.label_maps.files import existing_folder, pairs_by_stem, read_lines
from dartok.data.label_maps.palette import voc_colours
from dartok.data.label_maps.pictures import IGNORE, Colour, MapClasses, PairedMaps
from dartok.data.labels import parse_class_names

__all__ = ["find_plain", "open_plain", "read_map_classes"]

_CLASSES = "classes.txt"
_COLOUR = re.compile(r"(?P<name>.*\S)[\s,]\s*#(?P<colour>[0-9a-fA-F]{6})")
_IGNORE = re.compile(r"ignore\s*=\s*(?P<numbers>\d+(\s*,\s*\d+)*)")


def find_plain(root: Path) -> Path | None:
    """The folder in which `classes.txt` lies, if it lies there."""
    return root if (root / _CLASSES).is_file() else None


def open_plain(root: Path, split: str) -> PairedMaps:
    """The classes that `classes.txt` names; see `read_map_classes`.

    Args:
        root: Folder with `classes.txt`, and `images/<split>/` and `labels/<split>/` or
            `<split>/images/` and `<split>/labels/`; a label map is the PNG named as its picture.
        split: Such as "train".
    Raises:
        ValueError: If the split is missing, a picture has no labels, or `classes.txt` is wrong.
    """
    classes = read_map_classes(root / _CLASSES)
    by_split = (root / split / "images").is_dir()
    images = root / split / "images" if by_split else root / "images" / split
    labels = root / split / "labels" if by_split else root / "labels" / split
    existing_folder(images, f"the pictures (or {split}/images)")
    existing_folder(labels, "the label maps")
    return PairedMaps(root, pairs_by_stem(root, images, labels), classes)


def read_map_classes(path: Path) -> MapClasses:
    """Classes, one a line, with a colour as `#rrggbb` at the end of a line or without.

    The lines number the classes from 0. A line `ignore = 11`, or several numbers with commas, says
    which numbers are no class: they are left out of the counting (with `ignore = 0` the first line
    is number 1). Without such a line, 255 is ignored.

    Raises:
        ValueError: If it cannot be read, or names fewer than two classes, more than 255, or one
            twice.
    """
    lines = read_lines(path)
    ignored = {int(number) for line in lines for number in _ignored(line)} or {IGNORE}
    named = [_named(line) for line in lines if not _IGNORE.fullmatch(line)]
    names = parse_class_names("\n".join(name for name, _ in named), str(path))
    if len(names) > IGNORE:
        raise ValueError(f"classes {path} must name at most {IGNORE}, got {len(names)}")
    spare = voc_colours(len(names) + 1)[1:]  # without black, which ignored pixels are shown in
    colours = tuple(own or other for (_, own), other in zip(named, spare, strict=True))
    numbers = (number for number in range(len(names) + len(ignored)) if number not in ignored)
    of_stored = dict.fromkeys(ignored, IGNORE)
    of_stored |= dict(zip(numbers, range(len(names)), strict=False))
    return MapClasses(names, colours, of_stored)


def _ignored(line: str) -> list[str]:
    found = _IGNORE.fullmatch(line)
    return found["numbers"].split(",") if found else []


def _named(line: str) -> tuple[str, Colour | None]:
    found = _COLOUR.fullmatch(line)
    if found is None:
        return line, None
    red, green, blue = bytes.fromhex(found["colour"])
    return found["name"].rstrip(" ,"), (red, green, blue)
