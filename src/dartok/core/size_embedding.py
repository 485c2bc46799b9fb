"""`SizeEmbedding`: tells a token how large its region is."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.overlap import TINY
from dartok.core.precision import without_autocast
from dartok.core.regions import Regions

__all__ = ["SizeEmbedding"]

_HIDDEN = 64


class SizeEmbedding(nn.Module):
    """`W2 gelu(W1 f + b1) + b2` of `f = (log(height / e), log(width / e), crosses a seam)`.

    A patch does not show whether it was sampled from 20 px or from 80: what looks alike may be far
    or near. Height and width are shares of the picture's, the width along the strip; e is the side
    of an even region, so that f is about 0 on the fixed grid. W2 and b2 start at 0: at first
    nothing is added. The sizes carry no gradient to the scorer.

    Source: ours.

    Args:
        embed_dim: D, width of the tokens.
        num_tokens: Regions of a frame, whose mean side is e = `num_tokens ** -0.5`; kept in a
            buffer, so the meaning stays when the number of tokens changes.
    Example:
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.25, 1.0]]))
        >>> SizeEmbedding(8, num_tokens=2)(regions).shape
        torch.Size([1, 2, 8])
    """

    log_even_side: Tensor

    def __init__(self, embed_dim: int, *, num_tokens: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(3, _HIDDEN)
        self.out = nn.Linear(_HIDDEN, embed_dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        log_side = -0.5 * torch.tensor(float(num_tokens)).log()
        self.register_buffer("log_even_side", log_side)

    def forward(self, regions: Regions) -> Float[Tensor, "B N D"]:
        weight = self.hidden.weight
        with without_autocast(weight):
            sizes = _log_sizes(regions) - self.log_even_side.to(regions.strip_edges.dtype)
        values = torch.cat([sizes, _crosses(regions)], dim=-1).to(weight.dtype)
        return self.out(nn.functional.gelu(self.hidden(values)))


def _log_sizes(regions: Regions) -> Float[Tensor, "B N 2"]:
    """Height of the row that holds a region's middle, and its length along the strip."""
    edges = regions.strip_edges.detach()
    top, bottom = regions._row_bounds(regions._rows_at((edges[:, 1:] + edges[:, :-1]) / 2))
    sides = torch.stack([(bottom - top).detach(), edges.diff(dim=1)], dim=-1)
    return sides.clamp_min(TINY).log()  # padding has no size; its tokens are set to 0


def _crosses(regions: Regions) -> Float[Tensor, "B N 1"]:
    """1 for a region that ends in a later row than it begins."""
    edges = regions.strip_edges.detach()
    return (edges[:, 1:] > edges[:, :-1].floor() + 1).to(edges.dtype).unsqueeze(-1)
