"""`Lattice`: rows and columns cut separately, and the warp that makes its cells equally large.

Coordinates are those of `regions`: [0, 1] across a picture, the centre of pixel i of n at
`(i + 0.5) / n`. *Warped* ones are those of the picture whose R x C cells are equally large; along
each axis the one is a piecewise linear, increasing function of the other.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dartok.core.precision import without_autocast
from dartok.core.regions import Regions, frames_of, rows_of, tokens_of

__all__ = ["Lattice", "lattice_of"]


class Lattice(NamedTuple):
    """Edges of R rows and C columns for each of B pictures.

    Source: DART, arXiv:2506.10390, DART-Grid; the inverse is ours.

    Example:
        >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
        >>> lattice.to_warped(torch.tensor([[[0.25, 0.5]]]))
        tensor([[[0.5000, 0.5000]]])
    """

    row_edges: Float[Tensor, "B row_edges"]
    """R + 1 increasing edges from 0 to 1 of the height."""
    column_edges: Float[Tensor, "B column_edges"]
    """C + 1 increasing edges from 0 to 1 of the width."""

    def to_warped(self, points: Float[Tensor, "B *shape 2"]) -> Float[Tensor, "B *shape 2"]:
        """Where points (x, y) of the pictures lie in the warped ones; `to_image` is the inverse.

        Points outside [0, 1] move with the nearest cell. A box `(..., 4)` is two such points: its
        corners move as points do, and it stays a box.

        Example:
            >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
            >>> boxes = torch.tensor([[[0.0, 0.0, 0.25, 1.0]]])
            >>> lattice.to_warped(boxes.unflatten(-1, (2, 2))).flatten(-2)
            tensor([[[0.0000, 0.0000, 0.5000, 1.0000]]])
        """
        x, y = (values.flatten(1) for values in points.unbind(-1))
        moved = (_to_even(x, self.column_edges), _to_even(y, self.row_edges))
        return torch.stack(moved, dim=-1).view(points.shape).to(points.dtype)

    def to_image(self, points: Float[Tensor, "B *shape 2"]) -> Float[Tensor, "B *shape 2"]:
        """Where points (x, y) of the warped pictures lie in the pictures.

        Example:
            >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
            >>> lattice.to_image(torch.tensor([[[0.5, 0.5]]]))
            tensor([[[0.2500, 0.5000]]])
        """
        x, y = (values.flatten(1) for values in points.unbind(-1))
        moved = (_from_even(x, self.column_edges), _from_even(y, self.row_edges))
        return torch.stack(moved, dim=-1).view(points.shape).to(points.dtype)

    def warp(
        self, images: Float[Tensor, "B D H W"], size: tuple[int, int], *, oversample: int = 1
    ) -> Float[Tensor, "B D h w"]:
        """Pictures or maps resampled so that each cell is as large as any other.

        `out[v, u] = images at (x(u), y(v))`, bilinear, the border repeated; differentiable in both
        the pictures and the edges. Half precision is sampled in float32.

        Args:
            images: Of any size.
            size: Height and width of the result.
            oversample: m >= 1 averages m x m samples per pixel, against aliasing in large cells.
        Raises:
            ValueError: If the batch differs, a side of `size` or `oversample` is below 1.
        Example:
            >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
            >>> lattice.warp(torch.arange(8.0).view(1, 1, 1, 8), (1, 4))
            tensor([[[[0., 1., 3., 6.]]]])
        """
        self._check(images, size, oversample)
        fine = (size[0] * oversample, size[1] * oversample)
        x = _from_even(_centres(fine[1], self.column_edges), self.column_edges)
        y = _from_even(_centres(fine[0], self.row_edges), self.row_edges)
        return F.avg_pool2d(_read(images, x, y), oversample).to(images.dtype)

    def unwarp(
        self, maps: Float[Tensor, "B D h w"], size: tuple[int, int]
    ) -> Float[Tensor, "B D H W"]:
        """Maps of warped pictures, such as logits, laid back on the pictures.

        `out[y, x] = maps at (u(x), v(y))`: `warp` undone, to the error of interpolation.

        Raises:
            ValueError: If the batch differs or a side of `size` is below 1.
        Example:
            >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
            >>> lattice.unwarp(torch.tensor([[[[1.0, 5.0]]]]), (1, 4))
            tensor([[[[1.0000, 3.6667, 5.0000, 5.0000]]]])
        """
        self._check(maps, size, 1)
        u = _to_even(_centres(size[1], self.column_edges), self.column_edges)
        v = _to_even(_centres(size[0], self.row_edges), self.row_edges)
        return _read(maps, u, v).to(maps.dtype)

    def _check(self, images: Tensor, size: tuple[int, int], oversample: int) -> None:
        if images.ndim != 4 or images.shape[0] != self.row_edges.shape[0]:
            raise ValueError(
                f"images must be (B, D, H, W) with B = {self.row_edges.shape[0]} as the lattice, "
                f"got {tuple(images.shape)}"
            )
        if min(*size, oversample) < 1:
            raise ValueError(f"size and oversample must be at least 1, got {size} and {oversample}")


def lattice_of(regions: Regions) -> Lattice:
    """The lattice that a "grid" partition of images is.

    Raises:
        ValueError: If the regions are of clips, or not as many in each row.
    Example:
        >>> from dartok.core.partition import grid_partition
        >>> lattice_of(grid_partition(torch.ones(1, 4, 4), num_tokens=8, num_rows=2)).column_edges
        tensor([[0.0000, 0.2500, 0.5000, 0.7500, 1.0000]], dtype=torch.float64)
    """
    rows, tokens = rows_of(regions), tokens_of(regions)
    if frames_of(regions) != 1 or tokens % rows or regions.counts is not None:
        raise ValueError(
            f"a lattice needs partition='grid' of images, got {tokens} regions in {rows} rows of "
            f"{frames_of(regions)} frames"
        )
    return Lattice(regions.row_edges[:, 0], regions.strip_edges[:, : tokens // rows + 1])


def _centres(count: int, like: Tensor) -> Float[Tensor, "B count"]:
    steps = torch.arange(count, dtype=like.dtype, device=like.device)
    return ((steps + 0.5) / count).expand(like.shape[0], -1)


def _from_even(values: Float[Tensor, "B M"], edges: Float[Tensor, "B edges"]) -> Tensor:
    """Cells of one width to cells between `edges`."""
    count = edges.shape[1] - 1
    scaled = values.to(edges.dtype) * count
    cell = scaled.detach().floor().long().clamp(0, count - 1)
    left, right = edges.gather(1, cell), edges.gather(1, cell + 1)
    return left + (right - left) * (scaled - cell)


def _to_even(values: Float[Tensor, "B M"], edges: Float[Tensor, "B edges"]) -> Tensor:
    """Cells between `edges` to cells of one width."""
    count = edges.shape[1] - 1
    values = values.to(edges.dtype)
    inner = edges[:, 1:-1].detach().contiguous()
    cell = torch.searchsorted(inner, values.detach().contiguous(), right=True)
    left, right = edges.gather(1, cell), edges.gather(1, cell + 1)
    return (cell + (values - left) / (right - left)) / count


def _read(
    images: Float[Tensor, "B D H W"], x: Float[Tensor, "B w"], y: Float[Tensor, "B h"]
) -> Float[Tensor, "B D h w"]:
    """Bilinear values at all pairs of x and y, in [0, 1], in float32 or wider."""
    dtype = torch.promote_types(images.dtype, torch.float32)
    across = x.unsqueeze(1).expand(-1, y.shape[1], -1)
    down = y.unsqueeze(2).expand(-1, -1, x.shape[1])
    places = 2 * torch.stack([across, down], dim=-1).to(dtype) - 1
    with without_autocast(images):
        return F.grid_sample(images.to(dtype), places, padding_mode="border", align_corners=False)
