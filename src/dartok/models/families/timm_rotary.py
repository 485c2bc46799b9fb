"""timm's modules of rotary positions, read as `Rotary`: the same angles, at any point."""

import math
from typing import Any

import torch
from timm.layers import pos_embed_sincos
from timm.layers.pos_embed_sincos import (
    RotaryEmbedding,
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
)
from torch import Tensor, nn

from dartok.models.rotary import Augmentation, Axis, Rotary

__all__ = ["rotary_of"]


def rotary_of(name: str, rope: Any, grid_size: tuple[int, int]) -> Rotary:
    """The angles of a host's `rope` on its grid of rows and columns.

    Learned frequencies are shared with the host; others are copied.

    Args:
        name: The host's class, for the refusal.
        rope: A rotary embedding of timm.
        grid_size: Rows and columns of the grid that the host is made for.
    Raises:
        ValueError: If timm's module is of a kind that is not known here.
    """
    if type(rope) in (RotaryEmbedding, RotaryEmbeddingCat):
        freqs, axes = _each_along_one_axis(_bands(rope)), _axes(rope, grid_size, _grid_type(rope))
    elif type(rope) is RotaryEmbeddingDinoV3:
        freqs, axes = _each_along_one_axis(_turns(rope)), _axes(rope, grid_size, "centered")
    elif type(rope) is RotaryEmbeddingMixed:
        freqs, axes = rope.freqs, _axes(rope, grid_size, "index")
    elif _is_mrope(rope):
        freqs = torch.stack([rope.inv_freq * (rope.axis == axis) for axis in (1, 2)])
        axes = _axes(rope, grid_size, "index")
    else:
        raise ValueError(
            f"adapt cannot carry over {name}: its rope is a {type(rope).__name__}, whose angles "
            "between the points of its grid are not known here"
        )
    halves = _is_mrope(rope) or bool(getattr(rope, "rotate_half", False))
    return Rotary(freqs, axes, halves=halves, augmentation=_augmentation(rope))


def _is_mrope(rope: nn.Module) -> bool:
    known = getattr(pos_embed_sincos, "RotaryEmbeddingMRope", None)  # newer timm has it
    return known is not None and type(rope) is known


def _each_along_one_axis(bands: Tensor) -> Tensor:
    """Frequencies `(2, 2 * bands)` of pairs that turn along the first axis, then the second."""
    still = torch.zeros_like(bands)
    return torch.stack([torch.cat([bands, still]), torch.cat([still, bands])])


def _turns(rope: Any) -> Tensor:
    """A period is the length over which a pair turns once."""
    return 2 * math.pi / rope.periods


def _bands(rope: Any) -> Tensor:
    bands = getattr(rope, "bands", None)
    if bands is not None:
        return bands.detach().clone()
    # Older timm drops them once it has a table.
    count = rope.dim // 4
    if rope.in_pixels:
        return pos_embed_sincos.pixel_freq_bands(
            count, float(rope.max_res), linear_bands=rope.linear_bands
        )
    return pos_embed_sincos.freq_bands(count, temperature=rope.temperature, step=1)


def _grid_type(rope: Any) -> str:
    return getattr(rope, "grid_type", None) or ("pixel" if rope.in_pixels else "index")


def _axes(rope: Any, grid_size: tuple[int, int], grid_type: str) -> tuple[Axis, Axis]:
    """timm's coordinates, "ij" rows first or "xy" columns first, as affine maps of a point."""
    reference = getattr(rope, "ref_feat_shape", None) or grid_size
    shared = {"max": max(grid_size), "min": min(grid_size)}.get(
        getattr(rope, "normalize_coords", "separate")
    )
    offset = float(getattr(rope, "grid_offset", 0.0))
    rows, columns = (
        _affine(grid_type, count, offset, shared or count, wanted / count)
        for count, wanted in zip(grid_size, reference, strict=True)
    )
    first, second = Axis("y", *rows), Axis("x", *columns)
    return (first, second) if rope.grid_indexing == "ij" else (second, first)


def _affine(
    grid_type: str, count: int, offset: float, denominator: int, stretch: float
) -> tuple[float, float]:
    """Scale and offset of a coordinate of `count` cells, cell i being the point (i + 0.5) / count.

    "index" counts cells from 0, "pixel" runs from -1 at the first cell to 1 at the last, "centered"
    from -1 at the picture's one edge to 1 at the other.
    """
    if grid_type == "index":
        return count * stretch, (offset - 0.5) * stretch
    if grid_type == "pixel":
        step = 2 / (count - 1) if count > 1 else 0.0
        return count * step * stretch, (-1 - step / 2) * stretch
    scale = 2 * stretch / denominator
    return count * scale, offset * scale - 1


def _augmentation(rope: nn.Module) -> Augmentation | None:
    names = ("shift_coords", "jitter_coords", "rescale_coords")
    limits = [getattr(rope, name, None) for name in names]
    return None if limits == [None] * 3 else Augmentation(*limits)
