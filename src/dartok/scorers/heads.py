"""The authors' two heads: a feature map to one logit per location, and logits to scores."""

from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["GatedHead", "LocalHead"]

_FLOOR = 0.1  # the authors' lowest score: no location is given up


class LocalHead(nn.Module):
    """Version 1: an MLP on the channel vector of every location.

    `logit = MLP(features[loc])`, `score = sigmoid(standardised logit) + 0.1`.

    Source: reference code, score prediction network v1.

    Args:
        num_channels: Channels of the features.
        num_hidden: Width of the hidden layer.
    Example:
        >>> import torch
        >>> LocalHead(8, 4)(torch.rand(2, 8, 7, 7)).shape
        torch.Size([2, 7, 7])
    """

    def __init__(self, num_channels: int, num_hidden: int) -> None:
        super().__init__()
        self.mlp = _mlp(num_channels, num_hidden, 1)

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h w"]:
        return self.mlp(features.permute(0, 2, 3, 1)).squeeze(-1)

    def score(self, standardised: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
        """Positive scores, from 0.1 to 1.1."""
        return standardised.sigmoid() + _FLOOR


class GatedHead(nn.Module):
    """Version 2: channels weighed by a gate computed from the whole image, then summed.

    `gate = sigmoid(MLP(mean over locations of features))`, `logit = sum_c gate[c] * features[c]`,
    `score = sigmoid(2 * standardised logit)`.

    Source: reference code, score prediction network v2.

    Args:
        num_channels: Channels of the features.
        num_hidden: Width of the hidden layer.
    Example:
        >>> import torch
        >>> GatedHead(8, 4)(torch.rand(2, 8, 7, 7)).shape
        torch.Size([2, 7, 7])
    """

    def __init__(self, num_channels: int, num_hidden: int) -> None:
        super().__init__()
        self.mlp = _mlp(num_channels, num_hidden, num_channels)

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B h w"]:
        gate = self.mlp(features.mean((2, 3))).sigmoid()
        return (gate[:, :, None, None] * features).sum(1)

    def score(self, standardised: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
        """Positive scores, from 0 to 1."""
        return (2 * standardised).sigmoid()


def _mlp(num_in: int, num_hidden: int, num_out: int) -> nn.Sequential:
    mlp = nn.Sequential(nn.Linear(num_in, num_hidden), nn.GELU(), nn.Linear(num_hidden, num_out))
    for layer in mlp:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return mlp
