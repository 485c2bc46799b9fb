"""From image tensors to pixels: undo the normalisation, enlarge small pictures."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

__all__ = ["Pixels", "display_size", "enlarge", "to_pixels"]

Pixels = UInt8[np.ndarray, "frames H W 3"]

_MIN_REGION_PX = 24
"""Side of an average region in a picture, at least: room for its outline and what it shows."""
_MIN_PICTURE_PX = 320
"""Longer side of a picture, at least."""
_MAX_ENLARGED_PX = 4096
"""Longer side beyond which no picture is enlarged."""
_TOLERANCE = 0.01
"""How far pixels may leave [0, 1] and still count as not normalised: rounding, resampling."""


def to_pixels(
    images: Tensor, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Pixels:
    """Pixels of 8 bits, `255 * (images * std + mean)`, one frame after the other.

    Args:
        images: `(B, C, H, W)` or clips `(B, T, C, H, W)`, of 1 or 3 channels. Normalised with
            `mean` and `std`; without these, in [0, 1], or 8-bit integers.
        mean: Mean of each channel that was subtracted, for pixels in [0, 1].
        std: Standard deviation of each channel that was divided by.
    Returns:
        `(B * T, H, W, 3)` 8-bit pixels.
    Raises:
        ValueError: If the shape is none of these, only one of `mean` and `std` is given, or pixels
            are not finite or, without `mean` and `std`, outside [0, 1].
    Example:
        >>> to_pixels(torch.tensor([[[[-1.0, 1.0]]]]), mean=[0.5], std=[0.5])[0, 0].tolist()
        [[0, 0, 0], [255, 255, 255]]
    """
    if images.ndim not in (4, 5) or images.shape[-3] not in (1, 3) or 0 in images.shape:
        raise ValueError(
            "images must be (B, C, H, W) or (B, T, C, H, W) with C = 1 or 3, "
            f"got {tuple(images.shape)}"
        )
    frames = images.detach().flatten(0, -4).cpu()
    if frames.dtype == torch.uint8:
        frames = frames.float() / 255
    frames = _denormalise(frames.float(), mean, std)
    pixels = frames.clamp(0, 1).mul(255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    return pixels.permute(0, 2, 3, 1).contiguous().numpy()


def display_size(height: int, width: int, num_regions: int) -> tuple[int, int]:
    """Size at which regions can be seen: the image's own times the smallest sufficient integer.

    Sufficient: an average region has a side of 24 px and the longer side of the picture 320 px. No
    picture is enlarged beyond 4096 px.

    Example:
        >>> display_size(28, 28, 16), display_size(480, 640, 196)
        ((336, 336), (480, 640))
    """
    longer = max(height, width)
    wanted = max(
        _MIN_REGION_PX * math.sqrt(num_regions / (height * width)), _MIN_PICTURE_PX / longer
    )
    factor = max(1, min(math.ceil(wanted), _MAX_ENLARGED_PX // longer))
    return height * factor, width * factor


def enlarge(pixels: UInt8[np.ndarray, "H W 3"], size: tuple[int, int]) -> Image.Image:
    """The picture at `size` = (height, width), a multiple of its own; pixels stay squares."""
    return Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.NEAREST)


def _denormalise(
    frames: Tensor, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Tensor:
    if (mean is None) != (std is None):
        raise ValueError(f"mean and std must be given together, got mean={mean} and std={std}")
    if not frames.isfinite().all():
        raise ValueError("images must be finite, got NaN or infinite pixels; clean the input")
    if mean is not None and std is not None:
        return frames * _per_channel(std, frames) + _per_channel(mean, frames)
    low, high = frames.min().item(), frames.max().item()
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ValueError(
            f"images must be in [0, 1] without mean and std, got [{low:.3g}, {high:.3g}]; pass the "
            "mean and std that they were normalised with"
        )
    return frames


def _per_channel(values: Sequence[float], frames: Tensor) -> Tensor:
    if len(values) != frames.shape[1]:
        raise ValueError(
            f"mean and std must have one value for each of {frames.shape[1]} channels, "
            f"got {len(values)}"
        )
    return torch.tensor(tuple(values), dtype=frames.dtype)[:, None, None]
