"""Losses of segmentation: of the pixels, of the overlap, and of where the regions lie."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dartok.tasks.segmentation.boundaries import FLOOR, boundary_weights

__all__ = ["boundary_density", "boundary_loss", "class_weights", "dice_loss", "pixel_loss"]

_TINY = torch.finfo(torch.float32).tiny


def class_weights(shares: Float[Tensor, "K"], balance: float) -> Float[Tensor, "K"]:
    """Weights `share_c ** -balance`, scaled so that a pixel weighs 1 on average.

    A class without pixels counts as one of the rarest.

    Example:
        >>> class_weights(torch.tensor([0.8, 0.2]), 1.0)
        tensor([0.6250, 2.5000])
    """
    if not shares.any():
        return torch.ones_like(shares)
    seen = torch.where(shares > 0, shares, shares[shares > 0].min())
    weights = seen**-balance
    return weights / ((weights * shares).sum() / shares.sum())


def pixel_loss(
    logits: Float[Tensor, "B K h w"],
    labels: Int[Tensor, "B h w"],
    *,
    weights: Float[Tensor, "K"] | None = None,
    ignore: int = 255,
) -> Float[Tensor, ""]:
    """Cross entropy, `sum_p w[y_p] (-log softmax(z_p)[y_p]) / sum_p w[y_p]`, in float32.

    Pixels with the label `ignore` are left out; 0 if all are.

    Example:
        >>> pixel_loss(torch.zeros(1, 4, 1, 2), torch.tensor([[[2, 255]]]))
        tensor(1.3863)
    """
    losses = F.cross_entropy(
        logits.float(), labels, weight=weights, ignore_index=ignore, reduction="sum"
    )
    counted = labels != ignore
    each = counted if weights is None else weights[labels.masked_fill(~counted, 0)] * counted
    return losses / each.sum().clamp_min(_TINY)


def dice_loss(
    logits: Float[Tensor, "B K h w"], labels: Int[Tensor, "B h w"], *, ignore: int = 255
) -> Float[Tensor, ""]:
    """`mean_c 1 - 2 sum_p p[c] t[c] / (sum_p p[c] + t[c])` over the classes in the batch.

    p are softmax values, t the labels as one-hot vectors; pixels with `ignore` are left out.

    Source: V-Net, arXiv:1606.04797, with sums in place of squares.

    Example:
        >>> labels = torch.tensor([[[0, 1]]])
        >>> dice_loss(100 * torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]]), labels)
        tensor(0.)
    """
    counted = (labels != ignore).unsqueeze(1)
    truth = F.one_hot(labels.masked_fill(~counted[:, 0], 0), logits.shape[1]).permute(0, 3, 1, 2)
    truth = truth * counted
    shares = logits.float().softmax(1) * counted
    both, either = ((shares * truth).sum((0, 2, 3)), (shares + truth).sum((0, 2, 3)))
    occurs = truth.sum((0, 2, 3)) > 0
    losses = 1 - 2 * both / either.clamp_min(_TINY)
    return (losses * occurs).sum() / occurs.sum().clamp_min(1)


def boundary_density(
    labels: Int[Tensor, "B H W"],
    size: tuple[int, int],
    weights: Float[Tensor, "K"],
    *,
    exponent: float = 0.5,
) -> Float[Tensor, "B h w"]:
    """Where tokens are needed: `(0.1 + b / mean(b)) ** exponent` of the boundary b in each cell.

    b counts the pairs of neighbouring pixels of two classes, each as the larger of their weights
    (`boundary_weights`). The root keeps tokens where few classes meet; of the settings that
    `dartok audit` tries on CamVid, this one with weights of `1 / share` bounds least. 1 everywhere
    in an image without boundaries.

    Args:
        labels: Classes of the pixels; numbers beyond the weights are no class.
        size: Height and width of the score map.
        weights: Of the classes.
        exponent: From 0, the fixed grid, up.
    Example:
        >>> labels = torch.tensor([[[0, 0, 0, 1]]])
        >>> boundary_density(labels, (1, 2), torch.ones(2), exponent=1.0)
        tensor([[[0.1000, 2.1000]]])
    """
    density = F.adaptive_avg_pool2d(boundary_weights(labels, weights).unsqueeze(1), size).squeeze(1)
    mean = density.mean((1, 2), keepdim=True)
    relative = torch.where(mean > 0, density / mean.clamp_min(_TINY), torch.ones_like(density))
    return (relative + FLOOR) ** exponent


def boundary_loss(
    scores: Float[Tensor, "B h w"], wanted: Float[Tensor, "B h w"]
) -> Float[Tensor, ""]:
    """`mean_b KL(q || p)` of the shares of score p and wanted density q over the cells of an image.

    0 where regions lie as densely as wanted.

    Example:
        >>> boundary_loss(torch.ones(1, 2, 2), torch.full((1, 2, 2), 3.0))
        tensor(0.)
    """
    p = scores.float().flatten(1)
    q = wanted.float().flatten(1)
    q = q / q.sum(1, keepdim=True)
    log_p = p.log() - p.sum(1, keepdim=True).log()
    return (torch.special.xlogy(q, q) - q * log_p).sum(1).mean()
