"""The authors' image reshaper with its quirks, for their checkpoints; else take `GridReshaper`."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.partition import authors_edges
from dartok.core.regions import Regions
from dartok.core.sampling import sample_regions
from dartok.core.scoring import Scored, check_images
from dartok.core.steering import Steering, steer_scores

__all__ = ["DAIR", "SIDES_PX"]

_GRID = 14
"""Rows and columns of patches."""
_PATCH_PX = 16
_LOGICAL_PX = 224
"""Length of a row of the strip, to the authors' code."""
_FIRST_EDGE_PX = 1
"""Where the strip starts, in the same unit: it should be 0."""
SIDES_PX = (2 * _LOGICAL_PX, _LOGICAL_PX)
"""Sides of the pictures that it reshapes, the usual one first."""


class DAIR(Scored):
    """Pictures with what matters enlarged: 14 x 14 patches, cut by rows and columns of equal mass.

    Row edges are quantiles of the row sums of the scores, column edges of the column sums, and each
    of the 196 cells is sampled to 16 x 16 pixels: pixel `(16 i + k, 16 c + j)` of the result is the
    picture at `(row_i + height_i k / 16, column_c + width_c j / 16)`. Their code is kept as it is:

    - The strip starts 1/224 of a row late, so the patch at the top left misses a little.
    - There are as many columns as rows.
    - Samples start at a cell's edge and never reach the other one; where a column is narrower than
      16 px, those right of the last pixel blend with the next row's first ("corner" of
      `sample_regions`).
    - Pictures are 448 x 448 px, or 224 x 224 px. Of other sizes they compute other pictures, for a
      row of 224 is assumed; here they are refused.

    Source: reference code (dart.py); strength and steering are ours.

    Args:
        scorer: Maps images to positive scores `(B, h, w)`.
        num_channels: Channels of the images.
    Example:
        >>> from dartok.scorers import Uniform
        >>> DAIR(Uniform())(torch.rand(2, 3, 448, 448)).shape
        torch.Size([2, 3, 224, 224])
    """

    def __init__(self, scorer: nn.Module, *, num_channels: int = 3) -> None:
        super().__init__(scorer, strength=1.0)
        self.num_channels = num_channels

    def forward(self, images: Float[Tensor, "B C H H"]) -> Float[Tensor, "B C 224 224"]:
        return self.reshape(images, self.regions(images))

    def regions(self, images: Tensor, steering: Steering | None = None) -> Regions:
        """The 196 cells of pictures, row by row; `steering` stands in for that of `steered`.

        Raises:
            ValueError: If the pictures are not of one of the two sizes, or cannot be cut.
        """
        check_images(images, self.num_channels, (1, 1))
        height, width = images.shape[-2:]
        if height != width or height not in SIDES_PX:
            raise ValueError(
                f"images must be {SIDES_PX[0]} x {SIDES_PX[0]} or {SIDES_PX[1]} x {SIDES_PX[1]} px "
                f"for the authors' reshaper, got {height} x {width} px; resize them"
            )
        return self.cut(steer_scores(self.scores(images), steering or self._steering))

    def cut(self, scores: Float[Tensor, "B h w"]) -> Regions:
        """The cells of score maps."""
        pdf = scores / scores.sum((-2, -1), keepdim=True)
        rows = authors_edges(pdf.sum(-1), _GRID) / pdf.shape[-2]
        columns = authors_edges(pdf.sum(-2), _GRID) / pdf.shape[-1]
        before = torch.arange(_GRID, dtype=columns.dtype, device=columns.device)
        inner = (columns[:, None, 1:] + before[:, None]).flatten(1)
        first = torch.full_like(inner[:, :1], _FIRST_EDGE_PX / _LOGICAL_PX)
        return Regions(rows.unsqueeze(1), torch.cat([first, inner], dim=1))

    def reshape(self, images: Float[Tensor, "B C H H"], regions: Regions) -> Tensor:
        """Pictures of known cells, `(B, C, 224, 224)`."""
        patches = sample_regions(images, regions, (_PATCH_PX, _PATCH_PX), sampling="corner")
        lattice = patches.unflatten(1, (_GRID, _GRID)).permute(0, 3, 1, 4, 2, 5)
        return lattice.flatten(4).flatten(2, 3).to(images.dtype)
