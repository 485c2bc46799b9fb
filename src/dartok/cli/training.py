"""What `dartok train` shows while it runs: a live bar, evaluations, damaged pictures."""

import math
from pathlib import Path
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from dartok.cli.console import error_console, say
from dartok.train import monitor, records, run

__all__ = ["Display"]

_SMOOTHING = 0.05
_LINES = 20
"""Progress lines of a run where there is no terminal."""


class Display:
    """A context that shows the progress of a run; silent where it is not enabled."""

    def __init__(self, *, enabled: bool = True) -> None:
        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(),
            console=error_console,
            disable=not (enabled and error_console.is_terminal),
        )
        self._task = self._bar.add_task("train", line="")
        self._rate, self._waiting = math.nan, math.nan
        self._last: run.Result | None = None

    def __enter__(self) -> "Display":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, progress: "monitor.Progress") -> None:
        """Move the bar; where there is no terminal to draw it on, print a line now and then."""
        self._rate = _smooth(self._rate, progress.images_per_second)
        self._waiting = _smooth(self._waiting, progress.waiting)
        done, total = progress.report.step, progress.num_steps
        self._bar.start()  # not before: a run that is refused shows no bar
        line = (
            f"loss {progress.report.loss:.3f}, {self._rate:.0f} images/s, "
            f"{self._waiting:.0%} waiting for data, {progress.memory_gb:.1f} GiB"
        )
        self._bar.update(self._task, completed=done, total=total, line=line)
        if not error_console.is_terminal and (done % max(1, total // _LINES) == 0):
            error_console.print(f"step {done} of {total}: {line}", markup=False, soft_wrap=True)
        for name in progress.new_bad:
            error_console.print(
                f"dartok: warning: {name} is damaged; another picture stands in",
                markup=False,
                soft_wrap=True,
            )

    def plot(self, class_names: tuple[str, ...], out: Path) -> None:
        """Draw curves.png and, of the last evaluation, confusion.png into the run's folder."""
        from dartok.draw.plots import plot_confusion, plot_curves

        if self._last is None:
            return
        try:
            plot_curves(records.read_records(out / "metrics.jsonl"), out / "curves.png")
            plot_confusion(self._last.confusion.numpy(), class_names, out / "confusion.png")
        except ImportError as error:
            say(str(error))
            return
        say(f"{out / 'curves.png'}, {out / 'confusion.png'}: how it went")

    def result(self, result: "run.Result") -> None:
        """Print an evaluation."""
        self._last = result
        measures = result.measures
        best = ", the best so far" if result.is_best else ""
        say(f"step {result.step}: {_summary(measures)} ({measures['images']:.0f} images){best}")


def _summary(measures: dict[str, float]) -> str:
    if "miou" in measures:
        return (
            f"mIoU {measures['miou']:.2%}, pixels right {measures['pixel_accuracy']:.2%}, "
            f"mean class {measures['mean_class_accuracy']:.2%}, loss {measures['loss']:.3f}"
        )
    return (
        f"top-1 {measures['top1']:.2%}, top-5 {measures['top5']:.2%}, "
        f"loss {measures['loss']:.3f}, calibration error {measures['ece']:.3f}"
    )


def _smooth(before: float, now: float) -> float:
    return now if math.isnan(before) else before + _SMOOTHING * (now - before)
