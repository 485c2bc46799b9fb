"""What is trained: settings only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dartok.models.presets import AUTHORS_PRESETS
from dartok.train.budgets import Budget
from dartok.train.checks import at_least

__all__ = ["ModelConfig", "Parts"]

Parts = Literal["all", "head", "tokenizer"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is trained."""

    model: str = "deit_tiny_patch16_224"
    """A timm ViT, a `vim_*` or `videomamba_*` host, or a `darvit_*` or `darvim_*` model."""
    num_tokens: str | None = None
    """Regions per picture: a number such as 196, or 49..392 to draw one for each step. Without it a
    timm ViT or a `vim_*` host keeps its fixed grid, and another model its own number."""
    scorer: str = "conv"
    """Score net of an adapted timm model; see dartok models."""
    scorer_weights: str | None = None
    """For the score net's backbone: imagenet (may download), or a file."""
    partition: Literal["flow", "grid"] = "flow"
    """How an adapted timm model cuts its regions."""
    pretrained: bool = False
    """Start a timm model from its pretrained weights (may download)."""
    checkpoint: Path | None = None
    """Start from the weights in this file."""
    strength_ramp: int | None = None
    """Steps from the fixed grid to the full method. By default a quarter of the run for a
    pretrained timm model, else 0."""
    drop_path: float = 0.0
    """Stochastic depth of the last block."""
    parts: Parts = "all"
    """What learns: everything, the head and tokenizer on a frozen encoder (tokenizer), or the head
    alone."""

    @property
    def budget(self) -> Budget | None:
        """`num_tokens`, read."""
        return None if self.num_tokens is None else Budget.parse(self.num_tokens)

    def __post_init__(self) -> None:
        _ = self.budget  # refuses what it cannot read
        at_least("strength-ramp", self.strength_ramp, 0)
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop-path must be from 0 to below 1, got {self.drop_path}")
        if self.strength_ramp and self.num_tokens is None and self.model not in AUTHORS_PRESETS:
            raise ValueError("strength-ramp needs regions; give --num-tokens too")
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("pretrained and checkpoint exclude each other; drop one")
