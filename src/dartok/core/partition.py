"""Cut score maps into regions of equal score mass: quantile edges, DART-Flow and DART-Grid."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dartok.core.bounds import bound_lengths
from dartok.core.counts import Counts
from dartok.core.names import one_of
from dartok.core.overlap import TINY, overlap_lengths
from dartok.core.precision import without_autocast
from dartok.core.quantiles import cell_of, close_edges, counted_edges, geometry, quantile_edges
from dartok.core.regions import Regions
from dartok.core.sides import Bounds, check_bounded_kind, check_bounds

__all__ = [
    "PartitionName",
    "authors_edges",
    "authors_partition",
    "check_num_rows",
    "default_num_rows",
    "flow_partition",
    "grid_partition",
    "partition",
    "row_average",
]

PartitionName = Literal["flow", "grid", "authors"]

_AUTHORS_EPSILON = 1e-8
"""Added to each slope and to the row total by the authors' code: about 6e-5 px at 448 px."""


def row_average(
    scores: Float[Tensor, "B T h w"], edges_cells: Float[Tensor, "B T edges"]
) -> Float[Tensor, "B T R w"]:
    """Mean score over each row of regions, per column: the density of the strip.

    `out[r, j] = sum_i overlap(r, i) * scores[i, j] / sum_i overlap(r, i)`, where `overlap(r, i)` is
    the height that row r and cell i share. A mean, not a sum: a thin row over high scores is dense,
    so it receives more regions than a thick row of the same mass.

    Source: DART, arXiv:2506.10390; reference code, row resampling of the score map.

    Args:
        scores: Score maps of T frames, in cells.
        edges_cells: R + 1 row edges per frame, in score cells from 0 to h.
    Returns:
        Strip density, one row of w cells per row of regions.
    Example:
        >>> row_average(torch.tensor([[[[1.0], [3.0]]]]), torch.tensor([[[0.0, 2.0]]]))
        tensor([[[[2.]]]])
    """
    weights = overlap_lengths(edges_cells, scores.shape[-2])
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(TINY)
    with without_autocast(scores):
        return weights @ scores


def flow_partition(
    scores: Float[Tensor, "B *T h w"],
    *,
    num_tokens: int,
    num_rows: int,
    counts: Counts | None = None,
    bounds: Bounds | None = None,
) -> Regions:
    """DART-Flow: rows of equal score mass, then regions of equal mass along the whole strip.

    Rows are cut per frame from the row sums of the scores; the strip lays the rows of all frames
    end to end with `row_average` as density, and its quantiles are the region edges. A region may
    therefore cross from the end of one row to the start of the next, and tokens flow to the rows
    and frames that hold the mass.

    Source: DART, arXiv:2506.10390, DART-Flow.

    Args:
        scores: Positive score maps `(B, h, w)`, or `(B, T, h, w)` for clips.
        num_tokens: Regions in all, over every frame; `>= 1`.
        num_rows: Rows per frame; from 1 to `num_tokens`.
        counts: Regions and rows of each image where images differ; `num_tokens` and `num_rows` are
            then the most that any has, and what an image has not is empty padding. An image's
            regions are those it has alone.
        bounds: On the sides of regions: rows and regions keep their mass in scores that are no
            lower and no higher than the bounds allow. Not checked against `counts`: where those
            make a bound impossible, regions are even.
    Raises:
        ValueError: If a count is out of range, `scores` is not 3- or 4-dimensional, or so many
            regions cannot keep the bounds.
    Example:
        >>> flow_partition(torch.ones(1, 2, 2), num_tokens=4, num_rows=2).strip_edges
        tensor([[0.0000, 0.5000, 1.0000, 1.5000, 2.0000]], dtype=torch.float64)
    """
    if counts is not None:
        return _counted_flow(_as_frames(scores), num_tokens, num_rows, counts, bounds)
    frames = _frames(scores, num_tokens, num_rows)
    num_frames = frames.shape[1]
    check_bounds(bounds, num_tokens, num_rows, num_frames=num_frames)
    row_cells = quantile_edges(_bounded(frames.sum(-1), bounds, 1 / num_rows), num_rows)
    strip = row_average(frames, row_cells).flatten(1)
    mean_length = num_frames * num_rows / num_tokens
    strip_cells = quantile_edges(_bounded(strip, bounds, mean_length), num_tokens)
    return Regions(row_cells / frames.shape[-2], strip_cells / frames.shape[-1])


def _counted_flow(
    frames: Tensor, num_tokens: int, num_rows: int, counts: Counts, bounds: Bounds | None
) -> Regions:
    height, width = frames.shape[-2:]
    rows = counts.rows.unsqueeze(-1)
    bottom = torch.full_like(rows, height)
    down = _bounded(frames.sum(-1), bounds, 1 / geometry(rows).unsqueeze(-1))
    row_cells = counted_edges(down, rows, num_rows, ends=bottom)
    strip = row_average(frames, row_cells).flatten(1)  # rows of no height have no density
    if bounds is not None:
        strip = _bounded_strip(strip, bounds, counts, frames.shape[1], num_rows)
    before_last_frame = (frames.shape[1] - 1) * num_rows
    ends = (before_last_frame + counts.rows) * width
    strip_cells = counted_edges(strip, counts.tokens, num_tokens, ends=ends)
    each = counts.tokens.expand(frames.shape[0])
    return Regions(row_cells / height, strip_cells / width, each)


def _bounded_strip(
    strip: Tensor, bounds: Bounds, counts: Counts, num_frames: int, num_rows: int
) -> Float[Tensor, "B strip"]:
    """The strip's density within bounds, its padding left out."""
    width = strip.shape[1] // (num_frames * num_rows)
    is_row = torch.arange(num_rows, device=strip.device) < counts.rows.unsqueeze(-1)
    is_cell = is_row[:, None, :, None].expand(-1, num_frames, -1, width).flatten(1)
    mean_length = num_frames * geometry(counts.rows) / counts.tokens
    return bound_lengths(strip, bounds, mean_length.unsqueeze(-1), is_cell=is_cell)


def grid_partition(
    scores: Float[Tensor, "B *T h w"],
    *,
    num_tokens: int,
    num_rows: int,
    bounds: Bounds | None = None,
) -> Regions:
    """DART-Grid: rows and columns of equal score mass, cut separately, in each frame.

    Row edges are quantiles of the row sums and column edges quantiles of the column sums, so the
    regions stay a lattice of `num_rows` by `num_tokens / (T * num_rows)` and none crosses a seam.

    Source: DART, arXiv:2506.10390, DART-Grid (the partition behind the authors' image reshaper).

    Args:
        scores: Positive score maps `(B, h, w)`, or `(B, T, h, w)` for clips.
        num_tokens: Regions in all; a multiple of `T * num_rows`.
        num_rows: Rows per frame; `>= 1`.
        bounds: On the sides of regions, as of `flow_partition`.
    Raises:
        ValueError: If a count is out of range, `num_tokens` is not such a multiple, or so many
            regions cannot keep the bounds.
    Example:
        >>> grid_partition(torch.ones(1, 2, 2), num_tokens=2, num_rows=1).strip_edges
        tensor([[0.0000, 0.5000, 1.0000]], dtype=torch.float64)
    """
    frames = _frames(scores, num_tokens, num_rows)
    check_num_rows(num_rows, num_tokens, "grid", num_frames=frames.shape[1])
    check_bounds(bounds, num_tokens, num_rows, num_frames=frames.shape[1])
    num_columns = num_tokens // (frames.shape[1] * num_rows)
    down = _bounded(frames.sum(-1), bounds, 1 / num_rows)
    across = _bounded(frames.sum(-2), bounds, 1 / num_columns)
    row_edges = quantile_edges(down, num_rows) / frames.shape[-2]
    columns = quantile_edges(across, num_columns) / frames.shape[-1]
    first_rows = torch.arange(frames.shape[1] * num_rows, device=frames.device)
    inner = columns[..., 1:].repeat_interleave(num_rows, dim=1) + first_rows[None, :, None]
    return Regions(row_edges, F.pad(inner.flatten(1), (1, 0)))


def authors_partition(scores: Float[Tensor, "B h w"], *, num_tokens: int, num_rows: int) -> Regions:
    """`flow_partition` with the epsilons of the authors' code, for their checkpoints.

    Their quantile divides by the density plus 1e-8 (of a total of 1), and the row totals by their
    sum plus 1e-8. Edges differ from ours by about 2e-6 cells per cell crossed.

    Source: reference code (tools.py:216); `flow_partition` for the method.

    Args:
        scores: Positive score maps `(B, h, w)`.
        num_tokens: Regions, `>= 1`.
        num_rows: Rows, from 1 to `num_tokens`.
    Raises:
        ValueError: If a count is out of range or `scores` is not 3-dimensional: they know no clips.
    Example:
        >>> authors_partition(torch.ones(1, 2, 2), num_tokens=2, num_rows=1).num_tokens
        2
    """
    if scores.ndim != 3:
        raise ValueError(
            f"scores must be (B, h, w) for partition='authors', got {tuple(scores.shape)}; "
            "partition='flow' cuts clips"
        )
    frames = _frames(scores, num_tokens, num_rows)
    pdf = frames / frames.sum((-3, -2, -1), keepdim=True)
    row_cells = authors_edges(pdf.sum(-1), num_rows)
    strip = row_average(pdf, row_cells).flatten(1)
    strip_cells = _authors_quantile_edges(strip / strip.sum(-1, keepdim=True), num_tokens)
    return Regions(row_cells / frames.shape[-2], strip_cells / frames.shape[-1])


def authors_edges(mass: Float[Tensor, "*batch cells"], num_regions: int) -> Tensor:
    """Edges that cut one axis as the authors' code does: `quantile_edges` with their epsilons.

    The total is the sum plus 1e-8, and each slope the density plus 1e-8.

    Args:
        mass: Mass per cell, `> 0`, of a total of 1: the row or column sums of a score map.
        num_regions: `>= 1`.
    Returns:
        `(*batch, num_regions + 1)` edges in cells, from 0 to the number of cells.
    Example:
        >>> authors_edges(torch.tensor([0.25, 0.25, 0.5]), 2)
        tensor([0., 2., 3.])
    """
    return _authors_quantile_edges(
        mass / (mass.sum(-1, keepdim=True) + _AUTHORS_EPSILON), num_regions
    )


_PARTITIONS: dict[str, Callable[..., Regions]] = {
    "flow": flow_partition,
    "grid": grid_partition,
    "authors": authors_partition,
}


def partition(
    scores: Float[Tensor, "B *T h w"],
    *,
    num_tokens: int,
    num_rows: int,
    kind: PartitionName = "flow",
    counts: Counts | None = None,
    bounds: Bounds | None = None,
) -> Regions:
    """The partition named `kind`: see `flow_partition`, `grid_partition`, `authors_partition`.

    Raises:
        ValueError: If `kind` is unknown, or cannot give each image a count of its own or keep
            bounds, or as the partition it names.
    Example:
        >>> partition(torch.ones(1, 4, 4), num_tokens=4, num_rows=2, kind="grid").num_rows
        2
    """
    one_of("partition", kind, PartitionName)
    if counts is not None:
        if kind != "flow":
            raise ValueError(f"a count for each image needs partition='flow', got {kind!r}")
        return flow_partition(
            scores, num_tokens=num_tokens, num_rows=num_rows, counts=counts, bounds=bounds
        )
    check_bounded_kind(bounds, kind)
    options = {} if bounds is None else {"bounds": bounds}
    return _PARTITIONS[kind](scores, num_tokens=num_tokens, num_rows=num_rows, **options)


def default_num_rows(
    num_tokens: int, height: int, width: int, *, kind: PartitionName = "flow", num_frames: int = 1
) -> int:
    """Rows per frame that make regions about square: `round(sqrt(num_tokens * height / width))`.

    For a clip the count is that of one frame's share. For a grid it is the divisor of the share
    nearest (in ratio) to that number, since a lattice needs whole columns.

    Args:
        num_tokens: Regions in all.
        height: Image height, in any unit shared with `width`.
        width: Image width.
        kind: Partition that will use the rows.
        num_frames: Frames of the clip.
    Example:
        >>> default_num_rows(196, 224, 224), default_num_rows(98, 100, 200)
        (14, 7)
    """
    share = max(1, num_tokens // num_frames)
    if kind != "grid":
        return min(max(1, round((share * height / width) ** 0.5)), share)
    rows = 1
    for divisor in range(2, share + 1):  # compared by products: sizes may be symbols of a compiler
        if share % divisor == 0 and share * height > rows * divisor * width:
            rows = divisor
    return rows


def check_num_rows(
    num_rows: int, num_tokens: int, kind: PartitionName, *, num_frames: int = 1
) -> None:
    """Refuse a number of rows that the budget cannot fill.

    Raises:
        ValueError: If `num_rows` is not from 1 to `num_tokens`, or, for a grid, if whole columns
            are not possible.
    """
    if not 1 <= num_rows <= num_tokens:
        raise ValueError(f"num_rows must be from 1 to num_tokens = {num_tokens}, got {num_rows}")
    if kind == "grid" and num_tokens % (num_frames * num_rows):
        raise ValueError(
            f"num_tokens must be a multiple of frames * num_rows = {num_frames * num_rows} "
            f"for partition='grid', got {num_tokens}; change num_tokens or num_rows"
        )


def _bounded(density: Tensor, bounds: Bounds | None, mean_length: float | Tensor) -> Tensor:
    return density if bounds is None else bound_lengths(density, bounds, mean_length)


def _frames(scores: Tensor, num_tokens: int, num_rows: int) -> Tensor:
    frames = _as_frames(scores)
    if num_tokens < 1:
        raise ValueError(f"num_tokens must be >= 1, got {num_tokens}")
    check_num_rows(num_rows, num_tokens, "flow")
    return frames


def _as_frames(scores: Tensor) -> Tensor:
    if scores.ndim not in (3, 4):
        raise ValueError(f"scores must be (B, h, w) or (B, T, h, w), got {tuple(scores.shape)}")
    return geometry(scores if scores.ndim == 4 else scores.unsqueeze(1))


def _authors_quantile_edges(pdf: Tensor, num_regions: int) -> Tensor:
    mass = pdf.cumsum(-1)
    levels = torch.arange(1, num_regions, dtype=pdf.dtype, device=pdf.device) / num_regions
    target = levels.expand(*pdf.shape[:-1], -1)
    cell = cell_of(mass, target)
    before = F.pad(mass, (1, 0)).gather(-1, cell)
    inner = cell + (target - before) / (pdf.gather(-1, cell) + _AUTHORS_EPSILON)
    return close_edges(inner, pdf.shape[-1])
