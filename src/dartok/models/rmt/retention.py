"""Attention that decays with distance: along rows and columns, or among all locations."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.models.rmt.positions import Positions

__all__ = ["DepthwiseConv", "Retention"]


class DepthwiseConv(nn.Module):
    """A convolution of each channel alone, on maps with channels last, which keeps their size.

    Args:
        width: Channels.
        kernel: Side of the kernel in cells; odd.
    Example:
        >>> import torch
        >>> DepthwiseConv(8, 3)(torch.rand(2, 5, 6, 8)).shape
        torch.Size([2, 5, 6, 8])
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width)

    def forward(self, x: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w C"]:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Retention(nn.Module):
    """Softmax attention with rotated queries and keys, and a decay with Manhattan distance.

    Factorised, along each row, then along each column, with the same queries and keys:

        v1[y, x] = sum_x' softmax_x'(q[y, x] . k[y, x'] / sqrt(d) + decay |x - x'|) v[y, x']
        o[y, x] = sum_y' softmax_y'(q[y, x] . k[y', x] / sqrt(d) + decay |y - y'|) v1[y', x]

    else one softmax over all locations, with `decay (|y - y'| + |x - x'|)`. The result is
    `out_proj(o + conv5x5(v))`, the convolution of each channel alone.

    Source: RMT, arXiv:2309.11523, Manhattan self-attention and its decomposition.

    Args:
        width: C.
        num_heads: Heads; divides C.
    Example:
        >>> import torch
        >>> from dartok.models.rmt.positions import RelativePositions
        >>> positions = RelativePositions(4, 2, decay_start=2.0, decay_range=4.0, factorised=True)
        >>> Retention(8, 2)(torch.rand(1, 3, 5, 8), positions.tables((3, 5), torch.float32)).shape
        torch.Size([1, 3, 5, 8])
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.lepe = DepthwiseConv(width, 5)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B h w C"], positions: Positions
    ) -> Float[Tensor, "B h w C"]:
        heads = (self.num_heads, -1)
        query = positions.rotate(self.q_proj(x).unflatten(-1, heads))
        key = positions.rotate(self.k_proj(x).unflatten(-1, heads))
        value = self.v_proj(x)
        attend = _attend_to_all if positions.whole is not None else _attend_by_axes
        attended = attend(query, key, value.unflatten(-1, heads), positions)
        return self.out_proj(attended.flatten(-2) + self.lepe(value))


def _attend_by_axes(
    query: Float[Tensor, "B h w heads d"],
    key: Float[Tensor, "B h w heads d"],
    value: Float[Tensor, "B h w heads d"],
    positions: Positions,
) -> Float[Tensor, "B h w heads d"]:
    assert positions.across is not None
    assert positions.down is not None
    along_rows = _attend(query, key, value, decay=positions.across)
    columns = (x.transpose(1, 2) for x in (query, key, along_rows))
    return _attend(*columns, decay=positions.down).transpose(1, 2)


def _attend_to_all(
    query: Float[Tensor, "B h w heads d"],
    key: Float[Tensor, "B h w heads d"],
    value: Float[Tensor, "B h w heads d"],
    positions: Positions,
) -> Float[Tensor, "B h w heads d"]:
    assert positions.whole is not None
    lines = (x.flatten(1, 2).unsqueeze(1) for x in (query, key, value))
    return _attend(*lines, decay=positions.whole).squeeze(1).unflatten(1, query.shape[1:3])


def _attend(
    query: Float[Tensor, "B lines length heads d"],
    key: Float[Tensor, "B lines length heads d"],
    value: Float[Tensor, "B lines length heads d"],
    *,
    decay: Float[Tensor, "heads length length"],
) -> Float[Tensor, "B lines length heads d"]:
    """Along each line for itself, all of them as one batch."""
    lines = query.shape[:2]
    q, k, v = (x.flatten(0, 1).transpose(1, 2) for x in (query, key, value))
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=decay.unsqueeze(0))
    return attended.transpose(1, 2).unflatten(0, lines)
