"""How many regions and rows each image gets, where the images of a batch differ."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dartok.core.quantiles import geometry

__all__ = ["Counts", "rows_for"]


class Counts(NamedTuple):
    """Regions and rows of each image; a batch is padded to the most that any may have."""

    tokens: Int[Tensor, "#B"]
    """Regions, `>= 1`."""
    rows: Int[Tensor, "#B"]
    """Rows per frame, from 1 to `tokens`."""


def rows_for(
    tokens: Int[Tensor, "#B"], aspect: float | Float[Tensor, ""], *, most: int
) -> Int[Tensor, "#B"]:
    """Rows that make regions about square: `round(sqrt(tokens * aspect))`, from 1 to `tokens`.

    The rule of `default_num_rows`, for counts that are known on the device only.

    Args:
        tokens: Regions of each image.
        aspect: Height over width of the images.
        most: Rows that there is room for.
    Example:
        >>> rows_for(torch.tensor([98, 196]), 0.5, most=14)
        tensor([ 7, 10])
    """
    rows = (geometry(tokens) * aspect).sqrt().round().long().clamp(1, most)
    return torch.minimum(rows, tokens)
