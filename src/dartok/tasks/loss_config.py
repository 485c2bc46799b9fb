"""What training lowers: settings only."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["LossConfig"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What training lowers."""

    loss: Literal["ce", "bce"] = "ce"
    """Cross entropy over the classes, or a binary one for each class."""
    label_smoothing: float = 0.1
    """Share of the label's weight that is spread over all classes."""
    distill: Literal["none", "soft", "hard"] = "none"
    """Learn from a teacher too: from its probabilities (soft) or its best class (hard)."""
    teacher: str | None = None
    """timm's name of the teacher; also local-dir:FOLDER, such as a run's best, or hf-hub:NAME. It
    must know the same classes."""
    teacher_checkpoint: Path | None = None
    """The teacher's weights are in this file; without it they are its pretrained ones (may
    download)."""
    distill_weight: float = 0.5
    """Share of the teacher in the loss; the labels have the rest."""
    distill_temperature: float = 3.0
    """Divides the logits of student and teacher before a soft teacher's softmax."""
    score_entropy: float = 0.0
    """Weight of keeping the score map's entropy at --score-entropy-target; 0 for none."""
    score_entropy_target: float = 0.9
    """Entropy to keep: 1 is the same score everywhere, 0 all of it in one cell. The edge scores of
    photographs have 0.93 to 0.96, of the digits in clutter 0.83."""
    token_cost: float = 0.0
    """Weight of the number of tokens that the scores ask for, as a share of those that a score of 1
    everywhere asks for; 0 for none. For the score net conv: others hold their mean score fixed."""
    token_target: float = 0.5
    """Such a share that costs nothing, on average over the pictures of a batch; 0 lets a large
    weight drive all scores down until no picture is told from another."""

    def __post_init__(self) -> None:
        if self.loss not in ("ce", "bce"):
            raise ValueError(f"loss must be ce or bce, got {self.loss!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label-smoothing must be from 0 to below 1, got {self.label_smoothing}"
            )
        self._check_teacher()
        _check_share("distill-weight", self.distill_weight)
        if not 0 < self.distill_temperature < math.inf:
            raise ValueError(
                f"distill-temperature must be > 0 and finite, got {self.distill_temperature}"
            )
        _check_share("score-entropy-target", self.score_entropy_target)
        for name in ("score_entropy", "token_cost", "token_target"):
            if not 0 <= getattr(self, name) < math.inf:
                flag = name.replace("_", "-")
                raise ValueError(f"{flag} must be >= 0 and finite, got {getattr(self, name)}")

    def _check_teacher(self) -> None:
        if self.distill not in ("none", "soft", "hard"):
            raise ValueError(f"distill must be none, soft or hard, got {self.distill!r}")
        if self.teacher_checkpoint is not None and self.teacher is None:
            raise ValueError("teacher-checkpoint needs --teacher, the model that it is of")
        if self.teacher is not None and self.distill == "none":
            raise ValueError("teacher needs --distill soft or hard, got none")
        if self.teacher is None and self.distill != "none":
            raise ValueError(f"distill {self.distill} needs --teacher, the name of a timm model")


def _check_share(flag: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{flag} must be from 0 to 1, got {value}")
