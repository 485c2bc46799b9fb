"""The mixer of Vision Mamba: all reading directions in one pass over one projected input."""

import math
from operator import attrgetter
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.core.names import one_of
from dartok.core.precision import without_autocast
from dartok.models.mamba.sequence import reversed_within
from dartok.models.scan import ScanName, selective_scan

__all__ = ["BidirectionalMixer", "Directions", "Merge", "Mixer"]

Merge = Literal["mean", "sum"]
"""How the two directions are put together: Vim halves their sum, VideoMamba does not."""

Directions = Literal["both", "forward"]
"""How a sequence is read: forwards and backwards, or forwards alone, as a stream must be."""

_STEP_RANGE = (1e-3, 0.1)
_LEAST_STEP = 1e-4


class Mixer(nn.Module):
    """What mixers share: their projections, and G reading directions computed side by side.

    Args:
        width: D, of the tokens; states are `2 D x state_size` in each direction.
        state_size: N, numbers of state per channel.
        num_layers: Mixers of the model: they scale the initial out-projection.
    Example:
        >>> Mixer(8).state_size
        16
    """

    suffixes: ClassVar[tuple[str, ...]] = ("",)
    """Of the parameters of each reading direction."""
    x_proj: nn.Linear
    dt_proj: nn.Linear
    A_log: nn.Parameter

    def __init__(self, width: int, *, state_size: int = 16, num_layers: int = 1) -> None:
        super().__init__()
        self.scan: ScanName = "auto"
        inner, rank = 2 * width, math.ceil(width / 16)
        self.in_proj = nn.Linear(width, 2 * inner, bias=False)
        for suffix in self.suffixes:
            setattr(self, f"conv1d{suffix}", _convolution(inner))
        for suffix in self.suffixes:
            setattr(self, f"x_proj{suffix}", nn.Linear(inner, rank + 2 * state_size, bias=False))
        for suffix in self.suffixes:
            setattr(self, f"dt_proj{suffix}", _step_projection(rank, inner))
        for suffix in self.suffixes:
            rates = torch.arange(1, state_size + 1).float().log().repeat(inner, 1)
            setattr(self, f"A{suffix}_log", nn.Parameter(rates))
        for suffix in self.suffixes:
            setattr(self, f"D{suffix}", nn.Parameter(torch.ones(inner)))
        self.out_proj = nn.Linear(inner, width, bias=False)
        with torch.no_grad():
            self.out_proj.weight /= math.sqrt(num_layers)

    @property
    def state_size(self) -> int:
        """Numbers of state per channel."""
        return self.A_log.shape[1]

    @property
    def rates_and_skips(self) -> list[str]:
        """Names of the parameters that no optimiser should decay."""
        return [name for s in self.suffixes for name in (f"A{s}_log", f"D{s}")]

    def _stacked(self, name: str) -> Float[Tensor, "G *shape"]:
        """A parameter of all directions; `{}` in its name stands for the suffix."""
        return torch.stack([attrgetter(name.format(s))(self) for s in self.suffixes])

    def _convolve(self, x: Float[Tensor, "B L G E"], before: Tensor | None = None) -> Tensor:
        """A causal convolution of each channel, and SiLU.

        As a convolution of pictures one pixel high whose channels lie last, as they do here:
        nothing is copied, and on the CPU it is many times as fast as `conv1d`.

        Args:
            x: The inputs.
            before: The three inputs before them, `(B, 3, G, E)`; None for zeros.
        """
        weight = self._stacked("conv1d{}.weight").flatten(0, 1).unsqueeze(2)
        bias = self._stacked("conv1d{}.bias").flatten()
        flat = x.flatten(2)
        if before is None:
            flat = F.pad(flat, (0, 0, weight.shape[-1] - 1, 0))
        else:
            flat = torch.cat([before.flatten(2), flat], dim=1)
        pictures = flat.transpose(1, 2).unsqueeze(2)
        convolved = F.conv2d(pictures, weight, bias, groups=weight.shape[0])
        return F.silu(convolved.squeeze(2).transpose(1, 2).unflatten(2, x.shape[2:]))

    def _scan_inputs(self, x: Float[Tensor, "B L G E"]) -> tuple[Tensor, ...]:
        """The six inputs of a scan."""
        rank, size = self.dt_proj.in_features, self.state_size
        reduced = torch.einsum("blge,gce->blgc", x, self._stacked("x_proj{}.weight"))
        low, b, c = reduced.split([rank, size, size], dim=-1)
        rates = -torch.exp(_wide(self._stacked("A{}_log")))
        return x, self._steps(low), rates, b, c, self._stacked("D{}")

    def _steps(self, low: Float[Tensor, "B L G rank"]) -> Float[Tensor, "B L G E"]:
        """Step sizes, in float32 or wider: the smallest are below what half precision resolves."""
        weight, bias = self._stacked("dt_proj{}.weight"), self._stacked("dt_proj{}.bias")
        with without_autocast(low):
            steps = torch.einsum("blgr,ger->blge", _wide(low), _wide(weight))
        return F.softplus(steps + _wide(bias))


class BidirectionalMixer(Mixer):
    """A selective state space read in both directions, between a gated in- and out-projection.

    With `[x; z] = W_in a`, for the sequence and for the sequence read backwards, each with weights
    of its own (those of the second end in `_b`):

        x' = SiLU(conv(x)),  [d; b; c] = W_x x',  delta = softplus(W_dt d + bias)
        y = selective_scan(x', delta, -exp(A_log), b, c, D)

    and `W_out ((y + y_b) SiLU(z) / 2)`; "sum" does not halve. Parameters have the names and shapes
    of the official checkpoints.

    Source: Vision Mamba, arXiv:2401.09417, algorithm 1; Mamba, arXiv:2312.00752.

    Args:
        width: D, of the tokens; states are `2 D x state_size`.
        state_size: N, numbers of state per channel.
        merge: "mean" or "sum" of the two directions.
        num_layers: Mixers of the model: they scale the initial out-projection.
    Example:
        >>> mixer = BidirectionalMixer(8)
        >>> mixer(torch.rand(2, 5, 8)).shape
        torch.Size([2, 5, 8])
    """

    suffixes = ("", "_b")

    def __init__(
        self, width: int, *, state_size: int = 16, merge: Merge = "mean", num_layers: int = 1
    ) -> None:
        super().__init__(width, state_size=state_size, num_layers=num_layers)
        self.merge: Merge = one_of("merge", merge, Merge)

    def forward(
        self, tokens: Float[Tensor, "B L D"], lengths: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """Mix tokens; with lengths, those behind a sequence's end change nothing before it."""
        x, gate = self.in_proj(tokens).chunk(2, dim=-1)
        x = self._convolve(torch.stack([x, reversed_within(x, lengths)], dim=2))
        y, y_backwards = selective_scan(*self._scan_inputs(x), kind=self.scan).unbind(2)
        merged = y + reversed_within(y_backwards, lengths)
        if self.merge == "mean":
            merged = merged / 2
        return self.out_proj(merged * F.silu(gate))


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _convolution(channels: int) -> nn.Conv1d:
    """Holds the weights of a causal convolution in the official layout; it is not called."""
    return nn.Conv1d(channels, channels, kernel_size=4, groups=channels, padding=3)


def _step_projection(rank: int, inner: int) -> nn.Linear:
    """Initial step sizes are log-uniform in `_STEP_RANGE`, as Mamba's: in both directions here."""
    projection = nn.Linear(rank, inner)
    nn.init.uniform_(projection.weight, -(rank**-0.5), rank**-0.5)
    low, high = (math.log(bound) for bound in _STEP_RANGE)
    steps = torch.empty(inner).uniform_(low, high).exp().clamp(min=_LEAST_STEP)
    with torch.no_grad():
        projection.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # inverse of softplus
    return projection
