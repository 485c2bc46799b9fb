"""A scorer whose scale means something: how much the pixels of a cell vary."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.scorers.resize import fixed_copy

__all__ = ["DetailScorer"]

_FLAT = 0.05
"""Score of a flat cell, in deviations of normalised pixels."""


class DetailScorer(nn.Module):
    """Deviation of the pixels of each cell, without parameters: `score = std + 0.05`.

    `std` is taken over the pixels of a cell, and averaged over the channels, in the units of the
    images: normalised pictures have a deviation of about 1 as a whole. Unlike "edge" and "conv" it
    does not standardise each image by itself, so that the mean score tells busy pictures from flat
    ones, as a number of tokens for each image needs (`num_tokens="auto"`). Contrast counts: a faint
    picture gets few tokens.

    Source: ours.

    Args:
        side_px: Side of the copy that is scored, in pixels; None for the image itself.
        cell_px: Side of a score cell in pixels of that copy.
    Example:
        >>> flat, busy = torch.zeros(1, 3, 64, 64), torch.randn(1, 3, 64, 64)
        >>> bool(DetailScorer()(flat).max() < 0.051), bool(DetailScorer()(busy).mean() > 0.3)
        (True, True)
    """

    def __init__(self, *, side_px: int | None = 224, cell_px: int = 8) -> None:
        super().__init__()
        self.side_px = side_px
        self.cell_px = cell_px

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w"]:
        copy = fixed_copy(images, self.side_px)
        if min(copy.shape[-2:]) < self.cell_px:
            raise ValueError(
                f"images must be at least cell_px = {self.cell_px} px a side to be scored, got "
                f"{copy.shape[-2]} x {copy.shape[-1]} px; enlarge them or set side_px"
            )
        copy = copy.to(torch.promote_types(copy.dtype, torch.float32))
        mean = F.avg_pool2d(copy, self.cell_px)
        # Of the differences from the cell's mean: a bright flat cell must not round to detail.
        base = mean.repeat_interleave(self.cell_px, -2).repeat_interleave(self.cell_px, -1)
        away = copy[..., : base.shape[-2], : base.shape[-1]] - base
        variance = F.avg_pool2d(away.square(), self.cell_px)
        return variance.clamp_min(1e-12).sqrt().mean(1) + _FLAT
