"""Image files as tensors, whatever their format, depth and orientation."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

__all__ = ["decode_image", "load_image", "open_image", "open_stored"]

_DECODING_ERRORS = (
    OSError,  # also PIL.UnidentifiedImageError, and what Pillow raises for truncated files
    SyntaxError,  # broken PNG chunks
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    TypeError,  # values of the wrong type in broken EXIF
    AttributeError,  # likewise
    Image.DecompressionBombError,
)
_LARGEST_16_BIT = 65535


def load_image(path: str | Path) -> Float[Tensor, "3 H W"]:
    """Red, green and blue of an image file, from 0 to 1, upright.

    The camera's orientation (EXIF) is applied. Grey becomes three equal channels, palettes and CMYK
    become colours, and transparent parts show white. Grey images of 16 bits keep their depth. Of an
    animation, the first picture is taken. A damaged file is refused, never completed.

    Args:
        path: A file in any format that Pillow reads.
    Returns:
        Float32 in [0, 1].
    Raises:
        ValueError: If the file is missing, not an image, damaged, too large to be decoded safely,
            or holds values whose range is unknown. Names the file and the remedy.
    Example:
        >>> load_image("missing.png")
        Traceback (most recent call last):
        ValueError: image missing.png does not exist; check the path
    """
    path = _existing_file(path)
    image = _decode(path, str(path))
    return torch.from_numpy(_unit_range(image, str(path))).permute(2, 0, 1).contiguous()


def open_image(path: str | Path) -> Image.Image:
    """An image file as a Pillow image in RGB with 8 bits per channel, read as `load_image` does.

    Raises:
        ValueError: As `load_image`.
    Example:
        >>> open_image("missing.png")
        Traceback (most recent call last):
        ValueError: image missing.png does not exist; check the path
    """
    path = _existing_file(path)
    return _in_8_bits(_decode(path, str(path)), str(path))


def decode_image(data: bytes, name: str) -> Image.Image:
    """The bytes of an image file as `open_image` reads them; `name` is for the message.

    Raises:
        ValueError: As `load_image`.
    Example:
        >>> decode_image(b"<html>", "cat/1.jpg")
        Traceback (most recent call last):
        ValueError: image cat/1.jpg cannot be read (not an image format that Pillow knows); ...
    """
    return _in_8_bits(_decode(BytesIO(data), name), name)


def open_stored(path: str | Path) -> Image.Image:
    """An image file in the mode it is stored in, upright: the numbers of a label map are kept.

    Raises:
        ValueError: If the file is missing, not an image, damaged, or too large to be decoded.
    Example:
        >>> open_stored("missing.png")
        Traceback (most recent call last):
        ValueError: image missing.png does not exist; check the path
    """
    path = _existing_file(path)
    return _decode(path, str(path))


def _existing_file(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"image {path} is a folder; name the files in it, such as {path}/*.jpg")
    if not path.exists():
        raise ValueError(f"image {path} does not exist; check the path")
    return path


def _decode(file: Path | BytesIO, name: str) -> Image.Image:
    """The first picture in the file, fully decoded and upright."""
    try:
        with Image.open(file) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except _DECODING_ERRORS as error:
        raise ValueError(
            f"image {name} cannot be read ({_reason(error)}); "
            "it may be damaged or not an image: open it in a viewer and save it again"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image format that Pillow knows"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).split("\n")[0] or type(error).__name__


def _in_8_bits(image: Image.Image, name: str) -> Image.Image:
    if _is_deep(image):
        levels = _unit_range(image, name) * 255
        return Image.fromarray(levels.round().astype(np.uint8))
    return _on_white(image)


def _unit_range(image: Image.Image, name: str) -> Float[np.ndarray, "H W 3"]:
    if _is_deep(image):
        grey = _unit_range_deep(np.asarray(image), image.mode, name)
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(_on_white(image), dtype=np.float32) / 255


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("F", "I") or image.mode.startswith("I;16")


def _unit_range_deep(values: np.ndarray, mode: str, name: str) -> Float[np.ndarray, "H W"]:
    """Grey of more than 8 bits: floating point as it is, integers as 16 bits."""
    limit = 1 if mode == "F" else _LARGEST_16_BIT
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= limit):
        raise ValueError(
            f"image {name} must hold grey values in [0, {limit}], got [{low:.6g}, {high:.6g}]; "
            "rescale them and save it again"
        )
    return values.astype(np.float32) / limit


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
