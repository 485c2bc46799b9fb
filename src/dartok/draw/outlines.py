"""Outlines of regions over the images they were made for."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image
from torch import Tensor

from dartok.core.regions import Regions
from dartok.draw.pixels import display_size, enlarge, to_pixels

__all__ = ["draw"]

_CASING_OPACITY = 0.6
"""Of the dark casing on both sides of a line, which makes it visible on light ground."""


def draw(
    images: Tensor,
    regions: Regions,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    colour: tuple[int, int, int] = (255, 255, 255),
    line_px: int | None = None,
) -> list[Image.Image]:
    """Pictures of the images with the outline of every region.

    A line runs between two pixels that lie in different regions, so a region that crosses a seam is
    drawn as the two parts it has, and nothing is drawn along the image border. Lines are opaque
    inside a dark casing: they show on dark and on light ground. Small images are enlarged by a
    whole factor, to 320 px at least and until an average region is 24 px wide.

    Args:
        images: `(B, C, H, W)`, or `(B, T, C, H, W)` for clips, of 1 or 3 channels: normalised with
            `mean` and `std`, or else in [0, 1].
        regions: A partition of those images, made for any resolution.
        mean: Mean of each channel that the images were normalised with.
        std: Standard deviation of each channel that the images were normalised with.
        colour: Red, green and blue of the lines, from 0 to 255.
        line_px: Width of the lines without their casing; None for a width that suits the regions.
    Returns:
        One RGB picture per image; for clips one per frame, clip after clip.
    Raises:
        ValueError: If images and regions differ in number, or as `to_pixels`.
    Example:
        >>> import torch
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]]))
        >>> draw(torch.zeros(1, 3, 400, 600), regions)[0].size
        (600, 400)
    """
    pixels = to_pixels(images, mean, std)
    count = regions.row_edges.shape[0] * regions.num_frames
    if len(pixels) != count:
        raise ValueError(
            f"images must be as many as the regions describe, {count}, got {len(pixels)}"
        )
    if line_px is not None and line_px < 1:
        raise ValueError(f"line_px must be >= 1, got {line_px}")
    per_frame = max(1, regions.num_tokens // regions.num_frames)
    size = display_size(pixels.shape[1], pixels.shape[2], per_frame)
    width = _line_width(size, per_frame) if line_px is None else line_px
    labels = regions.label_map(size).flatten(0, 1).cpu().numpy()
    return [
        Image.fromarray(_outline(np.array(enlarge(frame, size)), label, colour, width))
        for frame, label in zip(pixels, labels, strict=True)
    ]


def _line_width(size: tuple[int, int], num_regions: int) -> int:
    side = math.sqrt(size[0] * size[1])
    return max(1, round(min(side / math.sqrt(num_regions) / 20, side / 220)))


def _outline(
    canvas: UInt8[np.ndarray, "H W 3"],
    labels: np.ndarray,
    colour: tuple[int, int, int],
    line_px: int,
) -> UInt8[np.ndarray, "H W 3"]:
    """Paint the lines over `canvas`, in place."""
    casing_px = max(1, line_px // 2)
    casing = _borders(labels, line_px + 2 * casing_px)
    canvas[casing] = (canvas[casing] * (1 - _CASING_OPACITY)).astype(np.uint8)
    canvas[_borders(labels, line_px)] = colour
    return canvas


def _borders(labels: np.ndarray, width_px: int) -> Bool[np.ndarray, "H W"]:
    """Pixels within a line of `width_px` that is centred between pixels of different labels."""
    across = np.pad(labels[:, 1:] != labels[:, :-1], ((0, 0), (0, 1)))
    down = np.pad(labels[1:] != labels[:-1], ((0, 1), (0, 0)))
    lines = _spread(across, width_px, axis=1)
    lines |= _spread(down, width_px, axis=0)
    return lines


def _spread(
    border: Bool[np.ndarray, "H W"], width_px: int, *, axis: int
) -> Bool[np.ndarray, "H W"]:
    """Widen borders, each marked at the last pixel before it, to `width_px` along `axis`."""
    before = width_px // 2
    padding = [(0, 0), (0, 0)]
    padding[axis] = (before, width_px - 1 - before)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(border, padding), width_px, axis)
    return np.asarray(windows.any(axis=-1))
