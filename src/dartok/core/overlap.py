"""Overlaps of intervals, and the pair built on them: paint tokens to a map, pool it to tokens."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dartok.core.precision import without_autocast

__all__ = ["TINY", "Measure", "cell_shares", "overlap_lengths", "paint_map", "pool_map"]

Measure = Literal["area", "strip"]

TINY = torch.finfo(torch.float32).tiny
"""Least total that divides: of float32 also in float64, as exporters write nothing smaller."""


def overlap_lengths(
    edges: Float[Tensor, "*batch n_edges"], num_cells: int, length: float = 1.0
) -> Float[Tensor, "*batch n m"]:
    """Length that interval n of `edges` shares with cell m of `num_cells` cells of equal `length`.

    With `inside(e, m) = clamp(e - m * length, 0, length)`, the part of cell m left of e, it is
    `inside(edges[n + 1], m) - inside(edges[n], m)`: exact, and a pass less over the large result
    than `max(0, min(rights) - max(lefts))`. Edges must increase; the cells start at 0.

    Example:
        >>> overlap_lengths(torch.tensor([0.0, 1.5, 2.0]), 2)
        tensor([[1.0000, 0.5000],
                [0.0000, 0.5000]])
    """
    starts = torch.arange(num_cells, dtype=edges.dtype, device=edges.device) * length
    return (edges.unsqueeze(-1) - starts).clamp(0.0, length).diff(dim=-2)


def cell_shares(
    edges_cells: Float[Tensor, "*batch n_edges"], num_cells: int, dtype: torch.dtype
) -> Float[Tensor, "*batch n m"]:
    """Share of cell m that lies in interval n of `edges_cells`, which count in cells.

    It is `inside(edges[n + 1], m) - inside(edges[n], m)` with `inside(e, m) = clamp(e - m, 0, 1)`.
    An edge is split into its cell and the rest, so `e - m` is as exact in `dtype` as the rest is,
    however many cells there are, and nothing large is computed in the edges' own, wider dtype.

    Example:
        >>> cell_shares(torch.tensor([0.0, 1.5, 2.0]), 2, torch.float32)
        tensor([[1.0000, 0.5000],
                [0.0000, 0.5000]])
    """
    cell = edges_cells.detach().floor()
    rest = (edges_cells - cell).to(dtype)
    before = cell.to(dtype).unsqueeze(-1) - torch.arange(
        num_cells, dtype=dtype, device=edges_cells.device
    )
    inside = (before + rest.unsqueeze(-1)).clamp(0, 1)
    return inside[..., 1:, :] - inside[..., :-1, :]


def paint_map(
    tokens: Float[Tensor, "B N D"],
    row_edges: Float[Tensor, "B T row_edges"],
    strip_edges: Float[Tensor, "B strip_edges"],
    size: tuple[int, int],
) -> Float[Tensor, "B D T h w"]:
    """Area-weighted mean of the tokens over each cell of a map: `Regions.to_map` explains it.

    `out[c] = sum_n area(c and n) * tokens[n] / area(c)`, in two steps: regions to the cells of the
    strip, then rows of the strip to rows of the map. The result is contiguous.
    """
    batch, num_frames, num_rows = row_edges.shape[0], row_edges.shape[1], row_edges.shape[2] - 1
    dtype = torch.promote_types(tokens.dtype, torch.float32)
    height, width = size
    with without_autocast(tokens):
        strip_share = cell_shares(strip_edges * width, num_frames * num_rows * width, dtype)
        row_share = cell_shares(row_edges * height, height, dtype).transpose(-1, -2)
        strip = tokens.to(dtype).transpose(1, 2) @ strip_share
        rows = row_share.unsqueeze(1) @ strip.view(batch, -1, num_frames, num_rows, width)
        return rows.to(tokens.dtype)


def pool_map(
    values: Float[Tensor, "#B D T h w"],
    row_edges: Float[Tensor, "B T row_edges"],
    strip_edges: Float[Tensor, "B strip_edges"],
    measure: Measure = "area",
) -> Float[Tensor, "B N D"]:
    """Mean of a map over each region: `Regions.to_tokens` explains it.

    `out[n] = sum_c m(c and n) * values[c] / sum_c m(c and n)`, in two steps: integrals of the map
    over the rows of regions (`measure="area"`) or means (`"strip"`), then from the cells of the
    strip to regions.
    """
    channels, num_frames, height, width = values.shape[1:]
    batch, num_rows = row_edges.shape[0], row_edges.shape[2] - 1
    dtype = torch.promote_types(values.dtype, torch.float32)
    with without_autocast(values):
        row_shares = overlap_lengths(row_edges, height, 1 / height)
        if measure == "strip":
            row_shares = _normalised(row_shares)
        columns = values.to(dtype).permute(0, 2, 3, 4, 1).flatten(3)
        strip = (row_shares.to(dtype) @ columns).view(batch, -1, channels)
        num_cells = num_frames * num_rows * width
        if num_frames > 1:
            weights = row_shares.sum(-1).flatten(1).repeat_interleave(width, dim=1)
            return _means_along(strip, weights, strip_edges * width).to(values.dtype)
        overlap = overlap_lengths(strip_edges, num_cells, 1 / width).to(dtype)
        weights = row_shares.sum(-1).to(dtype).flatten(1).repeat_interleave(width, dim=1)
        means = (overlap @ strip) / (overlap @ weights.unsqueeze(-1)).clamp_min(TINY)
        return means.to(values.dtype)


def _means_along(
    strip: Float[Tensor, "B cells D"],
    weights: Float[Tensor, "B cells"],
    edges_cells: Float[Tensor, "B edges"],
) -> Float[Tensor, "B N D"]:
    """Integral of the strip over each region, by that of the weights.

    As differences of running sums, in the dtype of the edges: cost and memory grow as cells plus
    regions, not as their product, which clips would make large.
    """
    dtype, num_cells = edges_cells.dtype, strip.shape[1]
    cell = edges_cells.detach().floor().long().clamp(0, num_cells - 1)
    rest = edges_cells - cell

    def integrals(density: Tensor) -> Tensor:
        before = F.pad(density.cumsum(1), (0, 0, 1, 0))
        index = cell.unsqueeze(-1).expand(-1, -1, density.shape[-1])
        within = rest.unsqueeze(-1) * density.gather(1, index)
        return (before.gather(1, index) + within).diff(dim=1)

    total = integrals(weights.to(dtype).unsqueeze(-1))
    return integrals(strip.to(dtype)) / total.clamp_min(TINY)


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True).clamp_min(TINY)
