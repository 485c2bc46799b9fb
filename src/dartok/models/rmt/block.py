"""The block of RMT, and its feed-forward layer."""

import torch
from jaxtyping import Float
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.models.rmt.positions import Positions
from dartok.models.rmt.retention import DepthwiseConv, Retention

__all__ = ["FeedForward", "RetentionBlock"]

_NORM_EPS = 1e-6


class FeedForward(nn.Module):
    """`fc2(t + conv3x3(t))` with `t = gelu(fc1(x))`, the convolution of each channel alone.

    Source: RMT, arXiv:2309.11523, reference code.

    Args:
        width: C.
        num_hidden: Width of the hidden layer.
    Example:
        >>> FeedForward(8, 16)(torch.rand(2, 3, 5, 8)).shape
        torch.Size([2, 3, 5, 8])
    """

    def __init__(self, width: int, num_hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, num_hidden)
        self.dwconv = DepthwiseConv(num_hidden, 3)
        self.fc2 = nn.Linear(num_hidden, width)

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        hidden = F.gelu(self.fc1(x))
        return self.fc2(hidden + self.dwconv(hidden))


class RetentionBlock(nn.Module):
    """`u += conv3x3(u); u += gamma_1 retention(norm(u)); u += gamma_2 ffn(norm(u))`.

    Source: RMT, arXiv:2309.11523.

    Args:
        width: C.
        num_heads: Heads of the attention.
        mlp_ratio: Hidden width of the feed-forward layer over C.
        layer_scale: Where the factors gamma start, one per channel; None for none.
        drop_path: Share of samples that skip the last two steps while training.
    Example:
        >>> from dartok.models.rmt.positions import RelativePositions
        >>> positions = RelativePositions(4, 2, decay_start=2.0, decay_range=4.0, factorised=False)
        >>> block = RetentionBlock(8, 2, mlp_ratio=3.0)
        >>> block(torch.rand(1, 3, 5, 8), positions.tables((3, 5), torch.float32)).shape
        torch.Size([1, 3, 5, 8])
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        *,
        mlp_ratio: float,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.pos = DepthwiseConv(width, 3)
        self.retention_layer_norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.retention = Retention(width, num_heads)
        self.final_layer_norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.ffn = FeedForward(width, int(width * mlp_ratio))
        self.gamma_1 = _factors(width, layer_scale)
        self.gamma_2 = _factors(width, layer_scale)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self, x: Float[Tensor, "B h w C"], positions: Positions
    ) -> Float[Tensor, "B h w C"]:
        x = x + self.pos(x)
        attended = self.retention(self.retention_layer_norm(x), positions)
        x = x + self.drop_path(_scaled(attended, self.gamma_1))
        return x + self.drop_path(_scaled(self.ffn(self.final_layer_norm(x)), self.gamma_2))


def _factors(width: int, value: float | None) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(torch.full((1, 1, 1, width), value))


def _scaled(x: Tensor, factors: Tensor | None) -> Tensor:
    return x if factors is None else factors * x
