"""Keep the sides of regions within bounds, by bounding the density that they are cut from."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from dartok.core.sides import Bounds

__all__ = ["bound_lengths", "water_fill"]


def bound_lengths(
    density: Float[Tensor, "*batch cells"],
    bounds: Bounds,
    mean_length: float | Float[Tensor, "*#batch 1"],
    *,
    is_cell: Bool[Tensor, "*#batch cells"] | None = None,
) -> Float[Tensor, "*batch cells"]:
    """The density, of mean 1, changed so that its parts of equal mass are as long as allowed.

    Where the density is p times its mean, a part of the mean mass is `mean_length / p` long. So
    lengths lie within the bounds where `mean_length / max <= p <= mean_length / min`.

    Args:
        density: Positive mass per cell, constant on it.
        bounds: Of lengths.
        mean_length: Of the parts, in the unit of the bounds.
        is_cell: Where the axis is not padding; None for everywhere.
    Example:
        >>> bound_lengths(torch.tensor([1.0, 1.0, 1.0, 5.0]), Bounds(max_region=0.3125), 0.25)
        tensor([0.8000, 0.8000, 0.8000, 1.6000])
    """
    cells = density.new_full((), density.shape[-1]) if is_cell is None else is_cell.sum(-1, True)
    cells = cells.to(density.dtype)
    mean = torch.as_tensor(mean_length, dtype=density.dtype, device=density.device)
    least = torch.zeros_like(mean) if bounds.max_region is None else mean / bounds.max_region
    most = cells if bounds.min_region is None else mean / bounds.min_region
    # What rounding, or a count known on the device only, makes impossible becomes the even density.
    return water_fill(density, least.clamp(max=1), most.clamp(min=1), is_cell)


def water_fill(
    density: Float[Tensor, "*batch cells"],
    least: Float[Tensor, "*#batch 1"],
    most: Float[Tensor, "*#batch 1"],
    is_cell: Bool[Tensor, "*#batch cells"] | None = None,
) -> Float[Tensor, "*batch cells"]:
    """`clamp(c * density, least, most)`, with c such that the mean is 1.

    c comes from the sorted densities; one step of Newton's method then gives it its gradient, that
    of the implicit function: what flows into a clamped cell is taken from those between.

    Args:
        density: Positive.
        least: From 0 to 1.
        most: From 1; the number of cells is no bound.
        is_cell: Where the axis is not padding, which stays 0; None for everywhere.
    Example:
        >>> water_fill(torch.tensor([1.0, 9.0]), torch.tensor(0.5), torch.tensor(2.0))
        tensor([0.5000, 1.5000])
    """
    if is_cell is None:
        is_cell = torch.ones((), dtype=torch.bool, device=density.device).expand(density.shape)
    cells = is_cell.sum(-1, keepdim=True).to(density.dtype)
    share = torch.where(is_cell, density, 0)
    share = share * (cells / share.sum(-1, keepdim=True))

    def filled(factor: Tensor) -> Tensor:
        bounded = torch.minimum(torch.maximum(factor * share, least), most)
        return torch.where(is_cell, bounded, 0)

    factor = _factor(share.detach(), least, most, cells)
    scaled = (factor * share).detach()
    is_free = (scaled > least) & (scaled < most)
    slope = torch.where(is_free, share.detach(), 0).sum(-1, keepdim=True)
    missing = cells - filled(factor).sum(-1, keepdim=True)
    step = torch.where(slope > 0, missing / torch.where(slope > 0, slope, 1), 0)
    return filled(factor + step)


def _factor(share: Tensor, least: Tensor, most: Tensor, cells: Tensor) -> Float[Tensor, "*batch 1"]:
    """c of `water_fill`.

    The mass grows with c, linearly between the values at which a cell, the densest first, rises
    from `least`, or stops at `most`. The last such value before the mass is reached says which
    cells are in between.
    """
    ordered = share.sort(dim=-1).values
    below = F.pad(ordered.cumsum(-1), (1, 0))
    count = share.shape[-1]
    events, order = torch.cat([least / ordered, most / ordered], dim=-1).sort(dim=-1)
    stopped = (order >= count).long().cumsum(-1)
    risen = (order < count).long().cumsum(-1)
    slope = below.gather(-1, count - stopped) - below.gather(-1, count - risen)
    fixed = (cells - risen) * least + stopped * most
    reached = (fixed + events * slope <= cells).sum(-1, keepdim=True)
    index = (reached - 1).clamp(min=0)
    event, slope, fixed = (values.gather(-1, index) for values in (events, slope, fixed))
    return torch.where(slope > 0, (cells - fixed) / torch.where(slope > 0, slope, 1), event)
