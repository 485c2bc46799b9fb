"""A stage of RMT: blocks on maps of one size, and the way to the next."""

from typing import Any

import torch
from jaxtyping import Float
from timm.models._manipulate import checkpoint
from torch import Tensor, nn

from dartok.models.rmt.block import RetentionBlock
from dartok.models.rmt.positions import RelativePositions
from dartok.models.rmt.stem import Downsample

__all__ = ["Stage"]


class Stage(nn.Module):
    """Blocks that share positions. `downsample`, if any, is the caller's to apply.

    Args:
        width: C.
        num_heads: Heads of each block.
        mlp_ratio: Hidden width of the feed-forward layers over C.
        decay_start: Of the first head, see `RelativePositions`.
        decay_range: Over the heads.
        factorised: Whether attention runs along rows, then columns.
        layer_scale: Where the factors gamma start; None for none.
        drop_path: Stochastic depth of each block.
        next_width: Channels of the next stage; None for none.
    Raises:
        ValueError: If the heads do not divide the width into an even number of channels each.
    Example:
        >>> stage = Stage(
        ...     8, 2, mlp_ratio=3.0, decay_start=2.0, decay_range=4.0, factorised=True,
        ...     layer_scale=None, drop_path=(0.0, 0.0), next_width=16,
        ... )
        >>> stage(torch.rand(1, 3, 5, 8)).shape
        torch.Size([1, 3, 5, 8])
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        decay_start: float,
        decay_range: float,
        factorised: bool,
        layer_scale: float | None,
        drop_path: tuple[float, ...],
        next_width: int | None,
    ) -> None:
        super().__init__()
        if width % num_heads:
            raise ValueError(f"num_heads must divide the width {width}, got {num_heads}")
        self.grad_checkpointing = False
        self.Relpos = RelativePositions(  # as checkpoints name it
            width // num_heads,
            num_heads,
            decay_start=decay_start,
            decay_range=decay_range,
            factorised=factorised,
        )
        self.blocks = nn.ModuleList(
            RetentionBlock(
                width, num_heads, mlp_ratio=mlp_ratio, layer_scale=layer_scale, drop_path=rate
            )
            for rate in drop_path
        )
        self.downsample = None if next_width is None else Downsample(width, next_width)

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        positions = self.Relpos.tables((x.shape[1], x.shape[2]), x.dtype)
        run: Any = checkpoint if self.grad_checkpointing and torch.is_grad_enabled() else _call
        for block in self.blocks:
            x = run(block, x, positions)
        return x


def _call(block: nn.Module, *inputs: Any) -> Any:
    return block(*inputs)
