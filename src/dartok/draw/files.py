"""Write pictures to files, whole or not at all."""

import os
from pathlib import Path

from PIL import Image

__all__ = ["save_image"]

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_QUALITY = 92
"""Of the lossy formats, from 1 to 100."""


def save_image(image: Image.Image, path: str | Path) -> None:
    """Write a picture in the format that the suffix of `path` names.

    The file is written beside its place and then renamed, so that no half picture is ever seen
    under `path`, and an older file stays whole if writing fails.

    Args:
        image: The picture.
        path: A file ending in .png, .jpg, .jpeg or .webp, in a folder that exists.
    Raises:
        ValueError: If the suffix is none of these, or the file cannot be written there.
    Example:
        >>> save_image(Image.new("RGB", (2, 2)), "regions.tif")
        Traceback (most recent call last):
        ValueError: picture must end in .png, .jpg, .jpeg or .webp, got regions.tif
    """
    path = Path(path)
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"picture must end in .png, .jpg, .jpeg or .webp, got {path}")
    try:
        _write_and_rename(image, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ValueError(
            f"cannot write picture {path} ({reason}); choose a folder that you may write to"
        ) from error


def _keeps_palette(image: Image.Image, path: Path) -> bool:
    return image.mode == "P" and path.suffix.lower() == ".png"


def _write_and_rename(image: Image.Image, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            kept = image if _keeps_palette(image, path) else image.convert("RGB")
            kept.save(file, format=_FORMATS[path.suffix.lower()], quality=_QUALITY)
        beside.replace(path)
    finally:
        if beside.exists():
            beside.unlink()
