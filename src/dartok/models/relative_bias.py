"""Relative position bias of regions: a host's own table, between its whole differences too."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["MlpBias", "TableBias", "bias_between"]


def bias_between(
    table: Float[Tensor, "heads dy dx"], points: Float[Tensor, "B N 2"]
) -> Float[Tensor, "B heads N N"]:
    """The bias of attention from each point to each other, by how far apart they lie.

    A grid of R rows and C columns has a table of `2 R - 1` by `2 C - 1`: entry
    `[R - 1 + dy, C - 1 + dx]` is the bias of a query that lies dy rows below and dx columns right
    of its key. Between whole cells the table is read bilinearly; regions further apart than the
    outermost cells take the outermost entry. Computed in float32; differentiable in both arguments.

    Args:
        table: One table per head.
        points: (x, y) in [0, 1].
    Example:
        >>> table = torch.tensor([[[-1.0, 0.0, 1.0]]])  # one row of two columns
        >>> bias_between(table, torch.tensor([[[0.25, 0.5], [0.5, 0.5]]]))
        tensor([[[[ 0.0000, -0.5000],
                  [ 0.5000,  0.0000]]]])
    """
    apart = points.unsqueeze(2) - points.unsqueeze(1)
    along = [
        apart[..., axis] * (_cells(size) / max(_cells(size) - 1, 1))
        for axis, size in ((0, table.shape[2]), (1, table.shape[1]))
    ]
    return nn.functional.grid_sample(
        table.float().expand(points.shape[0], -1, -1, -1),
        torch.stack(along, dim=-1).float(),
        padding_mode="border",
        align_corners=True,
    )


class TableBias(nn.Module):
    """A learnt table, and three more entries for a class token: to patches, from them, to itself.

    Args:
        table: `(entries, heads)`, as Swin and BEiT lay it out: the differences row by row, then the
            three entries.
        grid_size: Rows and columns of the grid that the host is made for.
        num_prefix: 1 where there is a class token, else 0.
    Example:
        >>> bias = TableBias(nn.Parameter(torch.zeros(3 * 5 + 3, 4)), (2, 3), num_prefix=1)
        >>> bias(torch.rand(2, 7, 2)).shape
        torch.Size([2, 4, 8, 8])
    """

    def __init__(self, table: nn.Parameter, grid_size: tuple[int, int], num_prefix: int) -> None:
        super().__init__()
        self.relative_position_bias_table = table  # timm's name: what decays is told by it
        self.grid_size = grid_size
        self.num_prefix = num_prefix

    def forward(self, points: Float[Tensor, "B N 2"]) -> Float[Tensor, "B heads L L"]:
        rows, columns = (2 * count - 1 for count in self.grid_size)
        flat = self.relative_position_bias_table
        table = flat[: rows * columns].t().unflatten(1, (rows, columns))
        bias = bias_between(table, points).to(flat.dtype)
        return _with_class(bias, flat[rows * columns :]) if self.num_prefix else bias


class MlpBias(nn.Module):
    """timm's `RelPosMlp`: a small network makes the table; a class token has no bias.

    The network is asked for whole differences only, as in the host, whatever the number of regions.
    """

    def __init__(self, source: Any) -> None:
        super().__init__()
        self.source = source

    def forward(self, points: Float[Tensor, "B N 2"]) -> Float[Tensor, "B heads L L"]:
        source = self.source
        table = source.bias_act(source.mlp(source.rel_coords_log).permute(2, 0, 1))
        if source.bias_gain is not None:
            table = source.bias_gain * table
        bias = bias_between(table, points).to(table.dtype)
        return nn.functional.pad(bias, [source.prefix_tokens, 0, source.prefix_tokens, 0])


def _cells(num_differences: int) -> int:
    return (num_differences + 1) // 2


def _with_class(
    bias: Float[Tensor, "B heads N N"], entries: Float[Tensor, "3 heads"]
) -> Float[Tensor, "B heads 1+N 1+N"]:
    batch, _, count, _ = bias.shape
    to_patches, from_patches, to_itself = entries[:, None, :, None, None].expand(3, batch, -1, 1, 1)
    first = torch.cat([to_itself, to_patches.expand(-1, -1, 1, count)], dim=-1)
    others = torch.cat([from_patches.expand(-1, -1, count, 1), bias], dim=-1)
    return torch.cat([first, others], dim=-2)
