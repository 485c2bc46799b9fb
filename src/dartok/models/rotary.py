"""Rotary positions of regions: a host's own angles, at any point of its grid."""

import math
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Literal, NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["Augmentation", "Axis", "Rotary"]


class Axis(NamedTuple):
    """One coordinate of a host's grid: `scale * point + offset`, for a point in [0, 1].

    A grid of W columns that counts them from 0 has `Axis("x", W, -0.5)`: the centre of column i is
    the point `(i + 0.5) / W`.
    """

    of: Literal["x", "y"]
    scale: float
    offset: float


class Augmentation(NamedTuple):
    """How a host in train mode moves all its coordinates together, afresh on each call."""

    shift: float | None = None
    """Each coordinate moves by up to this much, either way."""
    jitter: float | None = None
    """Each coordinate is scaled by a factor from 1/jitter to jitter."""
    rescale: float | None = None
    """Both coordinates are scaled by one factor from 1/rescale to rescale."""

    def moved(self, coordinates: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 2"]:
        """The coordinates after one random move."""

        def drawn(count: int, limit: float) -> Tensor:
            return coordinates.new_empty(count).uniform_(-limit, limit)

        if self.shift is not None:
            coordinates = coordinates + drawn(2, self.shift)
        if self.jitter is not None:
            coordinates = coordinates * drawn(2, math.log(self.jitter)).exp()
        if self.rescale is not None:
            coordinates = coordinates * drawn(1, math.log(self.rescale)).exp()
        return coordinates


class Rotary(nn.Module):
    """Sines and cosines by which a host turns its queries and keys, for regions at given points.

    Each pair of channels turns by `angle = freqs[0] * coordinate[0] + freqs[1] * coordinate[1]`.
    The coordinates are those of the grid that the host was made for, whatever the image's size.
    Computed in float32 or wider; differentiable in the points and in learned frequencies.

    Args:
        freqs: `(2, pairs)` for all blocks and heads, or `(2, blocks, heads, pairs)`; a parameter
            stays one, anything else is kept as a buffer that no `.half()` rounds.
        axes: The two coordinates, in the order of `freqs`.
        halves: Whether the channels of a pair lie half a head apart, or side by side.
        augmentation: What train mode does to the coordinates.
    Example:
        >>> columns, rows = Axis("x", 4, -0.5), Axis("y", 2, -0.5)
        >>> rotary = Rotary(torch.tensor([[0.0], [1.0]]), (rows, columns), halves=False)
        >>> rotary(rotary.coordinates(torch.tensor([[[0.625, 0.25]]]))).acos()[..., 2:]
        tensor([[[[2., 2.]]]])
    """

    freqs: Tensor

    def __init__(
        self,
        freqs: Tensor,
        axes: tuple[Axis, Axis],
        *,
        halves: bool,
        augmentation: Augmentation | None = None,
    ) -> None:
        super().__init__()
        if isinstance(freqs, nn.Parameter):
            self.freqs = freqs
        else:
            self.register_buffer("freqs", freqs, persistent=False)
        self.axes = axes
        self.halves = halves
        self.augmentation = augmentation

    def coordinates(self, points: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N 2"]:
        """Points (x, y) in [0, 1] as coordinates of the host's grid."""
        which = {"x": points[..., 0], "y": points[..., 1]}
        scaled = [which[axis.of] * axis.scale + axis.offset for axis in self.axes]
        coordinates = torch.stack(scaled, dim=-1)
        if self.training and self.augmentation is not None:
            return self.augmentation.moved(coordinates)
        return coordinates

    def forward(
        self, coordinates: Float[Tensor, "B N 2"], block: int = 0
    ) -> Float[Tensor, "B heads N 4*pairs"]:
        """Sines, then cosines, each once for either channel of a pair; heads is 1 where all agree.

        Args:
            coordinates: From `coordinates`.
            block: Index of the block; matters for learned frequencies only.
        """
        freqs = self.freqs if self.freqs.ndim == 2 else self.freqs[:, block, :, None]
        freqs = freqs.to(torch.promote_types(freqs.dtype, torch.float32))
        along = coordinates.to(freqs.dtype).unsqueeze(1)
        angles = along[..., :1] * freqs[0] + along[..., 1:] * freqs[1]
        return torch.cat([self._laid_out(angles.sin()), self._laid_out(angles.cos())], dim=-1)

    def for_blocks(self, coordinates: Float[Tensor, "B N 2"], count: int) -> Iterable[Tensor]:
        """What `forward` gives for each of the first `count` blocks; made when it is needed."""
        if self.freqs.ndim == 2:
            return repeat(self(coordinates), count)
        return (self(coordinates, block) for block in range(count))

    def update_feat_shape(self, feat_shape: tuple[int, int]) -> None:
        """Nothing: coordinates stay those of the grid that the host was made for. timm calls it."""

    def no_weight_decay(self) -> set[str]:
        """The learned frequencies, if any, under the name that timm gives them."""
        return {"freqs"} if isinstance(self.freqs, nn.Parameter) else set()

    def _laid_out(self, values: Tensor) -> Tensor:
        if self.halves:
            return torch.cat([values, values], dim=-1)
        return values.repeat_interleave(2, dim=-1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        exact = self.freqs
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if "freqs" in self._buffers and self.freqs.dtype.itemsize < exact.dtype.itemsize:
            # An angle is a frequency times a coordinate of up to hundreds: it must not be rounded.
            self.freqs = exact.to(self.freqs.device)
        return self

    def extra_repr(self) -> str:
        """The settings, as `repr` shows them."""
        return f"freqs={tuple(self.freqs.shape)}, axes={self.axes}, halves={self.halves}"
