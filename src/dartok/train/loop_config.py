"""How long a run is, how precise, and what is kept: settings only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dartok.train.checks import at_least

__all__ = ["LoopConfig", "Precision"]

Precision = Literal["auto", "float32", "bfloat16"]


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
            at_least(name.replace("_", "-"), getattr(self, name), 1)
        at_least("keep-last", self.keep_last, 1)
        at_least("seed", self.seed, 0)
