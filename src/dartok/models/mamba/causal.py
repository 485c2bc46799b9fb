"""The mixer of Mamba: one reading direction, for sequences that come in parts."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dartok.models.mamba.mixer import Mixer
from dartok.models.scan import selective_scan
from dartok.models.scan.resumed import resumed_scan

__all__ = ["CausalMixer", "MixerState"]


class MixerState(NamedTuple):
    """What a mixer keeps of the tokens that it has read: of one size, however many they were."""

    inputs: Float[Tensor, "B 3 E"]
    """The last inputs of the convolution."""
    state: Float[Tensor, "B E N"]
    """Of the selective scan, in float32 or wider."""


class CausalMixer(Mixer):
    """A selective state space read forwards, between a gated in- and out-projection.

    With `[x; z] = W_in a`:

        x' = SiLU(conv(x)),  [d; b; c] = W_x x',  delta = softplus(W_dt d + bias)
        y = selective_scan(x', delta, -exp(A_log), b, c, D)

    and `W_out (y SiLU(z))`. Parameters have the names and shapes of Mamba's, which are those of a
    bidirectional mixer without what ends in `_b`.

    Source: Mamba, arXiv:2312.00752.

    Args:
        width: D, of the tokens; states are `2 D x state_size`.
        state_size: N, numbers of state per channel.
        num_layers: Mixers of the model: they scale the initial out-projection.
    Example:
        >>> mixer, tokens = CausalMixer(8).double(), torch.rand(2, 5, 8, dtype=torch.float64)
        >>> first, state = mixer.resume(tokens[:, :3])
        >>> second, _ = mixer.resume(tokens[:, 3:], state)
        >>> torch.allclose(torch.cat([first, second], dim=1), mixer(tokens))
        True
    """

    def forward(
        self, tokens: Float[Tensor, "B L D"], lengths: Int[Tensor, "B"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """Mix tokens; what lies behind a sequence's end comes later and changes nothing before."""
        x, gate = self.in_proj(tokens).chunk(2, dim=-1)
        x = self._convolve(x.unsqueeze(2))
        y = selective_scan(*self._scan_inputs(x), kind=self.scan).squeeze(2)
        return self.out_proj(y * F.silu(gate))

    def resume(
        self, tokens: Float[Tensor, "B L D"], state: MixerState | None = None
    ) -> tuple[Float[Tensor, "B L D"], MixerState]:
        """Mix the next part of a sequence: parts, one after the other, give what the whole gives.

        Args:
            tokens: The part, of at least one token.
            state: What the part before returned; None at the start.
        Raises:
            ValueError: If the state is of another batch or width.
        """
        x, gate = self.in_proj(tokens).chunk(2, dim=-1)
        before = x.new_zeros(x.shape[0], 3, x.shape[2]) if state is None else state.inputs
        _check_inputs(before, x)
        inputs = torch.cat([before.to(x.dtype), x], dim=1)[:, -3:]
        x = self._convolve(x.unsqueeze(2), before.to(x.dtype).unsqueeze(2))
        y, after = resumed_scan(
            *self._scan_inputs(x),
            state=None if state is None else state.state.unsqueeze(1),
            kind=self.scan,
        )
        return self.out_proj(y.squeeze(2) * F.silu(gate)), MixerState(inputs, after.squeeze(1))


def _check_inputs(before: Tensor, x: Tensor) -> None:
    expected = (x.shape[0], 3, x.shape[2])
    if tuple(before.shape) != expected:
        raise ValueError(
            f"state must be of the batch and width of tokens, with inputs {expected}, got "
            f"{tuple(before.shape)}; keep one for each stream"
        )
