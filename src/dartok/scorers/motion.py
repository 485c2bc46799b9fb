"""`MotionScorer`: what a frame repeats of the one before it scores low."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.core.overlap import TINY
from dartok.scorers.resize import fixed_copy

__all__ = ["MotionScorer", "novelty"]

_SIDE_PX = 112
"""Of the copy whose differences are taken: noise of single pixels is averaged out before."""

_CELL_PX = 8

_STILL = 0.05
"""Squared difference, in variances of the frame's pixels, at which half of a cell is new: sensor
noise and the grain of a codec stay well below, the edge of what moves is well above."""

_FLOOR = 0.05
"""Novelty of a cell that repeats the frame before."""


class MotionScorer(nn.Module):
    """A scorer for clips: `score = base * novelty ** gain`, with `gain` learnt from 1.

    `base` scores what is to be seen in a frame, `novelty` how much of it the frame before has not
    shown. A still video spends its tokens on the first frame, and a floor on its repetitions.
    Causal: the score of a frame depends on no later one, unless that of `base` does. Images, and
    first frames, are all new: they score as `base` alone. "motion/uniform" is novelty alone.

    Source: ours.

    Args:
        base: Scores images `(B, C, H, W)`, or clips if it has `takes_clips`.
    Example:
        >>> from dartok.scorers import create_scorer
        >>> clip = torch.rand(1, 1, 3, 64, 64).expand(-1, 4, -1, -1, -1)
        >>> scores = MotionScorer(create_scorer("edge"))(clip)
        >>> [round(float(scores[0, t].sum() / scores[0, 0].sum()), 4) for t in range(4)]
        [1.0, 0.05, 0.05, 0.05]
    """

    takes_clips = True

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        self.base = base
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, images: Float[Tensor, "B *T C H W"]) -> Float[Tensor, "B *T h w"]:
        if images.ndim == 5 and not getattr(self.base, "takes_clips", False):
            scores = self.base(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        else:
            scores = self.base(images)
        if images.ndim == 4 or images.shape[1] == 1:
            return scores
        new = novelty(images)
        if scores.shape[-2:] == (1, 1):  # then novelty alone tells places
            scores = scores.expand_as(new)
        factor = F.interpolate(new, (scores.shape[-2], scores.shape[-1]), mode="area")
        return scores * factor.to(scores.dtype) ** self.gain.to(scores.dtype)


def novelty(clips: Float[Tensor, "B T C H W"]) -> Float[Tensor, "B T h w"]:
    """How much of a frame is new, from 0.05 to 1 for each cell; 1 all over the first frame.

    `0.05 + 0.95 d / (d + 0.05 v)`: d is the mean over the cell of the squared difference to the
    frame before, v the variance of the frame's pixels about the mean of their channel, so contrast
    does not matter. Computed on copies of 112 px, in cells of 8 px.

    Raises:
        ValueError: If a side is below 8 px.
    Example:
        >>> novelty(torch.zeros(1, 3, 3, 32, 32)).amax((2, 3))
        tensor([[1.0000, 0.0500, 0.0500]])
    """
    if min(clips.shape[-2:]) < _CELL_PX:
        raise ValueError(
            f"clips must be at least {_CELL_PX} px a side to be compared, got "
            f"{clips.shape[-2]} x {clips.shape[-1]} px; enlarge them"
        )
    side_px = min(_SIDE_PX, *clips.shape[-2:])
    frames = fixed_copy(clips.flatten(0, 1), side_px).unflatten(0, clips.shape[:2])
    frames = frames.to(torch.promote_types(frames.dtype, torch.float32))
    change = frames.diff(dim=1).square().mean(2)
    spread = frames[:, 1:].var(dim=(-2, -1), correction=0).mean(2)
    cells = F.avg_pool2d(change, _CELL_PX)
    share = cells / (cells + _STILL * spread[..., None, None]).clamp_min(TINY)
    return F.pad(_FLOOR + (1 - _FLOOR) * share, (0, 0, 0, 0, 1, 0), value=1.0)
