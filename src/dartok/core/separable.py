"""Bilinear reading where each row and each column of the result has one place in the picture.

Both functions compute places and weights in the dtype of the places, float64 for a lattice: a
picture read at its own pixels comes back as it is, whatever its size, which `grid_sample` gives to
1e-5 px only. They differ in what they are fast at: `read_lines` costs what the result has pixels;
`paint_lines`, a matrix product for either axis, up to six times less for maps of many channels and
few cells, and its gradient sums in a fixed order on a GPU too.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dartok.core.precision import without_autocast

__all__ = ["paint_lines", "read_lines"]


class _Neighbours(NamedTuple):
    """The pixels on both sides of places, and how far these lie from the one to the other."""

    before: Int[Tensor, "B places"]
    after: Int[Tensor, "B places"]
    share: Float[Tensor, "B places"]


def read_lines(
    images: Float[Tensor, "B D H W"],
    x: Float[Tensor, "B columns"],
    y: Float[Tensor, "B rows"],
    samples: tuple[int, int] = (1, 1),
) -> Float[Tensor, "B D h w"]:
    """Values at all pairs of x and y from 0 to 1, the border pixel repeated, averaged over samples.

    Args:
        images: Of any size.
        x: `w * samples[1]` places: each column of the result is the mean of so many.
        y: `h * samples[0]` places.
        samples: Averaged down and across.
    Returns:
        In float32 or wider.
    Example:
        >>> images = torch.tensor([[[[1.0, 5.0]]]])
        >>> read_lines(images, torch.tensor([[0.5, 0.75]]), torch.tensor([[0.5]]), (1, 2))
        tensor([[[[4.]]]])
    """
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    return _read_line(_read_line(images, y, 2, samples[0]), x, 3, samples[1])


def paint_lines(
    maps: Float[Tensor, "B D h w"], x: Float[Tensor, "B W"], y: Float[Tensor, "B H"]
) -> Float[Tensor, "B D H W"]:
    """Values at all pairs of x and y from 0 to 1, the border cell repeated: as `read_lines`.

    Example:
        >>> maps = torch.tensor([[[[1.0, 5.0]]]])
        >>> paint_lines(maps, torch.tensor([[0.25, 0.5, 0.75]]), torch.tensor([[0.5]]))
        tensor([[[[1., 3., 5.]]]])
    """
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    across, down = _weights(x, maps.shape[3], maps), _weights(y, maps.shape[2], maps)
    with without_autocast(maps):
        columns = maps.flatten(1, 2) @ across.transpose(1, 2)
        columns = columns.unflatten(1, (-1, maps.shape[2])).transpose(1, 2)  # (B, h, D, W)
        rows = down @ columns.flatten(2)
    return rows.unflatten(2, (-1, x.shape[1])).transpose(1, 2).contiguous()


def _read_line(images: Tensor, places: Float[Tensor, "B places"], dim: int, samples: int) -> Tensor:
    """Linear values along one axis, averaged over samples."""
    before, after, share = _neighbours(places, images.shape[dim])
    each = [images.shape[0], 1, 1, 1]
    each[dim] = -1
    shape = [*images.shape[:dim], places.shape[1], *images.shape[dim + 1 :]]
    first = images.gather(dim, before.view(each).expand(shape))
    second = images.gather(dim, after.view(each).expand(shape))
    read = torch.lerp(first, second, share.view(each).to(images.dtype))
    return read if samples == 1 else read.unflatten(dim, (-1, samples)).mean(dim + 1)


def _neighbours(places: Float[Tensor, "B places"], length: int) -> _Neighbours:
    position = (places * length - 0.5).clamp(0, length - 1)
    before = position.detach().floor().long().clamp(0, length - 1)  # in range also where it is NaN
    return _Neighbours(before, (before + 1).clamp(max=length - 1), position - before)


def _weights(
    places: Float[Tensor, "B places"], length: int, like: Tensor
) -> Float[Tensor, "B places cells"]:
    before, after, share = (values.unsqueeze(2) for values in _neighbours(places, length))
    nothing = places.new_zeros(*places.shape, length)
    return nothing.scatter_add(2, before, 1 - share).scatter_add(2, after, share).to(like.dtype)
