"""Score maps as heat over the images they were made for."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dartok.draw.pixels import display_size, enlarge, to_pixels

__all__ = ["draw_scores", "heat_colours"]

_ANCHORS = np.array(
    [
        (12, 10, 40),
        (43, 28, 95),
        (121, 48, 136),
        (180, 65, 129),
        (220, 89, 108),
        (246, 128, 92),
        (255, 175, 88),
        (253, 223, 129),
        (251, 248, 202),
    ],
    dtype=np.float32,
)
"""Night blue to pale yellow. Lightness rises all the way, and neighbours are 26 to 29 units of
CIELAB apart, so that equal steps of the score look equally large."""

_LARGEST_RATIO = 4.0
"""Of a score to the mean score: the upper end of the colour scale."""
_TINY = 1e-30
"""Stands in for the mean of scores that are all zero."""


def draw_scores(
    images: Tensor,
    scores: Float[Tensor, "B *T h w"],
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    opacity: float = 0.75,
) -> list[Image.Image]:
    """Pictures of the images in grey, under the heat of their score map.

    Regions are as dense as the scores are high, so colours tell the ratio of a score to the mean of
    its map, on a scale that is the same for every picture: from 0 (dark) to 4 or more (light). The
    mean of a clip is that of all its frames, which share its regions. A score map that tells
    nothing apart has one colour. The map is interpolated to the size of the picture. Small images
    are enlarged as by `draw`.

    Args:
        images: `(B, C, H, W)`, or `(B, T, C, H, W)` for clips, of 1 or 3 channels: normalised with
            `mean` and `std`, or else in [0, 1].
        scores: Score maps, `>= 0`, one for each image or frame.
        mean: Mean of each channel that the images were normalised with.
        std: Standard deviation of each channel that the images were normalised with.
        opacity: Share of the heat in the mixture, from 0 to 1.
    Returns:
        One RGB picture per image; for clips one per frame, clip after clip.
    Raises:
        ValueError: If images and scores differ in number, scores are negative or not finite,
            `opacity` is out of range, or as `to_pixels`.
    Example:
        >>> import torch
        >>> draw_scores(torch.zeros(1, 3, 400, 600), torch.rand(1, 14, 14))[0].size
        (600, 400)
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be from 0 to 1, got {opacity}")
    pixels = to_pixels(images, mean, std)
    maps = _ratios(scores, len(pixels))
    size = display_size(pixels.shape[1], pixels.shape[2], 1)
    return [_overlay(enlarge(p, size), m, opacity) for p, m in zip(pixels, maps, strict=True)]


def heat_colours(values: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    """Colour of each value in [0, 1], from night blue through red to pale yellow.

    Example:
        >>> heat_colours(np.array([0.0, 1.0])).tolist()
        [[12, 10, 40], [251, 248, 202]]
    """
    stops = np.linspace(0, 1, len(_ANCHORS))
    channels = [np.interp(values, stops, anchor) for anchor in _ANCHORS.T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _ratios(scores: Tensor, count: int) -> Float[np.ndarray, "frames h w"]:
    """Of each score to the mean of its image or clip; 0 where all are 0."""
    if scores.ndim not in (3, 4) or 0 in scores.shape:
        raise ValueError(f"scores must be (B, h, w) or (B, T, h, w), got {tuple(scores.shape)}")
    if not (scores.isfinite() & (scores >= 0)).all():
        raise ValueError("scores must be finite and >= 0, got negative, NaN or infinite values")
    maps = scores.detach().cpu().double().numpy()
    ratios = np.stack([scored / max(float(scored.mean()), _TINY) for scored in maps])
    frames = ratios.reshape(-1, *ratios.shape[-2:])
    if len(frames) != count:
        raise ValueError(f"scores must hold one map per image or frame, {count}, got {len(frames)}")
    return frames


def _overlay(picture: Image.Image, ratios: Float[np.ndarray, "h w"], opacity: float) -> Image.Image:
    smooth = Image.fromarray(_levels(ratios)).resize(picture.size, Image.Resampling.BILINEAR)
    table = heat_colours(np.linspace(0, 1, 256))
    heat = Image.fromarray(table[np.asarray(smooth)])
    return Image.blend(picture.convert("L").convert("RGB"), heat, opacity)


def _levels(ratios: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """Place of each ratio on the colour scale, from 0 to 255."""
    return (ratios.clip(max=_LARGEST_RATIO) * (255 / _LARGEST_RATIO)).round().astype(np.uint8)
