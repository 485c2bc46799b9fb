"""Where the locations of a map lie, as the attention of RMT sees it: rotations and decays."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.quantiles import geometry

__all__ = ["Positions", "RelativePositions"]

_BASE = 10_000  # of the wavelengths, as in rotary embeddings of language models


class Positions(NamedTuple):
    """Tables for one size of a map, shared by all blocks of a stage."""

    cos: Float[Tensor, "h w 1 d/2"]
    sin: Float[Tensor, "h w 1 d/2"]
    across: Float[Tensor, "heads w w"] | None
    """Added to the attention along rows; None where attention is not factorised."""
    down: Float[Tensor, "heads h h"] | None
    """Added to the attention along columns; None where attention is not factorised."""
    whole: Float[Tensor, "heads h*w h*w"] | None
    """Added to the attention among all locations; None where attention is factorised."""

    def rotate(self, x: Float[Tensor, "B h w heads d"]) -> Float[Tensor, "B h w heads d"]:
        """Pairs of channels turned by the angle of their location, in float32 or wider.

        Location t, counted along the rows, turns pair `(a, b)` to
        `(a cos(t angle) - b sin(t angle), b cos(t angle) + a sin(t angle))`. The first channels of
        all pairs come first in the result: inner products do not tell.
        """
        first, second = x[..., 0::2], x[..., 1::2]
        turned = (first * self.cos - second * self.sin, second * self.cos + first * self.sin)
        return torch.cat(turned, dim=-1).to(x.dtype)


class RelativePositions(nn.Module):
    """Angles and decays of a stage, and the tables that they make for a map of any size.

    `angle[2 i] = angle[2 i + 1] = 10000 ** (-i / (d/2 - 1))` per location, and
    `decay[a] = ln(1 - 2 ** -(decay_start + decay_range a / heads))` per cell of distance. Both are
    made in float32 and stay in float32 or wider, whatever the model's precision: the angle of the
    last location reaches thousands of radians. They are part of the state dict.

    Source: RMT, arXiv:2309.11523; decay and rotation after RetNet, arXiv:2307.08621.

    Args:
        head_dim: d, channels of a head; even.
        num_heads: Heads.
        decay_start: Of the first head.
        decay_range: From the first head to one beyond the last.
        factorised: Whether attention runs along rows, then columns.
    Raises:
        ValueError: If `head_dim` is odd.
    Example:
        >>> positions = RelativePositions(4, 2, decay_start=2.0, decay_range=4.0, factorised=True)
        >>> positions.tables((3, 5), torch.float32).across.shape
        torch.Size([2, 5, 5])
    """

    angle: Tensor
    decay: Tensor

    def __init__(
        self,
        head_dim: int,
        num_heads: int,
        *,
        decay_start: float,
        decay_range: float,
        factorised: bool,
    ) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(f"the channels of a head must be even, got {head_dim}")
        self.factorised = factorised
        pair = torch.linspace(0, 1, head_dim // 2, dtype=torch.float32)
        head = torch.arange(num_heads, dtype=torch.float32)
        decay = torch.log(1 - 2 ** (-decay_start - decay_range * head / num_heads))
        self.register_buffer("angle", (1.0 / _BASE**pair).repeat_interleave(2))
        self.register_buffer("decay", decay)

    def tables(self, size: tuple[int, int], dtype: torch.dtype) -> Positions:
        """Tables for a map of `size` = (h, w) cells: rotations in `dtype` or float32, decays in it.

        Computed in float64 where the device has it, and rounded once.
        """
        height, width = size
        angle = geometry(self.angle[::2])
        location = torch.arange(height * width, dtype=angle.dtype, device=angle.device)
        turn = (location.unsqueeze(-1) * angle).unflatten(0, size).unsqueeze(2)
        wide = torch.promote_types(dtype, torch.float32)
        cos, sin = turn.cos().to(wide), turn.sin().to(wide)
        down, across = self._decays(height), self._decays(width)
        if self.factorised:
            return Positions(cos, sin, across.to(dtype), down.to(dtype), None)
        whole = down[:, :, None, :, None] + across[:, None, :, None, :]
        whole = whole.flatten(3).flatten(1, 2)
        return Positions(cos, sin, None, None, whole.to(dtype))

    def _decays(self, length: int) -> Float[Tensor, "heads length length"]:
        decay = geometry(self.decay)
        place = torch.arange(length, dtype=decay.dtype, device=decay.device)
        return decay[:, None, None] * (place - place[:, None]).abs()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "RelativePositions":
        """Move with the model, but stay in float32 or wider."""
        before = {"angle": self.angle, "decay": self.decay}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, value in before.items():
            moved = getattr(self, name)
            if torch.promote_types(moved.dtype, torch.float32) != moved.dtype:
                setattr(self, name, value.to(moved.device))
        return self
