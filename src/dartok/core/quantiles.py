"""Quantile edges: cut an axis into parts of equal mass. Lengths are in cells."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "cell_of",
    "close_edges",
    "counted_edges",
    "exported_geometry",
    "geometry",
    "quantile_edges",
]

_exported_dtype = ContextVar("_exported_dtype", default=torch.float32)


def geometry(values: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """`values` in the dtype of geometry: float64, or float32 where float64 is not to be had.

    Strip coordinates reach hundreds while regions shrink to thousandths, which float32 cannot
    resolve; in float64 the cost is negligible and autocast leaves it alone. Apple's GPUs and many
    runtimes of exported graphs have no float64; what they lose is about a hundredth of a pixel.

    Example:
        >>> geometry(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float64
    """
    if values.device.type == "mps":
        return values.to(torch.float32)
    return values.to(_exported_dtype.get() if torch.compiler.is_exporting() else torch.float64)


@contextmanager
def exported_geometry(dtype: torch.dtype) -> Iterator[None]:
    """Meanwhile graphs are exported with geometry in `dtype`, instead of float32.

    Example:
        >>> with exported_geometry(torch.float64):
        ...     pass
    """
    token = _exported_dtype.set(dtype)
    try:
        yield
    finally:
        _exported_dtype.reset(token)


def quantile_edges(
    density: Float[Tensor, "*batch cells"], num_regions: int
) -> Float[Tensor, "*batch edges"]:
    """Edges that cut `[0, cells]` into `num_regions` regions of equal mass.

    The density is constant on each unit cell, so its cumulative mass is piecewise linear and
    every edge is exact and differentiable: edge k lies where the mass reaches `k / num_regions`
    of the total. Computed in float32 or wider.

    Source: DART, arXiv:2506.10390, piecewise differentiable quantile. The slope is the difference
    of two cumulative masses, not the density itself, so that edges never decrease however the
    sums round; the authors add 1e-8 to it (see `authors_partition`), we do not.

    Args:
        density: Mass per cell, `> 0`; any total. Not checked: reading values stalls the GPU.
        num_regions: `>= 1`.
    Returns:
        `num_regions + 1` increasing edges in cells, from `0` to `cells`.
    Raises:
        ValueError: If `num_regions < 1`.
    Example:
        >>> quantile_edges(torch.tensor([1.0, 1.0, 2.0]), 2)
        tensor([0., 2., 3.])
    """
    if num_regions < 1:
        raise ValueError(f"num_regions must be >= 1, got {num_regions}")
    mass = _cumulative(density)
    levels = torch.arange(1, num_regions, dtype=mass.dtype, device=mass.device) / num_regions
    return close_edges(_edges_at(mass, mass[..., -1:] * levels), density.shape[-1])


def counted_edges(
    density: Float[Tensor, "*batch cells"],
    counts: Int[Tensor, "*#batch"],
    num_regions: int,
    *,
    ends: Int[Tensor, "*#batch"],
) -> Float[Tensor, "*batch edges"]:
    """`quantile_edges` with a number of regions of its own for each density of the batch.

    Edge k lies where the mass reaches `min(k / counts, 1)` of the total; from `k = counts` on, at
    `ends`, so that what is left of the `num_regions` regions is empty.

    Args:
        density: Mass per cell, `> 0` up to `ends` and 0 beyond.
        counts: Regions, from 1 to `num_regions`. Not checked: reading values stalls the GPU.
        num_regions: The most that any has.
        ends: Where the axis ends, in cells.
    Example:
        >>> density, counts = torch.tensor([[1.0, 1.0, 2.0]] * 2), torch.tensor([2, 3])
        >>> counted_edges(density, counts, 3, ends=torch.tensor([3, 3]))
        tensor([[0.0000, 2.0000, 3.0000, 3.0000],
                [0.0000, 1.3333, 2.3333, 3.0000]])
    """
    mass = _cumulative(density)
    steps = torch.arange(1, num_regions + 1, dtype=mass.dtype, device=mass.device)
    counted = counts.unsqueeze(-1).to(mass.dtype)
    inner = _edges_at(mass, mass[..., -1:] * (steps / counted).clamp(max=1))
    inner = torch.where(steps < counted, inner, ends.unsqueeze(-1).to(mass.dtype))
    return F.pad(inner, (1, 0))


def cell_of(
    mass: Float[Tensor, "*batch cells"], target: Float[Tensor, "*batch edges"]
) -> Int[Tensor, "*batch edges"]:
    """First cell whose cumulative mass reaches the target: piecewise constant, so no gradient.

    Example:
        >>> cell_of(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 2.5]))
        tensor([1, 2])
    """
    mass, target = mass.detach(), target.detach()
    if torch.compiler.is_exporting():  # ONNX knows no search: count the cells below the target
        cell = (mass.unsqueeze(-2) < target.unsqueeze(-1)).sum(-1)
    else:
        cell = torch.searchsorted(mass.contiguous(), target.contiguous())
    return cell.clamp(max=mass.shape[-1] - 1)  # NaN scores must not index out of range


def close_edges(inner: Float[Tensor, "*batch inner"], end: int) -> Float[Tensor, "*batch edges"]:
    """The first and the last edge around those within.

    Example:
        >>> close_edges(torch.tensor([1.5]), 3)
        tensor([0.0000, 1.5000, 3.0000])
    """
    return F.pad(F.pad(inner, (1, 0)), (0, 1), value=float(end))


def _cumulative(density: Tensor) -> Tensor:
    return density.to(torch.promote_types(density.dtype, torch.float32)).cumsum(-1)


def _edges_at(mass: Tensor, target: Tensor) -> Tensor:
    """Where the cumulative mass, linear in each cell, reaches the target."""
    cell = cell_of(mass, target)
    before = F.pad(mass, (1, 0)).gather(-1, cell)
    return cell + (target - before) / (mass.gather(-1, cell) - before)
