"""`dartok eval`: accuracy of a trained model, for one number of tokens or several."""

import json as json_module
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cyclopts import Parameter
from rich.table import Table

from dartok.cli.console import print_table, say

__all__ = ["EvalConfig", "evaluate"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How a model is evaluated."""

    num_tokens: str | None = None
    """Regions per picture: one number, or several as in 49,100,196; by default the model's own."""
    image_px: int | None = None
    """Side that pictures are resized and cropped to; by default the model's own."""
    batch_size: int = 32
    """Pictures per forward pass of each process."""
    workers: int = 2
    """Processes that read pictures, for each process."""
    max_bad_share: float = 0.01
    """Stop when more than this share of the pictures is damaged."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the model's arithmetic; auto takes bfloat16 on a GPU that has it, else float32."""
    device: str = "auto"
    """Such as cpu or cuda; auto takes a GPU if there is one."""
    json: bool = False
    """Print JSON instead of a table."""

    def __post_init__(self) -> None:
        for name in ("image_px", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name.replace('_', '-')} must be >= 1, got {value}")
        if self.workers < 0:
            raise ValueError(f"workers must be >= 0, got {self.workers}")
        _ = self.budgets

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of tokens; none for the model's own."""
        parts = [] if self.num_tokens is None else self.num_tokens.split(",")
        if not all(part.strip().isdigit() and int(part) > 0 for part in parts):
            raise ValueError(
                f"num-tokens must be numbers >= 1 as in 49,100,196, got {self.num_tokens!r}"
            )
        return tuple(int(part) for part in parts)


def evaluate(
    model: Path,
    data: str,
    /,
    *,
    config: EvalConfig = EvalConfig(),
) -> None:
    """Measure a trained model on a folder with one folder of pictures per class.

    Every readable picture counts once, also with several processes (torchrun ... -m dartok eval).

    Args:
        model: Folder of the model, such as best/ of a run.
        data: Folder of class folders, or digits.
        config: How it is evaluated.
    """
    from dartok.train.assess import assess
    from dartok.train.world import start_world

    with start_world(config.device) as world:
        results = assess(
            model,
            data,
            budgets=config.budgets,
            image_px=config.image_px,
            batch_size=config.batch_size,
            workers=config.workers,
            max_bad_share=config.max_bad_share,
            precision=config.precision,
            world=world,
        )
        if not world.is_main:
            return
    if config.json:
        say(json_module.dumps(results))
        return
    _print_table(results)


def _print_table(results: list[dict[str, float]]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in ("tokens", "top-1", "top-5", "mean class top-1", "loss", "ECE", "pictures"):
        table.add_column(column, justify="right")
    for row in results:
        table.add_row(
            f"{row['num_tokens']:.0f}",
            *(f"{row[name]:.2%}" for name in ("top1", "top5", "mean_class_top1")),
            f"{row['loss']:.3f}",
            f"{row['ece']:.3f}",
            f"{row['images']:.0f}",
        )
    print_table(table)
