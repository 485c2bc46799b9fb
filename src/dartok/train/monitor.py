"""What is noted of a run while it learns: speed, memory, loss, gradient, the score map's health."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import nn

from dartok.core.tokenizer import Tokenizer
from dartok.models.dials import tokenizer_of
from dartok.tasks.score_map import score_health
from dartok.train.acceleration import peak_memory_gb
from dartok.train.learner import StepReport
from dartok.train.trackers import Tracker

__all__ = ["Monitor", "Progress"]

_HEALTH_EVERY = 50
"""Steps between looks at the score map: they read values, which stalls a GPU."""


class Progress(NamedTuple):
    """A step as it is shown while training."""

    report: StepReport
    num_steps: int
    images_per_second: float
    waiting: float
    """Share of the time, since the last report, that the step waited for data."""
    memory_gb: float
    """Most memory in use so far, in GiB: the GPU's, or this process's; NaN if unknown."""
    new_bad: tuple[str, ...]
    """Damaged pictures that were met for the first time."""


class Monitor:
    """Turns steps into numbers, for whoever records or shows them.

    Args:
        model: Its tokenizer, if it has one, cuts the score maps whose health is noted.
        trackers: Where numbers go.
        image_px: Side of the pictures.
        batch_size: Pictures per step, of all processes.
        num_steps: Of the run.
        device: Whose memory is noted.
        on_step: Called with each step's progress.
    """

    def __init__(
        self,
        model: nn.Module,
        trackers: Sequence[Tracker],
        *,
        image_px: int,
        batch_size: int,
        num_steps: int,
        device: torch.device,
        on_step: Callable[[Progress], object],
    ) -> None:
        has_regions = any(isinstance(module, Tokenizer) for module in model.modules())
        self.tokenizer = tokenizer_of(model) if has_regions else None
        self.trackers, self.image_px = trackers, image_px
        self.batch_size, self.num_steps, self.device = batch_size, num_steps, device
        self.on_step = on_step
        self.restart()

    def restart(self) -> None:
        """Time from here on: what came before, such as an evaluation, is not of a step."""
        self._clock = time.perf_counter()

    def step(self, report: StepReport, waited_s: float, new_bad: Sequence[str]) -> None:
        """Note a step, of which the given seconds were spent waiting for pictures."""
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        progress = Progress(
            report,
            self.num_steps,
            self.batch_size / seconds,
            waited_s / seconds,
            peak_memory_gb(self.device),
            tuple(new_bad),
        )
        self.note(report.step, _numbers(progress) | self._health(report))
        self.on_step(progress)

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """Hand numbers on."""
        for tracker in self.trackers:
            tracker.add(step, values)

    def close(self) -> None:
        """Nothing more will be noted."""
        for tracker in self.trackers:
            tracker.close()

    def _health(self, report: StepReport) -> dict[str, float]:
        due = report.step % _HEALTH_EVERY == 0 or report.step == self.num_steps
        if not due or report.scores is None or self.tokenizer is None:
            return {}
        return score_health(report.scores, self.tokenizer, (self.image_px, self.image_px))


def _numbers(progress: Progress) -> dict[str, float]:
    report = progress.report
    terms = {f"loss/{name}": value for name, value in report.terms.items()}
    return {
        "loss": report.loss,
        **(terms if len(terms) > 1 else {}),
        "grad_norm": report.grad_norm,
        "learning_rate": report.learning_rate,
        "images_per_second": progress.images_per_second,
        "waiting": progress.waiting,
        **({} if math.isnan(progress.memory_gb) else {"memory_gb": progress.memory_gb}),
    }
