"""What a training step lowers: named terms that add up to the loss."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dartok.tasks.classification import criterion
from dartok.tasks.distillation import hard_distillation, soft_distillation
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.score_map import entropy_penalty, token_penalty

__all__ = ["Objective", "Seen", "objective", "score_terms"]


class Seen(NamedTuple):
    """What a training step shows to the objective."""

    outputs: Tensor | tuple[Tensor, Tensor]
    """Logits `(B, K)`; or class and distillation logits, of a distilled DeiT in train mode."""
    images: Tensor
    """`(B, C, H, W)`, as the student saw them."""
    labels: Tensor
    """Classes `(B,)` or their shares `(B, K)`."""
    scores: Tensor | None
    """Positive scores `(B, h, w)` after strength; None without regions."""


Objective = Callable[[Seen], dict[str, Tensor]]
"""Named terms, their weights included; the loss is their sum."""


def objective(config: LossConfig, teacher: nn.Module | None = None) -> Objective:
    """The terms of a configuration, each a float32 scalar with its weight in it.

    - "label": `(1 - w) criterion(class logits, labels)`, with `w = distill_weight`, 0 without a
      teacher.
    - "distill", with a teacher: `w soft_distillation` or `w hard_distillation` of the distillation
      logits and of what the teacher says about the same images.
    - "score_entropy", where its weight is not 0: `score_entropy entropy_penalty(scores)`.
    - "token_cost", where its weight is not 0: `token_cost token_penalty(scores)`.

    A student with one output answers labels and teacher with it. One with two outputs and no
    teacher is judged by their mean, which is what it says in eval mode.

    Source: DeiT, arXiv:2012.12877, section 4, for the teacher's share; the score terms are ours.

    Args:
        config: Which terms, and their weights.
        teacher: Maps images to logits `(B, K)`; frozen and in eval mode.
    Raises:
        ValueError: If the configuration wants a teacher and there is none, or the reverse. Calling
            the objective raises it if teacher and student have other numbers of classes, or a term
            needs scores and there are none.
    Example:
        >>> terms = objective(LossConfig(label_smoothing=0.0, score_entropy=1.0))
        >>> images, labels = torch.zeros(1, 3, 8, 8), torch.tensor([1])
        >>> terms(Seen(torch.zeros(1, 4), images, labels, scores=torch.ones(1, 2, 2)))
        {'label': tensor(1.3863), 'score_entropy': tensor(0.0100)}
    """
    if (config.distill == "none") != (teacher is None):
        raise ValueError(
            f"distill must be soft or hard with a teacher and none without, got {config.distill} "
            f"{'without' if teacher is None else 'with'} one"
        )
    label_loss = criterion(config)
    weight = 0.0 if teacher is None else config.distill_weight

    def terms(seen: Seen) -> dict[str, Tensor]:
        class_logits, distill_logits = _two_answers(seen.outputs, with_teacher=teacher is not None)
        found = {"label": (1 - weight) * label_loss(class_logits, seen.labels)}
        if teacher is not None:
            taught = _teach(teacher, seen.images, distill_logits)
            found["distill"] = weight * _distillation(config, distill_logits, taught)
        return found | score_terms(config, seen.scores)

    return terms


def _two_answers(
    outputs: Tensor | tuple[Tensor, Tensor], *, with_teacher: bool
) -> tuple[Tensor, Tensor]:
    if isinstance(outputs, Tensor):
        return outputs, outputs
    class_logits, distill_logits = outputs
    if with_teacher:
        return class_logits, distill_logits
    mean = (class_logits + distill_logits) / 2
    return mean, mean


@torch.no_grad()
def _teach(teacher: nn.Module, images: Tensor, student: Tensor) -> Tensor:
    logits: Tensor = teacher(images)
    if logits.shape != student.shape:
        raise ValueError(
            f"teacher must know the student's {student.shape[-1]} classes, got "
            f"{logits.shape[-1]}; choose another --teacher"
        )
    return logits


def _distillation(config: LossConfig, student: Tensor, teacher: Tensor) -> Tensor:
    if config.distill == "hard":
        return hard_distillation(student, teacher)
    return soft_distillation(student, teacher, temperature=config.distill_temperature)


def score_terms(config: LossConfig, scores: Tensor | None) -> dict[str, Tensor]:
    """The terms of a configuration that look at the score map alone.

    Raises:
        ValueError: If there are such terms and no scores.
    """
    wanted = [name for name in ("score_entropy", "token_cost") if getattr(config, name)]
    if not wanted:
        return {}
    if scores is None:
        flag = wanted[0].replace("_", "-")
        raise ValueError(f"{flag} needs regions; give --num-tokens too")
    scores = scores.float()
    terms = {
        "score_entropy": entropy_penalty(scores, target=config.score_entropy_target),
        "token_cost": token_penalty(scores, target=config.token_target),
    }
    return {name: getattr(config, name) * terms[name] for name in wanted}
