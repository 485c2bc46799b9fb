"""`dartok demo`: regions on a photograph, and a small ViT trained with and without them."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclopts import Parameter
from rich.table import Table

from dartok.cli.console import output_console, say

if TYPE_CHECKING:
    from dartok.cli.digits_job import Contestant, DigitsJob

__all__ = ["DemoConfig", "demo"]

_CANVAS_PX = 192
_NUM_STEPS = 1500
_NUM_STEPS_QUICK = 150


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """How large the demo is, and where it puts the pictures."""

    out: Path = Path("demo")
    """Folder for the pictures; made if missing."""
    quick: bool = False
    """Train for a tenth of the steps: under a minute, but too short to learn much."""
    steps: int | None = None
    """Training steps of each model; by default 1500, with --quick 150."""
    num_tokens: int = 36
    """Tokens of each model: a square number, whose root divides 192 px into the fixed patches."""
    seed: int = 0
    """Of the first weights and of the pictures to train on."""

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}")
        side = math.isqrt(max(self.num_tokens, 0))
        if side < 1 or side**2 != self.num_tokens or _CANVAS_PX % side:
            raise ValueError(
                "num-tokens must be the square of a divisor of 192, such as 16, 36 or 64, "
                f"got {self.num_tokens}"
            )
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")

    @property
    def num_steps(self) -> int:
        """Training steps of each model."""
        return self.steps or (_NUM_STEPS_QUICK if self.quick else _NUM_STEPS)


def demo(*, config: DemoConfig = DemoConfig()) -> None:
    """Draw regions on a photograph, then train a small ViT with and without them.

    Needs no network: the pictures ship inside scikit-image and scikit-learn. Both models see the
    same canvases, each with one small handwritten digit among clutter, for the same number of
    steps. Prints a table, and writes photograph.png and digits.png. Takes three to six minutes on
    two cores.
    """
    if config.out.exists() and not config.out.is_dir():
        raise ValueError(f"out must be a folder, got the file {config.out}; choose another --out")
    from dartok.cli.digits_job import DigitsJob
    from dartok.cli.pictures import canvases_sheet, photograph_sheet
    from dartok.data.photographs import load_photograph
    from dartok.draw import save_image

    job = DigitsJob(
        num_tokens=config.num_tokens,
        num_steps=config.num_steps,
        seed=config.seed,
        canvas_px=_CANVAS_PX,
        num_test_batches=8 if config.quick else 32,
    )
    photograph, canvases = load_photograph("coffee"), job.test_canvases(4)
    config.out.mkdir(parents=True, exist_ok=True)
    save_image(photograph_sheet(photograph), config.out / "photograph.png")
    say(f"{config.out / 'photograph.png'}: a photograph cut into regions")
    contestants = job.run()
    _print_table(contestants, job)
    grid, adaptive = contestants
    save_image(canvases_sheet(canvases, grid, adaptive), config.out / "digits.png")
    say(f"{config.out / 'digits.png'}: where the tokens went on test canvases")


def _print_table(contestants: "list[Contestant]", job: "DigitsJob") -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for column in ("tokens", "parameters", "multiply-adds", "accuracy", "images per second"):
        table.add_column(column, justify="right")
    for contestant in contestants:
        table.add_row(
            f"[bold]{contestant.name}[/bold]",
            str(contestant.num_tokens),
            f"{contestant.cost.parameters / 1e6:.3f} M",
            f"{contestant.cost.multiply_adds / 1e6:.1f} M",
            f"{contestant.accuracy:.1%}",
            f"{contestant.images_per_second:.0f}",
        )
    output_console.print(table)
    say(job.describe())
