"""Open a data set of label maps by the look of its folders."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dartok.data.label_maps.ade20k import find_ade20k, open_ade20k
from dartok.data.label_maps.camvid import find_camvid, open_camvid
from dartok.data.label_maps.cityscapes import find_cityscapes, open_cityscapes
from dartok.data.label_maps.pictures import MapSource
from dartok.data.label_maps.plain import find_plain, open_plain
from dartok.data.label_maps.voc import find_voc, open_voc

__all__ = ["open_label_maps"]


class _Layout(NamedTuple):
    look: str
    """What it looks like, for messages."""
    find: Callable[[Path], Path | None]
    open: Callable[[Path, str], MapSource]


_LAYOUTS = (
    _Layout("your own (classes.txt, images/<split>, labels/<split>)", find_plain, open_plain),
    _Layout("ADE20K (images/training, annotations/training)", find_ade20k, open_ade20k),
    _Layout("Cityscapes (leftImg8bit/<split>, gtFine/<split>)", find_cityscapes, open_cityscapes),
    _Layout("PASCAL VOC (JPEGImages, SegmentationClass, ImageSets)", find_voc, open_voc),
    _Layout("CamVid (<split>, <split>annot)", find_camvid, open_camvid),
)


def open_label_maps(root: str | Path, split: str) -> MapSource:
    """Pictures with label maps in a folder laid out as a known data set, or as one's own.

    Args:
        root: Folder of the data set, or the one it was unpacked into.
        split: "train", "val", or another that the data set has.
    Raises:
        ValueError: If the folder or the split is missing, its layout is none of the known ones, or
            a picture has no label map.
    Example:
        >>> open_label_maps("missing", "train")
        Traceback (most recent call last):
        ValueError: folder missing does not exist; check the path
    """
    root = Path(root)
    if not root.is_dir():
        what = "is a file; name the folder it lies in" if root.exists() else "does not exist"
        raise ValueError(f"folder {root} {what}; check the path")
    for layout in _LAYOUTS:
        found = layout.find(root)
        if found is not None:
            return layout.open(found, split)
    known = "; ".join(layout.look for layout in _LAYOUTS)
    raise ValueError(
        f"folder {root} is laid out as none of the data sets of label maps; known: {known}"
    )
