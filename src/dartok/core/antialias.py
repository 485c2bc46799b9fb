"""Exact area means in place of points, for regions with less than one sample per pixel.

Each pixel is taken as a square of one colour. Its mean over an interval of one pixel is what linear
interpolation gives at the centre of the interval, so that one formula covers regions of all sizes.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dartok.core.quantiles import geometry
from dartok.core.reading import readable

__all__ = ["area_samples", "interval_means", "is_resolved"]

_SLACK = 1e-6
"""Share of a pixel by which rounding may carry samples one pixel apart further apart."""


def is_resolved(
    height: Float[Tensor, "*shape"], width: Float[Tensor, "*shape"], size_px: tuple[int, int]
) -> Tensor:
    """Whether samples that far apart, as shares of the sides, are at most a pixel apart.

    Example:
        >>> is_resolved(torch.tensor([0.1, 0.2]), torch.tensor([0.1, 0.1]), (10, 10))
        tensor([ True, False])
    """
    within = 1 + _SLACK
    return (height.detach() * size_px[0] <= within) & (width.detach() * size_px[1] <= within)


def area_samples(
    picture: Float[Tensor, "B C stacked W"],
    row_edges: Float[Tensor, "B T row_edges"],
    *,
    x: Float[Tensor, "B M"],
    width: Float[Tensor, "B M"],
    row: Int[Tensor, "B M"],
    num_samples: int,
) -> Float[Tensor, "B C M samples"]:
    """Means over the footprints of samples, exact for any rectangle.

    A column of samples lies at x in a row of regions. Its sample k has a footprint centred where
    the point would lie, as wide as the columns are apart and as high as the row's samples are, or a
    pixel where that is larger; what reaches beyond the row's end or the picture is cut off:
    `out = mean of the picture over [x - w / 2, x + w / 2] x [y - h / 2, y + h / 2]`. In two steps:
    rows of pixels to rows of samples, which all regions of a row share, then columns.

    Source: ours.

    Args:
        picture: Frames one below the other, of any size.
        row_edges: Of each frame.
        x: Centres of the columns, from 0 to 1, in the order of the strip.
        width: How far the columns of that region are apart, in widths of the picture.
        row: Of the strip, that each column lies in.
        num_samples: In each column.
    Example:
        >>> picture = torch.tensor([[[[0.0, 2.0, 4.0, 6.0]] * 2]])
        >>> half = torch.tensor([[0.25, 0.75]])
        >>> row = torch.zeros(1, 2, dtype=torch.long)
        >>> edges = torch.tensor([[[0.0, 1.0]]])
        >>> area_samples(picture, edges, x=half, width=half * 0 + 0.5, row=row, num_samples=1)
        tensor([[[[1.],
                  [5.]]]])
    """
    strip = _rows_of_samples(picture, row_edges, num_samples)
    width_px = picture.shape[-1]
    starts, ends = _footprints(x, width, width_px)
    before = row * width_px
    columns = interval_means(strip, starts + before, ends + before)
    return columns.unflatten(2, (picture.shape[1], num_samples)).transpose(1, 2)


def _rows_of_samples(
    picture: Tensor, row_edges: Tensor, num_samples: int
) -> Float[Tensor, "B strip_px C*samples"]:
    """The strip, with the samples of each of its columns of pixels."""
    batch, channels, stacked, width_px = picture.shape
    num_frames, num_rows = row_edges.shape[1], row_edges.shape[2] - 1
    height_px = stacked // num_frames
    spacing = row_edges.diff(dim=-1).unsqueeze(-1) / num_samples
    steps = torch.arange(num_samples, dtype=spacing.dtype, device=spacing.device) + 0.5
    centres = row_edges[..., :-1, None] + spacing * steps
    sides = [
        side.flatten(2).unsqueeze(1).expand(-1, channels, -1, -1).flatten(0, 2)
        for side in _footprints(centres, spacing, height_px)
    ]
    lines = picture.reshape(batch * channels * num_frames, height_px, width_px)
    rows = interval_means(lines, *sides)
    rows = rows.view(batch, channels, num_frames, num_rows, num_samples, width_px)
    return rows.permute(0, 2, 3, 5, 1, 4).flatten(4).flatten(1, 3)


def _footprints(centre: Tensor, spacing: Tensor, length_px: int) -> tuple[Tensor, Tensor]:
    """Where footprints start and end in pixels, within the picture."""
    half_px = (spacing * length_px).clamp_min(1) / 2
    centre_px = centre * length_px
    return (centre_px - half_px).clamp(0, length_px), (centre_px + half_px).clamp(0, length_px)


def interval_means(
    lines: Float[Tensor, "B L D"],
    starts: Float[Tensor, "B M"],
    ends: Float[Tensor, "B M"],
) -> Float[Tensor, "B M D"]:
    """Mean of each interval over lines of thickness 1: `integral from start to end / length`.

    Differentiable in lines and ends. On the CPU every line is added to the interval that it lies
    in; elsewhere, and in graphs, cumulative sums in the dtype of geometry are subtracted.

    Args:
        lines: One vector per line, constant on it.
        starts: From 0 to L.
        ends: From 0 to L, above the starts, and not decreasing. Intervals longer than a line must
            not overlap.
    Example:
        >>> lines = torch.tensor([[[1.0], [3.0], [8.0]]])
        >>> interval_means(lines, torch.tensor([[0.0, 0.5]]), torch.tensor([[0.5, 3.0]]))
        tensor([[[1.0000],
                 [4.6000]]])
    """
    first = starts.detach().floor().long().clamp(0, lines.shape[1] - 1)
    last = (ends.detach().ceil().long() - 1).clamp(0, lines.shape[1] - 1)
    last = torch.maximum(first, last)
    several = last > first
    head = torch.where(several, first + 1, ends) - starts
    tail = torch.where(several, ends - last, 0)
    between = _sums_between if readable(lines) else _differences_between
    integral = torch.addcmul(between(lines, first, last), _like(head, lines), _at(lines, first))
    integral = torch.addcmul(integral, _like(tail, lines), _at(lines, last))
    return integral * _like(1 / (ends - starts), lines)


def _like(weights: Float[Tensor, "B M"], lines: Tensor) -> Float[Tensor, "B M 1"]:
    return weights.to(lines.dtype).unsqueeze(-1)


def _at(lines: Float[Tensor, "B L D"], index: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    batch, length = lines.shape[:2]
    offset = torch.arange(batch, device=index.device).unsqueeze(1) * length
    found = lines.flatten(0, 1).index_select(0, (index + offset).flatten())
    return found.unflatten(0, (batch, index.shape[1]))


def _sums_between(lines: Tensor, first: Tensor, last: Tensor) -> Float[Tensor, "B M D"]:
    """Sum of the lines after the first and before the last: no line is in two intervals."""
    batch, length = lines.shape[:2]
    count = first.shape[1]
    line = torch.arange(length, device=lines.device).expand(batch, -1).contiguous()
    owner = torch.searchsorted(last.contiguous(), line, right=True)
    begins = F.pad(first, (0, 1), value=length).gather(1, owner)
    slot = torch.where(begins < line, owner, count)
    offset = torch.arange(batch, device=lines.device).unsqueeze(1) * (count + 1)
    sums = lines.new_zeros(batch * (count + 1), lines.shape[2])
    sums = sums.index_add(0, (slot + offset).flatten(), lines.flatten(0, 1))
    return sums.unflatten(0, (batch, count + 1))[:, :count]


def _differences_between(lines: Tensor, first: Tensor, last: Tensor) -> Float[Tensor, "B M D"]:
    """`_sums_between` from cumulative sums."""
    sums = F.pad(geometry(lines).cumsum(1), (0, 0, 1, 0))
    after = first + 1
    return (_at(sums, torch.maximum(after, last)) - _at(sums, after)).to(lines.dtype)
