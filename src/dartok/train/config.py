"""The configuration of a training run: command line, help, TOML file and record in one."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dartok.data.augment import AugmentConfig
from dartok.models.presets import DARVIT_PRESETS
from dartok.tasks.loss_config import LossConfig
from dartok.train.budgets import Budget

__all__ = ["DataConfig", "LoopConfig", "ModelConfig", "OptimConfig", "TrainConfig"]

Parts = Literal["all", "head", "tokenizer"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from."""

    data: str
    """Folder of class folders to train on, or "digits" for the digits in clutter of the demo."""
    val: str | None = None
    """Folder of class folders to evaluate on; by default `val` or `test` beside `data`."""
    image_px: int | None = None
    """Side that pictures are resized and cropped to; by default the model's own."""
    workers: int = 2
    """Processes that read and augment pictures, for each training process."""
    max_bad_share: float = 0.01
    """The run stops when more than this share of the pictures is damaged."""
    num_digits: int = 4096
    """Canvases in an epoch of "digits"."""

    def __post_init__(self) -> None:
        _at_least("image-px", self.image_px, 1)
        _at_least("workers", self.workers, 0)
        _at_least("num-digits", self.num_digits, 1)
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max-bad-share must be from 0 to 1, got {self.max_bad_share}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is trained."""

    model: str = "deit_tiny_patch16_224"
    """A timm ViT, or a `darvit_*` model."""
    num_tokens: str | None = None
    """Regions per picture: a number such as 196, or 49..392 to draw one for each step. Without it a
    timm model keeps its fixed grid, and another model its own number."""
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
        _at_least("strength-ramp", self.strength_ramp, 0)
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop-path must be from 0 to below 1, got {self.drop_path}")
        if self.strength_ramp and self.num_tokens is None and self.model not in DARVIT_PRESETS:
            raise ValueError("strength-ramp needs regions; give --num-tokens too")
        if self.pretrained and self.checkpoint is not None:
            raise ValueError("pretrained and checkpoint exclude each other; drop one")


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
        _at_least("warmup-steps", self.warmup_steps, 0)
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


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long, how precisely, and what is kept."""

    out: Path
    """Folder of the run: configuration, metrics, checkpoints, best model."""
    epochs: int = 30
    """Times that the pictures are gone through."""
    steps: int | None = None
    """Updates of the weights, instead of --epochs."""
    batch_size: int = 64
    """Pictures per update, of all processes together."""
    accumulate: int = 1
    """Micro-batches that each process splits its share of an update into."""
    precision: Precision = "auto"
    """Of the model's arithmetic; auto takes bfloat16 on a GPU that has it, else float32."""
    seed: int = 0
    """Of everything random."""
    save_every: int | None = None
    """Steps between checkpoints; by default an epoch."""
    eval_every: int | None = None
    """Steps between evaluations; by default an epoch."""
    keep_last: int = 2
    """Newest checkpoints that are kept, beside the best model."""
    resume: bool = False
    """Continue the run in --out from its newest checkpoint, or start if there is none."""
    device: str = "auto"
    """Such as cpu or cuda; auto takes a GPU if there is one."""

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch_size", "accumulate", "save_every", "eval_every"):
            _at_least(name.replace("_", "-"), getattr(self, name), 1)
        _at_least("keep-last", self.keep_last, 1)
        _at_least("seed", self.seed, 0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything about a run."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig

    def __post_init__(self) -> None:
        steps, warmup = self.loop.steps, self.optim.warmup_steps
        if steps is not None and warmup is not None and warmup > steps:
            raise ValueError(f"warmup-steps must be at most --steps {steps}, got {warmup}")
        self.check_pairs(num_processes=1)

    def check_pairs(self, *, num_processes: int) -> None:
        """Refuse to mix the pictures of a batch that has an odd number of them.

        Raises:
            ValueError: If it has.
        """
        micro = self.loop.batch_size // (self.loop.accumulate * num_processes)
        if self.mixes and micro % 2:
            raise ValueError(
                "batch-size must give each micro-batch of each process an even number of pictures "
                f"with --mixup or --cutmix, which pair them, got {micro} of {self.loop.batch_size}"
            )

    @property
    def mixes(self) -> bool:
        """Whether pictures of a batch are mixed."""
        return self.augment.mixup > 0 or self.augment.cutmix > 0


def _at_least(flag: str, value: int | None, lowest: int) -> None:
    if value is not None and value < lowest:
        raise ValueError(f"{flag} must be >= {lowest}, got {value}")
