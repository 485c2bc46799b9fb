"""How long a run is, how precise, and what is kept: settings only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dartok.train.checks import at_least

__all__ = ["LoopConfig", "Precision"]

Precision = Literal["auto", "float32", "bfloat16"]
TRACKERS = ("tensorboard", "wandb", "mlflow")


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
    compile: bool = False
    """Compile the model with torch.compile; the first steps take minutes, the others less."""
    channels_last: bool = False
    """Keep the model's convolutions with the channels last in memory."""
    shard: bool = False
    """Split weights, gradients and the optimiser's state over the processes (FSDP2)."""
    track: str | None = None
    """Where metrics go beside metrics.jsonl: tensorboard, wandb or mlflow, or several as in
    tensorboard,wandb."""
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
        _ = self.trackers
        if self.shard and self.channels_last:
            raise ValueError("shard and channels-last exclude each other; drop one")

    @property
    def trackers(self) -> tuple[str, ...]:
        """The names in `track`."""
        names = tuple(name.strip() for name in (self.track or "").split(",") if name.strip())
        unknown = [name for name in names if name not in TRACKERS]
        if unknown:
            raise ValueError(f"track must be of {', '.join(TRACKERS)}, got {unknown[0]!r}")
        return names
