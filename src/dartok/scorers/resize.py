"""The copy of fixed size that a score net sees, so that its cost does not grow with the image."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fixed_copy"]

_MOST_HALVINGS = 10  # in a graph of any size; 224 px from 229,376


def fixed_copy(images: Float[Tensor, "B C H W"], side_px: int | None) -> Tensor:
    """Antialiased copy of `side_px` by `side_px` pixels; `None` returns the images.

    Halved by 2 x 2 means while that fits, then resized bilinearly. The aspect is not kept: scores
    live in [0, 1] by [0, 1] of the image. Float32 or wider, unless the size fits already.

    Example:
        >>> fixed_copy(torch.rand(1, 3, 300, 500), 224).shape
        torch.Size([1, 3, 224, 224])
    """
    if side_px is not None and side_px < 1:
        raise ValueError(f"side_px, the size that is scored, must be >= 1, got {side_px}")
    if side_px is not None and torch.compiler.is_exporting() and _is_open(images):
        return _any_size_copy(images.to(torch.promote_types(images.dtype, torch.float32)), side_px)
    if side_px is None or images.shape[-2:] == (side_px, side_px):
        return images
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    while _can_be_halved(images, side_px):
        images = _halved(images)
    if images.shape[-2:] == (side_px, side_px):
        return images
    return F.interpolate(
        images, (side_px, side_px), mode="bilinear", align_corners=False, antialias=True
    )


def _can_be_halved(images: Tensor, side_px: int) -> bool:
    height, width = images.shape[-2:]
    return height % 2 == 0 and width % 2 == 0 and min(height, width) >= 2 * side_px


def _halved(images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H/2 W/2"]:
    """Means of 2 x 2 pixels: on the CPU four times as fast as the antialiased resize."""
    columns = images[..., ::2] + images[..., 1::2]
    return (columns[..., ::2, :] + columns[..., 1::2, :]) / 4


def _is_open(images: Tensor) -> bool:
    """Whether the graph that is being exported leaves the size of the images open."""
    return any(isinstance(side, torch.SymInt) for side in images.shape[-2:])


def _any_size_copy(images: Float[Tensor, "B C H W"], side_px: int) -> Tensor:
    """`fixed_copy` as two matrix products whose weights are computed from the size in the graph."""
    down, across = torch.ones_like(images[0, 0, :, 0]), torch.ones_like(images[0, 0, 0, :])
    height, width = down.sum(), across.sum()
    halves = _num_halvings(height, width, side_px)
    rows = _resize_weights(down.cumsum(0) - 1, height, halves, side_px)
    columns = _resize_weights(across.cumsum(0) - 1, width, halves, side_px)
    return rows @ images @ columns.transpose(0, 1)


def _num_halvings(height: Tensor, width: Tensor, side_px: int) -> Float[Tensor, ""]:
    """As often as `_can_be_halved` says in a row: what a higher power divides, a lower one does."""
    factors = 2.0 ** torch.arange(1, _MOST_HALVINGS + 1, device=height.device)
    even = (torch.fmod(height, factors) == 0) & (torch.fmod(width, factors) == 0)
    large = torch.minimum(height, width) >= factors * side_px
    return (even & large).to(height.dtype).sum()


def _resize_weights(
    pixel: Float[Tensor, "length"], length: Tensor, halves: Tensor, side_px: int
) -> Float[Tensor, "side length"]:
    """Weights of each pixel of an axis in each pixel of its copy; they sum to 1.

    A triangle around the copy's pixel centre, as wide as its pixels are far apart but at least as a
    cell: the antialiased bilinear resize, of cells of `2^halves` pixels.
    """
    cell_px = 2.0**halves
    scale = length / cell_px / side_px
    centre = scale * (torch.arange(side_px, dtype=pixel.dtype, device=pixel.device) + 0.5)
    cell_centre = torch.floor(pixel / cell_px) + 0.5
    away = (cell_centre - centre[:, None]).abs() / scale.clamp_min(1)
    weights = (1 - away).clamp_min(0)
    return weights / weights.sum(-1, keepdim=True)
