"""Pictures of label maps: each class in its colour."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["draw_mask", "mask_image"]

Colour = tuple[int, int, int]

_OPACITY = 0.6
_LEVELS = 256


def mask_image(classes: UInt8[np.ndarray, "H W"], colours: Sequence[Colour]) -> Image.Image:
    """A label map as an image with a palette: its numbers are the classes, shown in their colours.

    Args:
        classes: Of the pixels; 255 for unknown ones, which are white.
        colours: Of each class, from 0 to 255.
    Raises:
        ValueError: If there are more colours than a palette holds beside white.
    Example:
        >>> image = mask_image(np.array([[0, 1]], dtype=np.uint8), [(0, 0, 0), (128, 0, 0)])
        >>> image.getpixel((1, 0)), image.convert("RGB").getpixel((1, 0))
        (1, (128, 0, 0))
    """
    if len(colours) >= _LEVELS:
        raise ValueError(f"colours must be fewer than {_LEVELS}, got {len(colours)}")
    palette = np.full((_LEVELS, 3), _LEVELS - 1, dtype=np.uint8)
    palette[: len(colours)] = colours
    image = Image.fromarray(classes)
    image.putpalette(palette.tobytes())
    return image


def draw_mask(
    picture: Image.Image, classes: UInt8[np.ndarray, "H W"], colours: Sequence[Colour]
) -> Image.Image:
    """A picture with its label map laid over it.

    Args:
        picture: In RGB, as large as the map.
        classes: Of its pixels.
        colours: Of each class.
    Raises:
        ValueError: If the sizes differ.
    """
    if picture.size != classes.shape[::-1]:
        raise ValueError(
            f"classes must be as large as the picture, {picture.height} x {picture.width}, got "
            f"{classes.shape[0]} x {classes.shape[1]}"
        )
    return Image.blend(
        picture.convert("RGB"), mask_image(classes, colours).convert("RGB"), _OPACITY
    )
