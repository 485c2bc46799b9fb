"""What a training step of segmentation lowers: named terms that add up to the loss."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dartok.tasks.loss_config import LossConfig
from dartok.tasks.objective import Objective, Seen, score_terms
from dartok.tasks.segmentation.losses import (
    boundary_density,
    boundary_loss,
    class_weights,
    dice_loss,
    pixel_loss,
)
from dartok.tasks.task_config import TaskConfig

__all__ = ["map_objective"]


def map_objective(
    config: TaskConfig, loss: LossConfig, shares: Float[Tensor, "K"] | None = None
) -> Objective:
    """The terms of a configuration, each a float32 scalar with its weight in it.

    - "pixels": `pixel_loss`, with `class_weights(shares, class_balance)` where that is not 0.
    - "dice", where its weight is not 0: `dice dice_loss`.
    - "boundary", where its weight is not 0: `score_boundary boundary_loss` of the score map and
      the `boundary_density` of the labels, in which a class weighs the inverse of its share.
    - "score_entropy" and "token_cost" as of `dartok.tasks.objective.objective`.

    Labels are read where the logits lie, which may be fewer places.

    Args:
        config: Which terms, and their weights.
        loss: Of the score terms that all tasks know.
        shares: Of each class among the pixels to learn from; None where no term needs them.
    Raises:
        ValueError: If classes are to be weighed and their shares are not known, or `loss` asks for
            what pixels have none of. Calling the objective raises it if a term needs scores and
            there are none.
    Example:
        >>> terms = map_objective(TaskConfig(), LossConfig(label_smoothing=0.0))
        >>> images, labels = torch.zeros(1, 3, 4, 4), torch.tensor([[[1, 255], [1, 0]]])
        >>> terms(Seen(torch.zeros(1, 4, 2, 2), images, labels, scores=None))
        {'pixels': tensor(1.3863)}
    """
    if (config.class_balance or config.score_boundary) and shares is None:
        raise ValueError(
            "class-balance and score-boundary need the shares of the classes, got none"
        )
    if loss.loss != "ce" or loss.distill != "none":
        raise ValueError(
            f"pixels are learnt by cross entropy without a teacher, got loss {loss.loss} and "
            f"distill {loss.distill}; drop --loss and --distill"
        )
    weights = None
    if config.class_balance and shares is not None:
        weights = class_weights(shares, config.class_balance)
    rarity = None if shares is None else class_weights(shares, 1.0)

    def terms(seen: Seen) -> dict[str, Tensor]:
        logits = seen.outputs
        assert isinstance(logits, Tensor)
        weigh = None if weights is None else weights.to(logits.device)
        labels = _at(seen.labels, (logits.shape[-2], logits.shape[-1]))
        found = {"pixels": pixel_loss(logits, labels, weights=weigh)}
        if config.dice:
            found["dice"] = config.dice * dice_loss(logits, labels)
        if config.score_boundary and rarity is not None:
            found["boundary"] = config.score_boundary * _boundary(seen, rarity)
        return found | score_terms(loss, seen.scores)

    return terms


def _boundary(seen: Seen, rarity: Tensor) -> Tensor:
    if seen.scores is None:
        raise ValueError("score-boundary needs regions; give --num-tokens and a --scorer")
    size = (seen.scores.shape[-2], seen.scores.shape[-1])
    wanted = boundary_density(seen.labels, size, rarity.to(seen.scores.device))
    return boundary_loss(seen.scores, wanted)


def _at(labels: Int[Tensor, "B H W"], size: tuple[int, int]) -> Int[Tensor, "B h w"]:
    """The labels nearest to the middles of as many cells."""
    if labels.shape[-2:] == torch.Size(size):
        return labels
    picked = F.interpolate(labels.unsqueeze(1).float(), size, mode="nearest-exact")
    return picked.squeeze(1).long()
