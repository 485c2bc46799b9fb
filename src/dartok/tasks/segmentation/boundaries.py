"""Scores made from the true labels: where regions would have to be small."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["FLOOR", "boundary_scores", "boundary_weights"]

FLOOR = 0.1
"""Of the mean density: what is left to a cell without boundaries. On CamVid at 49 to 392 tokens the
ceiling is higher by up to one point than with 0.2 or 0.3."""


def boundary_weights(
    labels: Int[Tensor, "*batch H W"], class_weights: Float[Tensor, "classes"]
) -> Float[Tensor, "*batch H W"]:
    """How much boundary between classes lies at each pixel.

    A pixel differs from the one to its right, the one below it, both or neither; each difference
    counts as the larger of the two classes' weights, and none beside a pixel of no class.

    Args:
        labels: Classes from 0; larger numbers than the weights reach are no class.
        class_weights: Such as 1 for all, or more for rare classes.
    Example:
        >>> boundary_weights(torch.tensor([[0, 0, 1, 255]]), torch.tensor([1.0, 3.0]))
        tensor([[0., 3., 0., 0.]])
    """
    known = labels < len(class_weights)
    weights = class_weights[labels.long().where(known, 0)]
    out = torch.zeros_like(weights)
    for dim in (-2, -1):
        size = labels.shape[dim]
        one, other = (
            [part.narrow(dim, start, size - 1) for part in (labels, known, weights)]
            for start in (0, 1)
        )
        differs = (one[0] != other[0]) & one[1] & other[1]
        out.narrow(dim, 0, size - 1).add_(torch.maximum(one[2], other[2]) * differs)
    return out


def boundary_scores(
    weights: Float[Tensor, "H W"], *, num_cells: int, exponent: float
) -> Float[Tensor, "1 h w"]:
    """Score map `(0.1 + density / mean density) ** exponent` of boundaries.

    Args:
        weights: As `boundary_weights` gives them.
        num_cells: Cells of the map, about; they are about square.
        exponent: From 0, the fixed grid, up.
    Example:
        >>> weights = torch.tensor([[0.0, 3.0, 0.0, 1.0]])
        >>> boundary_scores(weights, num_cells=2, exponent=1.0)
        tensor([[[1.6000, 0.6000]]])
    """
    height, width = weights.shape
    rows = min(height, max(1, round((num_cells * height / width) ** 0.5)))
    columns = min(width, max(1, round(num_cells / rows)))
    density = F.adaptive_avg_pool2d(weights[None], (rows, columns))
    tiny = torch.finfo(density.dtype).tiny
    return (density / density.mean().clamp_min(tiny) + FLOOR) ** exponent
