"""`Lattice`: rows and columns cut separately, and the warp that makes its cells equally large.

Coordinates are those of `regions`: [0, 1] across a picture, the centre of pixel i of n at
`(i + 0.5) / n`. *Warped* ones are those of the picture whose R x C cells are equally large; along
each axis the one is a piecewise linear, increasing function of the other.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dartok.core.quantiles import cell_of
from dartok.core.regions import Regions, frames_of, rows_of, tokens_of
from dartok.core.separable import paint_lines, read_lines

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

    def boxes_to_warped(
        self,
        boxes_xyxy: Sequence[Float[Tensor, "M 4"]],
        *,
        image_px: tuple[int, int],
        warped_px: tuple[int, int],
    ) -> list[Float[Tensor, "M 4"]]:
        """Boxes in pixels of the pictures, such as targets, in pixels of the warped ones.

        Corners are lengths from the left and the top, as torchvision has them: the whole picture is
        the box `(0, 0, width, height)`. Sizes of (1, 1) are boxes in [0, 1].

        Args:
            boxes_xyxy: Left, top, right, bottom; for each picture any number M, also 0.
            image_px: Height and width of the pictures.
            warped_px: Height and width of the warped pictures.
        Returns:
            In the dtype of the edges, float64 as `partition` makes them: float32 has no more than
            1.2e-4 px at 4000 px.
        Raises:
            ValueError: If there are not boxes for each picture, or they are not `(M, 4)`.
        Example:
            >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
            >>> boxes = [torch.tensor([[0.0, 0.0, 100.0, 300.0]])]
            >>> lattice.boxes_to_warped(boxes, image_px=(300, 400), warped_px=(30, 40))
            [tensor([[ 0.,  0., 20., 30.]])]
        """
        return self._moved_boxes(boxes_xyxy, image_px, warped_px, back=False)

    def boxes_to_image(
        self,
        boxes_xyxy: Sequence[Float[Tensor, "M 4"]],
        *,
        image_px: tuple[int, int],
        warped_px: tuple[int, int],
    ) -> list[Float[Tensor, "M 4"]]:
        """Boxes in pixels of the warped pictures, such as detections, in pixels of the pictures.

        The inverse of `boxes_to_warped`, which describes the rest.

        Example:
            >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
            >>> boxes = [torch.tensor([[0.0, 0.0, 20.0, 30.0]])]
            >>> lattice.boxes_to_image(boxes, image_px=(300, 400), warped_px=(30, 40))
            [tensor([[  0.,   0., 100., 300.]])]
        """
        return self._moved_boxes(boxes_xyxy, warped_px, image_px, back=True)

    def _moved_boxes(
        self,
        boxes_xyxy: Sequence[Tensor],
        from_px: tuple[int, int],
        to_px: tuple[int, int],
        *,
        back: bool,
    ) -> list[Tensor]:
        if len(boxes_xyxy) != self.row_edges.shape[0]:
            raise ValueError(
                f"boxes must be one tensor (M, 4) for each of {self.row_edges.shape[0]} pictures, "
                f"got {len(boxes_xyxy)}"
            )
        moved = []
        for index, boxes in enumerate(boxes_xyxy):
            if boxes.ndim != 2 or boxes.shape[1] != 4:
                raise ValueError(f"boxes must be (M, 4) in each picture, got {tuple(boxes.shape)}")
            own = Lattice(self.row_edges[index, None], self.column_edges[index, None])
            corners = boxes.to(self.row_edges).unflatten(1, (2, 2)) / _width_height(from_px, own)
            placed = (own.to_image if back else own.to_warped)(corners.unsqueeze(0))[0]
            moved.append((placed * _width_height(to_px, own)).flatten(1))
        return moved

    def warp(
        self,
        images: Float[Tensor, "B D H W"],
        size: tuple[int, int],
        *,
        oversample: int | tuple[int, int] = 1,
    ) -> Float[Tensor, "B D h w"]:
        """Pictures or maps resampled so that each cell is as large as any other.

        `out[v, u] = images at (x(u), y(v))`, bilinear, the border repeated; differentiable in both
        the pictures and the edges. Half precision is sampled in float32.

        Args:
            images: Of any size.
            size: Height and width of the result.
            oversample: m >= 1 averages m x m samples per pixel, against aliasing in large cells;
                (m, n) averages m down and n across.
        Raises:
            ValueError: If the batch differs, a side of `size` or `oversample` is below 1.
        Example:
            >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
            >>> lattice.warp(torch.arange(8.0).view(1, 1, 1, 8), (1, 4))
            tensor([[[[0., 1., 3., 6.]]]])
        """
        down, across = (oversample, oversample) if isinstance(oversample, int) else oversample
        self._check(images, size, min(down, across))
        x = _from_even(_centres(size[1] * across, self.column_edges), self.column_edges)
        y = _from_even(_centres(size[0] * down, self.row_edges), self.row_edges)
        return read_lines(images, x, y, (down, across)).to(images.dtype)

    def unwarp(
        self, maps: Float[Tensor, "B D h w"], size: tuple[int, int]
    ) -> Float[Tensor, "B D H W"]:
        """Maps of warped pictures, such as logits, laid back on the pictures.

        `warp` undone: each cell of a map stands where `warp` read it, and between them values are
        linear in x and y of the picture, the border repeated. What is linear in the picture comes
        back as it was, a smooth map to `(d^2 / 8) |second derivative|` for each axis and each of
        the two readings, with d the distance of the samples: an error of second order, also where
        cells of different widths meet.

        Raises:
            ValueError: If the batch differs or a side of `size` is below 1.
        Example:
            >>> lattice = Lattice(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.25, 1.0]]))
            >>> lattice.unwarp(torch.tensor([[[[1.0, 5.0]]]]), (1, 4))
            tensor([[[[1., 3., 5., 5.]]]])
        """
        self._check(maps, size, 1)
        u = _among_samples(size[1], maps.shape[3], self.column_edges)
        v = _among_samples(size[0], maps.shape[2], self.row_edges)
        return paint_lines(maps, u, v).to(maps.dtype)

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
    cell = cell_of(edges[:, 1:], values)
    left, right = edges.gather(1, cell), edges.gather(1, cell + 1)
    return (cell + (values - left) / (right - left)) / count


def _among_samples(count: int, samples: int, edges: Float[Tensor, "B edges"]) -> Tensor:
    """Where the centres of `count` pixels lie among the samples of a warp, from 0 to 1 of these.

    Linear in the picture between two samples, not in the warped picture: there the picture has a
    kink at each edge, which would cost an error of first order.
    """
    places = _from_even(_centres(samples, edges), edges)
    centres = _centres(count, edges)
    after = cell_of(places, centres)
    before = (after - 1).clamp_min(0)
    start = places.gather(1, before)
    gap = places.gather(1, after) - start
    share = ((centres - start) / torch.where(gap > 0, gap, 1)).clamp(0, 1)
    return (before + share * (after - before) + 0.5) / samples


def _width_height(size_px: tuple[int, int], like: Lattice) -> Float[Tensor, "2"]:
    return like.row_edges.new_tensor([size_px[1], size_px[0]])
