"""How weights are changed: settings only."""

import math
from dataclasses import dataclass
from typing import Literal

from dartok.train.checks import at_least

__all__ = ["OptimConfig"]


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights are changed. Optimiser, schedule and average are timm's."""

    optimiser: str = "adamw"
    """timm's name of it."""
    learning_rate: float = 5e-4
    """Largest learning rate, reached after the warm-up."""
    min_learning_rate: float = 1e-6
    """Learning rate at the end."""
    warmup_steps: int | None = None
    """Steps in which the learning rate rises from 0; by default a twentieth of the run."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    weight_decay: float = 0.05
    """Not for biases, norms and what the model excludes."""
    beta1: float = 0.9
    """Decay of Adam's first moment."""
    beta2: float = 0.999
    """Decay of Adam's second moment."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it; 0 for no limit."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights, which is then evaluated; 0 for none."""

    def __post_init__(self) -> None:
        at_least("warmup-steps", self.warmup_steps, 0)
        for name in ("min_learning_rate", "weight_decay", "max_grad_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                flag = name.replace("_", "-")
                raise ValueError(f"{flag} must be >= 0 and finite, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning-rate must be > 0 and finite, got {self.learning_rate}")
        for name in ("beta1", "beta2", "ema_decay"):
            if not 0 <= getattr(self, name) < 1:
                flag = name.replace("_", "-")
                raise ValueError(f"{flag} must be from 0 to below 1, got {getattr(self, name)}")
