"""`GridReshaper`: DART-Grid as a warp of the picture, for models that need a picture."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.lattice import Lattice, lattice_of
from dartok.core.names import whole_number
from dartok.core.partition import grid_partition
from dartok.core.regions import Regions
from dartok.core.scoring import Scored, check_images
from dartok.core.sides import bounds_of, check_bounds
from dartok.core.steering import Steering, steer_scores

__all__ = ["GridReshaper", "Reshaped"]


class Reshaped(NamedTuple):
    """What a reshaper makes of a batch of images."""

    images: Float[Tensor, "B C h w"]
    """The warped pictures: each cell of the lattice is as large as any other."""
    lattice: Lattice
    """Where they came from, and the way back for maps, boxes and points."""


class GridReshaper(Scored):
    """Warped pictures, in which what matters is large: score, cut rows and columns, resample.

    Row and column edges cut the sums of the score over columns and rows into equal masses; each of
    the R x C cells between them becomes equally large. With `y(v)` and `x(u)` piecewise linear from
    even edges to these, `out[v, u] = image at (x(u), y(v))`. The score is raised to `strength`, so
    that at 0 the cells are even, and the result is the picture resized, at equal size the picture
    itself to rounding.

    A pixel averages `oversample * ceil(side / side of the result)` samples of each axis, at even
    distances. So a reduction by whole factors at strength 0 is their area average; where the warp
    reduces the picture further, in wide cells, more samples keep out aliasing.

    Source: DART, arXiv:2506.10390, DART-Grid, "image reshaper"; strength, the inverse, the
    antialiasing and the bounds are ours.

    Args:
        scorer: Maps images to positive scores `(B, h, w)`; any h and w.
        grid: Rows and columns of cells, each `>= 1`; unrelated to sizes in pixels.
        size_px: Height and width of the result; None for those of the images.
        oversample: Samples per pixel and axis, `>= 1`, times those above.
        min_region: Least height of a row and width of a column, as a share of the picture's: what
            lies in it is enlarged by `1 / (rows * min_region)` at most. None for any.
        max_region: Largest, likewise: what lies in it is reduced by `rows * max_region` at most.
            Bounds hold at any strength and under any steering.
        strength: From 0 to 1; kept in a buffer, see `set_strength`.
    Raises:
        ValueError: If an option is out of range, or so many cells cannot keep the bounds.
    Example:
        >>> import torch
        >>> class Darkness(nn.Module):
        ...     def forward(self, images):
        ...         return (-images.mean(1)).exp()
        >>> reshaper = GridReshaper(scorer=Darkness(), grid=(4, 4), size_px=(32, 48))
        >>> reshaper(torch.rand(2, 3, 40, 70)).images.shape
        torch.Size([2, 3, 32, 48])
    """

    def __init__(
        self,
        *,
        scorer: nn.Module,
        grid: tuple[int, int],
        size_px: tuple[int, int] | None = None,
        oversample: int = 1,
        min_region: float | None = None,
        max_region: float | None = None,
        strength: float = 1.0,
    ) -> None:
        super().__init__(scorer, strength)
        self.grid = _pair("grid", grid)
        self.size_px = None if size_px is None else _pair("size_px", size_px)
        self.oversample = whole_number("oversample", oversample)
        self.bounds = bounds_of(min_region, max_region)
        check_bounds(self.bounds, self.grid[0] * self.grid[1], self.grid[0])

    def regions(self, images: Tensor, steering: Steering | None = None) -> Regions:
        """The cells of a batch of images as regions, without warping them.

        `steering` stands in for that of `steered`.
        """
        check_images(images, None, (1, 1))
        scores = steer_scores(self.scores(images), steering or self._steering)
        rows, columns = self.grid
        return grid_partition(scores, num_tokens=rows * columns, num_rows=rows, bounds=self.bounds)

    def warped_px(self, images: Tensor) -> tuple[int, int]:
        """Height and width that images become."""
        return self.size_px or (images.shape[-2], images.shape[-1])

    def warp(self, images: Float[Tensor, "B C H W"], lattice: Lattice) -> Float[Tensor, "B C h w"]:
        """Images warped by a known lattice, such as that of other channels of the same picture."""
        size = self.warped_px(images)
        samples = (
            self.oversample * -(-images.shape[-2] // size[0]),
            self.oversample * -(-images.shape[-1] // size[1]),
        )
        return lattice.warp(images, size, oversample=samples)

    @contextmanager
    def neutral(self) -> Iterator[None]:
        """A plain resize for a while: strength 0, as few samples as it needs."""
        oversample, strength = self.oversample, self.strength.clone()
        try:
            self.oversample = 1
            self.strength.zero_()
            yield
        finally:
            self.oversample = oversample
            self.strength.copy_(strength)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Reshaped:
        lattice = lattice_of(self.regions(images))
        return Reshaped(self.warp(images, lattice), lattice)

    def extra_repr(self) -> str:
        """The settings, as `repr` shows them."""
        return (
            f"grid={self.grid}, size_px={self.size_px}, oversample={self.oversample}, "
            f"bounds={self.bounds}"
        )


def _pair(option: str, sides: Sequence[int]) -> tuple[int, int]:
    if not isinstance(sides, tuple | list) or len(sides) != 2:
        raise ValueError(f"{option} must be (rows, columns) or (height, width), got {sides!r}")
    return whole_number(option, sides[0]), whole_number(option, sides[1])
