"""Overlaps of intervals, and the pair built on them: paint tokens to a map, pool it to tokens."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from dartok.core.precision import without_autocast

__all__ = ["Measure", "overlap_lengths", "paint_map", "pool_map"]

Measure = Literal["area", "strip"]


def overlap_lengths(
    edges: Float[Tensor, "*batch n_edges"], cells: Float[Tensor, "m_edges"]
) -> Float[Tensor, "*batch n m"]:
    """Length that interval n of `edges` shares with interval m of `cells`, in their common unit.

    `max(0, min(right_n, right_m) - max(left_n, left_m))`.

    Example:
        >>> overlap_lengths(torch.tensor([0.0, 1.5, 2.0]), torch.tensor([0.0, 1.0, 2.0]))
        tensor([[1.0000, 0.5000],
                [0.0000, 0.5000]])
    """
    left = torch.maximum(edges[..., :-1, None], cells[:-1])
    right = torch.minimum(edges[..., 1:, None], cells[1:])
    return (right - left).clamp_min(0)


def paint_map(
    tokens: Float[Tensor, "B N D"],
    row_edges: Float[Tensor, "B T row_edges"],
    strip_edges: Float[Tensor, "B strip_edges"],
    size: tuple[int, int],
) -> Float[Tensor, "B D T h w"]:
    """Area-weighted mean of the tokens over each cell of a map: `Regions.to_map` explains it.

    `out[c] = sum_n area(c and n) * tokens[n] / area(c)`, in two steps: regions to the cells of the
    strip, then rows of the strip to rows of the map.
    """
    batch, num_frames, num_rows = row_edges.shape[0], row_edges.shape[1], row_edges.shape[2] - 1
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    with without_autocast(tokens):
        strip_share = _strip_overlap(strip_edges, num_frames * num_rows, size[1]) * size[1]
        row_share = _row_overlap(row_edges, size[0]) * size[0]
        strip = strip_share.to(dtype).transpose(1, 2) @ tokens.to(dtype)
        strip = strip.view(batch, num_frames, num_rows, -1)
        rows = row_share.to(dtype).transpose(-1, -2) @ strip
        return rows.view(batch, num_frames, *size, -1).permute(0, 4, 1, 2, 3).to(tokens.dtype)


def pool_map(
    values: Float[Tensor, "#B D T h w"],
    row_edges: Float[Tensor, "B T row_edges"],
    strip_edges: Float[Tensor, "B strip_edges"],
    measure: Measure = "area",
) -> Float[Tensor, "B N D"]:
    """Mean of a map over each region: `Regions.to_tokens` explains it.

    `out[n] = sum_c m(c and n) * values[c] / sum_c m(c and n)`, in two steps: map rows to rows of
    regions, then cells of the strip to regions, each strip cell weighted by its row's height
    (`measure="area"`) or equally (`"strip"`).
    """
    channels, num_frames, height, width = values.shape[1:]
    batch, num_rows = row_edges.shape[0], row_edges.shape[2] - 1
    dtype = torch.promote_types(values.dtype, torch.float32)
    with without_autocast(values):
        row_weights = _normalised(_row_overlap(row_edges, height)).to(dtype)
        columns = values.to(dtype).permute(0, 2, 3, 4, 1).flatten(3)
        strip = (row_weights @ columns).view(batch, -1, channels)
        heights = row_edges.diff(dim=-1) if measure == "area" else row_edges.new_ones(1)
        heights = heights.to(dtype).expand(batch, num_frames, num_rows).flatten(1)
        heights = heights.repeat_interleave(width, dim=1).unsqueeze(-1)
        overlap = _strip_overlap(strip_edges, num_frames * num_rows, width).to(dtype)
        # Sums and weights in one product: the overlaps are by far the largest tensor here.
        sums = overlap @ torch.cat([strip * heights, heights], dim=-1)
        means = sums[..., :-1] / sums[..., -1:].clamp_min(torch.finfo(dtype).tiny)
        return means.to(values.dtype)


def _row_overlap(row_edges: Tensor, height: int) -> Tensor:
    cells = torch.arange(height + 1, dtype=row_edges.dtype, device=row_edges.device) / height
    return overlap_lengths(row_edges, cells)


def _strip_overlap(strip_edges: Tensor, num_strip_rows: int, width: int) -> Tensor:
    count = num_strip_rows * width
    cells = torch.arange(count + 1, dtype=strip_edges.dtype, device=strip_edges.device) / width
    return overlap_lengths(strip_edges, cells)


def _normalised(weights: Tensor) -> Tensor:
    tiny = torch.finfo(weights.dtype).tiny
    return weights / weights.sum(-1, keepdim=True).clamp_min(tiny)
