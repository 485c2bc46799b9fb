"""The block of Vision Mamba: add, normalise, mix."""

import torch
from jaxtyping import Float, Int
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.core.names import one_of
from dartok.models.mamba.causal import CausalMixer, MixerState
from dartok.models.mamba.mixer import BidirectionalMixer, Directions, Merge, Mixer

__all__ = ["MambaBlock", "WideRMSNorm"]

_NORM_EPS = 1e-5


class WideRMSNorm(nn.RMSNorm):
    """`x / sqrt(mean(x^2) + 1e-5) * weight` in the precision of `x`, whatever the weight's.

    Args:
        width: D.
    Example:
        >>> WideRMSNorm(2).bfloat16()(torch.tensor([[3.0, 4.0]])).dtype
        torch.float32
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=_NORM_EPS)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        assert self.weight is not None
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class MambaBlock(nn.Module):
    """`residual += hidden; hidden = mixer(norm(residual))`; the first block starts the residual.

    The residual is kept in float32 or wider, also where all else is in half precision.

    Source: Vision Mamba, arXiv:2401.09417; the order of Mamba's blocks (add, norm, mix).

    Args:
        width: D.
        state_size: Numbers of state per channel.
        merge: How the mixer puts its two directions together; of no meaning for one.
        directions: "both", or "forward" alone: then tokens can come in parts, see `resume`.
        num_layers: Blocks of the model.
        drop_path: Share of samples whose `hidden` is not added while training.
    Example:
        >>> hidden, residual = MambaBlock(8)(torch.rand(2, 5, 8))
        >>> hidden.shape, residual.shape
        (torch.Size([2, 5, 8]), torch.Size([2, 5, 8]))
    """

    def __init__(
        self,
        width: int,
        *,
        state_size: int = 16,
        merge: Merge = "mean",
        directions: Directions = "both",
        num_layers: int = 1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm = WideRMSNorm(width)
        sizes = {"state_size": state_size, "num_layers": num_layers}
        self.mixer: Mixer = (
            CausalMixer(width, **sizes)
            if one_of("directions", directions, Directions) == "forward"
            else BidirectionalMixer(width, merge=merge, **sizes)
        )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self,
        hidden: Float[Tensor, "B L D"],
        residual: Float[Tensor, "B L D"] | None = None,
        lengths: Int[Tensor, "B"] | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L D"]]:
        normed, residual = self._added(hidden, residual)
        return self.mixer(normed, lengths), residual

    def resume(
        self,
        hidden: Float[Tensor, "B L D"],
        residual: Float[Tensor, "B L D"] | None = None,
        state: MixerState | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B L D"], MixerState]:
        """`forward` of the next part of a sequence, and the state that its mixer keeps.

        Args:
            hidden: As of `forward`, of this part alone.
            residual: Likewise.
            state: What the part before returned; None at the start.
        Raises:
            ValueError: If the block reads in both directions, or the state does not fit.
        """
        if not isinstance(self.mixer, CausalMixer):
            raise ValueError(
                "parts of a sequence need directions='forward', got a block that reads in both; "
                "build the model with it"
            )
        normed, residual = self._added(hidden, residual)
        mixed, after = self.mixer.resume(normed, state)
        return mixed, residual, after

    def _added(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """What the mixer reads, and the residual with `hidden` added."""
        wide = torch.promote_types(hidden.dtype, torch.float32)
        added = hidden if residual is None else residual + self.drop_path(hidden)
        residual = added.to(wide)
        return self.norm(residual).to(self.mixer.in_proj.weight.dtype), residual
