"""What the training loop adds to bare forward, backward and step, and whether it says why it waits.

    python benchmarks/loop_overhead.py --rounds 41

`Run.train` trains a model on a batch that is ready in memory. In turns with its steps, in an order
drawn anew for each round, the same model, loss, batch and optimiser take bare steps: forward, loss,
backward, limit of the gradient, update. What the loop adds is all the rest: schedule, seeds,
checks, progress, a line of metrics.jsonl. A median over the rounds meets the limit if it does so by
two standard errors; on a busy machine --clock cpu counts this process's processor time, on one
thread. Then a run reads from a source that sleeps, and the share of the time that metrics.jsonl
says it waited for data stands beside the share that this source took. Exits with 1 if a limit is
not met.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import torch
from PIL.Image import Image
from torch import nn
from torch.nn import functional as F

from dartok.bench.machine import describe_machine
from dartok.data.digit_source import DigitSource
from dartok.data.digits import CanvasConfig
from dartok.data.samples import Batch
from dartok.data.source_config import DataConfig
from dartok.train.config import TrainConfig
from dartok.train.loop_config import LoopConfig
from dartok.train.model_config import ModelConfig
from dartok.train.records import read_records
from dartok.train.run import Progress, Run
from dartok.train.sources import DIGITS
from dartok.train.world import World

Clock = Callable[[], float]

AT_MOST_ADDED = 0.03
"""That the loop may add to a bare step."""
AT_MOST_WAITING = 0.05
"""Of the time, with batches that are ready."""
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
PAUSE_S = 0.05
"""Of the slow source, for each picture."""
WARMUPS = 2
NEVER = 10**9


class Case(NamedTuple):
    """A model, and how it is timed."""

    model: str
    num_tokens: int
    image_px: int
    batch_size: int
    steps_per_turn: int
    limited: bool
    """Whether `AT_MOST_ADDED` is asked of it."""


CASES = (
    Case("deit_tiny_patch16_224", 196, 224, 16, steps_per_turn=1, limited=True),
    Case("test_vit", 16, 64, 8, steps_per_turn=50, limited=False),  # a toy: the worst case
)


class Round(NamedTuple):
    """Seconds per step."""

    bare: float
    loop: float


class EnoughError(Exception):
    """Ends a run before it evaluates."""


@dataclass(kw_only=True)
class FedRun(Run):
    """A run that is given its batches."""

    feed: "Feed"

    def _batches(self) -> Iterator[Batch]:
        return self.feed(self)


Feed = Callable[[FedRun], Iterator[Batch]]


class SlowSource(DigitSource):
    """Digits in clutter that take their time, which is counted."""

    def __init__(self, pause_s: float) -> None:
        super().__init__(CanvasConfig(), split="train", num_canvases=DataConfig.num_digits)
        self.pause_s, self.spent_s = pause_s, 0.0

    def load(self, index: int) -> Image:
        """The picture, late."""
        start = time.perf_counter()
        time.sleep(self.pause_s)
        image = super().load(index)
        self.spent_s += time.perf_counter() - start
        return image


def configure(case: Case, out: Path) -> TrainConfig:
    """A run that neither evaluates nor saves before it is stopped."""
    return TrainConfig(
        data=DataConfig(data=DIGITS, image_px=case.image_px, workers=0),
        model=ModelConfig(model=case.model, num_tokens=str(case.num_tokens)),
        loop=LoopConfig(
            out=out,
            steps=NEVER,
            batch_size=case.batch_size,
            eval_every=NEVER,
            save_every=NEVER,
            device="cpu",
        ),
    )


def bare_step(run: Run, batch: Batch) -> None:
    """What a step cannot do without."""
    model, optimiser = run.learner.model, run.learner.optimiser
    optimiser.zero_grad(set_to_none=True)
    smoothing = run.config.loss.label_smoothing
    F.cross_entropy(model(batch.images), batch.labels, label_smoothing=smoothing).backward()
    nn.utils.clip_grad_norm_(model.parameters(), run.config.optim.max_grad_norm)
    optimiser.step()


def ready_batch(case: Case) -> Batch:
    """Noise, which costs what pictures cost."""
    images = torch.randn(case.batch_size, 3, case.image_px, case.image_px)
    return Batch(images, torch.arange(case.batch_size) % 10)


def take_turns(
    run: FedRun, *, case: Case, num_rounds: int, clock: Clock, rounds: list[Round]
) -> Iterator[Batch]:
    """Batches for the loop, whose step is all that it does until it asks for the next; bare steps.

    Raises:
        EnoughError: In place of the batch after the last round.
    """
    batch, order = ready_batch(case), random.Random(0)
    for number in range(-WARMUPS, num_rounds):
        seconds = {}
        for name in order.sample(Round._fields, len(Round._fields)):
            start = clock()
            for _ in range(case.steps_per_turn):
                if name == "loop":
                    yield batch
                else:
                    bare_step(run, batch)
            seconds[name] = (clock() - start) / case.steps_per_turn
        if number >= 0:
            rounds.append(Round(**seconds))
    raise EnoughError


def time_rounds(case: Case, num_rounds: int, clock: Clock) -> list[Round]:
    """The loop and the bare steps, in turns."""
    rounds: list[Round] = []
    feed = partial(take_turns, case=case, num_rounds=num_rounds, clock=clock, rounds=rounds)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        with suppress(EnoughError):
            FedRun(config=configure(case, out), world=World(), feed=feed).train()
        num_steps = len(read_records(out / "metrics.jsonl"))
    assert num_steps == (WARMUPS + num_rounds) * case.steps_per_turn, "the loop must not read ahead"
    return rounds


def print_added(case: Case, rounds: list[Round]) -> bool:
    """What the loop adds; whether it is within the limit, if there is one."""
    bare_ms = 1e3 * statistics.median(one.bare for one in rounds)
    added_ms = 1e3 * statistics.median(one.loop - one.bare for one in rounds)
    shares = [one.loop / one.bare - 1 for one in rounds]
    share, error = statistics.median(shares), error_of_median(shares)
    met = share + 2 * error < AT_MOST_ADDED
    verdict = f"under {AT_MOST_ADDED:.0%}: {'met' if met else 'NOT MET'}"
    print(
        f"{case.model}, {case.num_tokens} tokens, {case.image_px} px, batch {case.batch_size}: "
        f"bare step {bare_ms:.1f} ms; the loop adds {added_ms:.2f} ms, {share:.2%} +- {error:.2%} "
        f"({verdict if case.limited else 'no limit: a toy'})",
        flush=True,
    )
    return met or not case.limited


def error_of_median(values: list[float]) -> float:
    """Standard error of a median, from the spread of the middle half: blind to outliers."""
    lower, _, upper = statistics.quantiles(values, n=4)
    return 1.253 * (upper - lower) / 1.349 / len(values) ** 0.5  # as if normal in the middle


def from_source(run: FedRun, *, source: SlowSource) -> Iterator[Batch]:
    """The run's own batches, of another source."""
    run.train_source = source
    return Run._batches(run)


def waiting(case: Case, num_steps: int, feed: Feed) -> tuple[float, float]:
    """Mean share of the time that a run says it waited for data, and the seconds it took."""

    def on_step(progress: Progress) -> None:
        if progress.report.step == num_steps:
            raise EnoughError

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = FedRun(config=configure(case, out), world=World(), feed=feed, on_step=on_step)
        start = time.perf_counter()
        with suppress(EnoughError):
            run.train()
        seconds = time.perf_counter() - start
        return statistics.mean(
            one["waiting"] for one in read_records(out / "metrics.jsonl")
        ), seconds


def print_waiting(case: Case, num_steps: int) -> bool:
    """What a run says of batches in memory and of a slow source; whether it is right."""
    batch = ready_batch(case)
    ready, _ = waiting(case, num_steps, lambda run: repeat(batch))
    print(
        f"batches in memory: {ready:.0%} of the time reported as waiting for data "
        f"(under {AT_MOST_WAITING:.0%}): {'met' if ready < AT_MOST_WAITING else 'NOT MET'}"
    )
    source = SlowSource(PAUSE_S)
    slow, seconds = waiting(case, num_steps, partial(from_source, source=source))
    least = source.spent_s / seconds
    print(
        f"a source that takes {least:.0%} of the time: {slow:.0%} reported as waiting for data "
        f"(at least as much): {'met' if slow >= least else 'NOT MET'}"
    )
    return ready < AT_MOST_WAITING and slow >= least


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=41, help="timed rounds of each model (41)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what is timed (wall)")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(f"rounds must be >= 2, got {options.rounds}")
    if options.clock == "cpu":
        torch.set_num_threads(1)  # threads that wait for each other use up processor time
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(f"{options.rounds} rounds, {options.clock} time\n", flush=True)
    clock = CLOCKS[options.clock]
    met = [print_added(case, time_rounds(case, options.rounds, clock)) for case in CASES]
    return 0 if all([*met, print_waiting(CASES[-1], options.rounds)]) else 1


if __name__ == "__main__":
    sys.exit(main())
