"""What is trained: settings only."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from dartok.core.sides import bounds_of
from dartok.models.presets import AUTHORS_PRESETS
from dartok.train.budgets import Budget
from dartok.train.checks import at_least

__all__ = ["ModelConfig", "Parts"]

Parts = Literal["all", "head", "tokenizer"]

_OF_REGIONS = (
    "scorer",
    "partition",
    "antialias",
    "size_embedding",
    "min_region",
    "max_region",
)
"""Settings of the regions that a host is given."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is trained."""

    model: str = "deit_tiny_patch16_224"
    """A timm ViT, a `vim_*` or `videomamba_*` host, or one of `darvit_*`, `darvim_*`, `rmt_*` and
    `darmt_*`."""
    num_tokens: str | None = None
    """Regions per picture: a number such as 196, or 49..392 to draw one for each step. Without it a
    timm ViT or a `vim_*` host keeps its fixed grid, and another model its own number."""
    num_rows: int | None = None
    """Rows of regions of an adapted timm model; by default as many as make regions about square."""
    scorer: str = "conv"
    """Score net of an adapted timm model; see dartok models."""
    scorer_weights: str | None = None
    """For the score net's backbone: imagenet (may download), or a file."""
    partition: Literal["flow", "grid"] = "flow"
    """How an adapted timm model cuts its regions."""
    antialias: bool = False
    """Average the pixels of large regions in place of sampling them at points."""
    size_embedding: bool = False
    """Tell each token how large its region is, by what is learnt and 0 at the start."""
    min_region: float | None = None
    """Least height and width of any region, as a share of the picture's side."""
    max_region: float | None = None
    """Largest height and width of any region, as a share of the picture's side: nothing that is
    larger lies in one region."""
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
        self._check_regions()
        at_least("num-rows", self.num_rows, 1)
        if self.num_rows is not None and (self.budget is None or self.num_rows > self.budget.least):
            raise ValueError(
                f"num-rows must be at most num-tokens, got {self.num_rows} and {self.num_tokens}"
            )
        at_least("strength-ramp", self.strength_ramp, 0)
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop-path must be from 0 to below 1, got {self.drop_path}")
        if self.strength_ramp and self.num_tokens is None and self.model not in AUTHORS_PRESETS:
            raise ValueError("strength-ramp needs regions; give --num-tokens too")
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("pretrained and checkpoint exclude each other; drop one")

    def _check_regions(self) -> None:
        """Refuse options of regions where there are none, or none but the authors'."""
        bounds_of(self.min_region, self.max_region)  # refuses what cannot be
        if self.budget is not None and self.model not in AUTHORS_PRESETS:
            return
        usual = {field.name: field.default for field in fields(self)}
        for name in _OF_REGIONS:
            if getattr(self, name) != usual[name]:
                raise ValueError(
                    f"{name.replace('_', '-')} needs an adapted model, got {getattr(self, name)}; "
                    "give --num-tokens and a timm ViT, a vim_* or a videomamba_* host"
                )
