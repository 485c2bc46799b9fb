"""`Regions`: the one type that carries geometry, and the one statement of the pixel convention.

Coordinates are normalised to the image: x and y run from 0 to 1, the origin is the top left corner
of the picture, and the centre of pixel i of n lies at `(i + 0.5) / n`. The *strip* lays the rows of
all frames end to end: `s = t * R + r + x` is frame t, row r, x across the image.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dartok.core.names import one_of
from dartok.core.overlap import Measure, paint_map, pool_map

__all__ = ["Pieces", "Regions", "frames_of", "rows_of", "tokens_of"]

_SLIVER = 1e-6
"""Share of a region's width below which a piece of it is rounding."""


class Pieces(NamedTuple):
    """Regions cut at the row ends, so that each piece is one rectangle. See `Regions.pieces`."""

    boxes_xyxy: Float[Tensor, "B M 4"]
    """Left, top, right, bottom in [0, 1]; a piece may be empty."""
    region: Int[Tensor, "B M"]
    """The region that each piece belongs to."""
    frame: Int[Tensor, "B M"]
    """The frame that each piece lies in."""


class Regions(NamedTuple):
    """A partition of B images (T = 1) or clips of T frames into N regions each.

    Region n is the strip interval `[strip_edges[n], strip_edges[n + 1]]`: part of a row, or, where
    it crosses a row's end (a seam), the end of one row and the start of the next. The regions cover
    every point once.

    Source: DART, arXiv:2506.10390; the frame axis and the inverse are ours.

    Example:
        >>> strip_edges = torch.tensor([[0.0, 0.5, 1.5, 2.0]])
        >>> regions = Regions(torch.tensor([[[0.0, 0.5, 1.0]]]), strip_edges)
        >>> regions.areas()
        tensor([[0.2500, 0.5000, 0.2500]])
    """

    row_edges: Float[Tensor, "B T row_edges"]
    """R + 1 increasing row edges per frame, in [0, 1] of the image height."""
    strip_edges: Float[Tensor, "B strip_edges"]
    """N + 1 increasing region edges in strip coordinates, from 0 to T * R."""
    counts: Int[Tensor, "B"] | None = None
    """Regions of each image where images differ, at most N: those beyond are empty padding at the
    end of the strip, in rows of no height. None where every image has N."""

    @property
    def num_frames(self) -> int:
        """T, 1 for images."""
        return frames_of(self)

    @property
    def num_rows(self) -> int:
        """R, rows of regions per frame."""
        return rows_of(self)

    @property
    def num_tokens(self) -> int:
        """N, regions per image or clip."""
        return tokens_of(self)

    def select(self, images: Int[Tensor, "b"] | slice) -> "Regions":
        """The regions of some images of the batch.

        Example:
            >>> regions = Regions(torch.rand(5, 1, 3), torch.rand(5, 8))
            >>> regions.select(slice(1, 3)).strip_edges.shape
            torch.Size([2, 8])
        """
        counts = None if self.counts is None else self.counts[images]
        return Regions(self.row_edges[images], self.strip_edges[images], counts)

    def is_region(self) -> Bool[Tensor, "B N"]:
        """Whether an entry is a region, and not padding; all are where `counts` is None.

        Example:
            >>> edges = torch.tensor([[0.0, 0.5, 1.0, 1.0]])
            >>> Regions(torch.tensor([[[0.0, 1.0]]]), edges, torch.tensor([2])).is_region()
            tensor([[ True,  True, False]])
        """
        index = torch.arange(tokens_of(self), device=self.strip_edges.device)
        if self.counts is None:
            return (index >= 0).expand(self.strip_edges.shape[0], -1)
        return index < self.counts[:, None]

    def areas(self) -> Float[Tensor, "B N"]:
        """Area of each region as a fraction of the image (of the clip: of all its frames).

        Example:
            >>> Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.25, 1.0]])).areas()
            tensor([[0.2500, 0.7500]])
        """
        heights = self.row_edges.diff(dim=-1).flatten(1)
        above = torch.nn.functional.pad(heights.cumsum(-1), (1, 0))
        row = self._rows_at(self.strip_edges)
        inside = (self.strip_edges - row) * heights.gather(1, row)
        return (above.gather(1, row) + inside).diff(dim=-1) / frames_of(self)

    def centres(self) -> Float[Tensor, "B N 2"]:
        """The point (x, y) in [0, 1] midway along each region's strip interval.

        It always lies inside the region, also where the region crosses a seam; for a region within
        one row it is the centre of its rectangle. `centre_frames` says in which frame it lies.

        Example:
            >>> Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]])).centres()
            tensor([[[0.2500, 0.5000],
                     [0.7500, 0.5000]]])
        """
        middle = (self.strip_edges[:, 1:] + self.strip_edges[:, :-1]) / 2
        row = self._rows_at(middle)
        top, bottom = self._row_bounds(row)
        return torch.stack([middle - row, (top + bottom) / 2], dim=-1)

    def centre_frames(self) -> Int[Tensor, "B N"]:
        """The frame that holds each region's centre; 0 for images.

        Example:
            >>> Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 1.0]])).centre_frames()
            tensor([[0]])
        """
        middle = (self.strip_edges[:, 1:] + self.strip_edges[:, :-1]) / 2
        return self._rows_at(middle) // rows_of(self)

    def boxes(self) -> Float[Tensor, "B N 4"]:
        """Smallest box (left, top, right, bottom) in [0, 1] that encloses each region.

        A region that crosses a seam is as wide as the image; `pieces` gives its rectangles. A part
        below a millionth of the region does not count: rounding made it. For clips the box encloses
        the region's parts of all frames.

        Example:
            >>> Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]])).boxes()
            tensor([[[0.0000, 0.0000, 0.5000, 1.0000],
                     [0.5000, 0.0000, 1.0000, 1.0000]]])
        """
        pieces = self.pieces()
        # Where an edge ties with a row's end, rounding leaves an empty piece or a sliver beyond it.
        widths = pieces.boxes_xyxy[..., 2] - pieces.boxes_xyxy[..., 0]
        least = _SLIVER * self.strip_edges.diff(dim=1).gather(1, pieces.region)
        flat = pieces.boxes_xyxy[..., 3] <= pieces.boxes_xyxy[..., 1]  # beyond the strip's end
        sliver = ((widths < least) | flat).unsqueeze(-1)
        index = pieces.region.unsqueeze(-1).expand(-1, -1, 2)
        low = pieces.boxes_xyxy[..., :2].masked_fill(sliver, 1.0)
        high = pieces.boxes_xyxy[..., 2:].masked_fill(sliver, 0.0)
        shape = (*self.areas().shape, 2)
        first = low.new_ones(shape).scatter_reduce(1, index, low, "amin")
        last = high.new_zeros(shape).scatter_reduce(1, index, high, "amax")
        return torch.cat([first, torch.maximum(first, last)], dim=-1)  # padding: a point

    def pieces(self) -> Pieces:
        """The regions cut at every row end: `N + T * R - 1` rectangles per image, in strip order.

        Pieces are empty where a region ends exactly at a row's end.

        Example:
            >>> regions = Regions(torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([[0.0, 2.0]]))
            >>> regions.pieces().boxes_xyxy
            tensor([[[0.0000, 0.0000, 1.0000, 0.5000],
                     [0.0000, 0.5000, 1.0000, 1.0000]]])
        """
        rows = torch.arange(1, frames_of(self) * rows_of(self), device=self.strip_edges.device)
        row_ends = rows.to(self.strip_edges.dtype).expand(self.strip_edges.shape[0], -1)
        edges = torch.cat([self.strip_edges, row_ends], dim=1).sort(dim=1).values
        middle = (edges[:, 1:] + edges[:, :-1]) / 2
        row = self._rows_at(middle)
        top, bottom = self._row_bounds(row)
        boxes = torch.stack([edges[:, :-1] - row, top, edges[:, 1:] - row, bottom], dim=-1)
        return Pieces(boxes, self._regions_at(middle), row // rows_of(self))

    def label_map(self, size: tuple[int, int]) -> Int[Tensor, "B T H W"]:
        """Index of the region that holds each pixel's centre, for frames of `size` = (H, W) pixels.

        Raises:
            ValueError: If a side is below 1.
        Example:
            >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]]))
            >>> regions.label_map((1, 4))
            tensor([[[[0, 0, 1, 1]]]])
        """
        _check_size(size)
        y = self._pixel_centres(size[0]).expand(*self.row_edges.shape[:2], -1).contiguous()
        row = torch.searchsorted(self.row_edges.detach().contiguous(), y, right=True) - 1
        row = row.clamp(0, rows_of(self) - 1)
        frame = torch.arange(frames_of(self), device=row.device)[:, None]
        strip = (frame * rows_of(self) + row).unsqueeze(-1) + self._pixel_centres(size[1])
        return self._regions_at(strip.flatten(1)).view(strip.shape)

    def to_map(self, tokens: Float[Tensor, "B N D"], size: tuple[int, int]) -> Tensor:
        """Paint tokens back on a map: each cell takes the mean of the regions over it, by area.

        `out[c] = sum_n area(c and n) * tokens[n] / area(c)`. The weights of a cell sum to 1, so a
        constant stays constant. Under the inner products weighted by area it is the adjoint of
        `to_tokens`: `mean_c(to_map(z) * m) = sum_n areas[n] * z[n] * to_tokens(m)[n]`.

        Args:
            tokens: One vector per region, any floating dtype.
            size: Height and width of the map in cells; any, unrelated to the image's.
        Returns:
            `(B, D, h, w)` for images, `(B, D, T, h, w)` for clips, in the tokens' dtype.
        Raises:
            ValueError: If `tokens` does not hold one vector per region, or a side is below 1.
        Example:
            >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]]))
            >>> regions.to_map(torch.tensor([[[1.0], [3.0]]]), (1, 2))
            tensor([[[[1., 3.]]]])
        """
        expected = (self.strip_edges.shape[0], tokens_of(self))
        if tokens.ndim != 3 or tokens.shape[:2] != expected:
            raise ValueError(
                f"tokens must be (B, N, D) with (B, N) = {expected}, got {tuple(tokens.shape)}"
            )
        _check_size(size)
        painted = paint_map(tokens, self.row_edges, self.strip_edges, size)
        return painted.squeeze(2) if frames_of(self) == 1 else painted

    def to_tokens(self, values: Tensor, *, measure: Measure = "area") -> Float[Tensor, "B N D"]:
        """Pool a map to one vector per region: the mean over the region.

        `out[n] = sum_c area(c and n) * values[c] / area(n)`. Constants are preserved; the adjoint
        of `to_map`. Position embeddings, labels and dense features all go through this pair.

        Args:
            values: `(B, D, h, w)`, or `(B, D, T, h, w)` for clips; a batch of 1 serves all images.
            measure: "area", or "strip": the mean along the strip coordinate, in which a region that
                crosses a seam weighs its rows equally. The authors' positions use the latter.
        Raises:
            ValueError: If the batch or frames of `values` are not those of the regions, or
                `measure` is unknown.
        Example:
            >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]]))
            >>> regions.to_tokens(torch.tensor([[[[1.0, 3.0]]]]))
            tensor([[[1.],
                     [3.]]])
        """
        frames = values.unsqueeze(2) if values.ndim == 4 else values
        if frames.ndim != 5 or frames.shape[2] != frames_of(self):
            raise ValueError(
                f"values must be (B, D, h, w) or (B, D, {frames_of(self)}, h, w), "
                f"got {tuple(values.shape)}"
            )
        if frames.shape[0] not in (1, self.row_edges.shape[0]):
            raise ValueError(
                f"values must have a batch of 1 or {self.row_edges.shape[0]} as the regions, "
                f"got {frames.shape[0]}"
            )
        one_of("measure", measure, Measure)
        return pool_map(frames, self.row_edges, self.strip_edges, measure)

    def _rows_at(self, strip: Tensor) -> Tensor:
        return strip.detach().floor().long().clamp(0, frames_of(self) * rows_of(self) - 1)

    def _row_bounds(self, row: Tensor) -> tuple[Tensor, Tensor]:
        index = row.flatten(1)
        tops = self.row_edges[..., :-1].flatten(1).gather(1, index)
        bottoms = self.row_edges[..., 1:].flatten(1).gather(1, index)
        return tops.view(row.shape), bottoms.view(row.shape)

    def _regions_at(self, strip: Tensor) -> Tensor:
        edges = self.strip_edges.detach().contiguous()
        index = torch.searchsorted(edges, strip.detach().contiguous(), right=True) - 1
        return index.clamp(0, tokens_of(self) - 1)

    def _pixel_centres(self, count: int) -> Tensor:
        steps = torch.arange(count, dtype=self.row_edges.dtype, device=self.row_edges.device)
        return (steps + 0.5) / count


# Functions beside the properties of the same meaning: the compilers of torch 2.9 and 2.10 cannot
# trace a property of a NamedTuple.


def frames_of(regions: Regions) -> int:
    """T of regions, as `Regions.num_frames`."""
    return regions.row_edges.shape[1]


def rows_of(regions: Regions) -> int:
    """R of regions, as `Regions.num_rows`."""
    return regions.row_edges.shape[2] - 1


def tokens_of(regions: Regions) -> int:
    """N of regions, as `Regions.num_tokens`."""
    return regions.strip_edges.shape[1] - 1


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise ValueError(f"size must be (height, width) of at least 1 cell each, got {size}")
