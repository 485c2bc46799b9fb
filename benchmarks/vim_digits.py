"""Vision Mamba on digits in clutter: the same model on its fixed grid and on regions.

    python benchmarks/vim_digits.py --steps 1200 --seeds 1 --processes 2

Vim-Ti (24 blocks, width 192, the mean of its tokens classified) is trained twice with the same
first weights, canvases, optimiser and number of tokens: once on its fixed grid and once adapted, at
full strength. Canvases are 192 px with four hands' writing of one digit among strokes and pieces of
others; patches of 32 px: the 36 tokens of the fixed grid see every pixel. Accuracy
is that of the last step on the same test canvases; no handwritten digit is in both splits. Prints a
line for each run and the differences, and exits with 1 if regions do not win on average. Each model
trains on one thread.
"""

import argparse
import multiprocessing
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import NamedTuple

import torch
from torch import nn

import dartok
from dartok.bench.machine import describe_machine
from dartok.cli.digits_job import normalise
from dartok.data.digits import CanvasConfig, DigitCanvases, Split
from dartok.data.samples import Batch
from dartok.models.mamba.vim import Vim
from dartok.tasks.classification import Tally
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.objective import objective
from dartok.train.learner import Learner
from dartok.train.optim_config import OptimConfig

CANVAS = CanvasConfig(size_px=192, num_digits=4)
PATCH_PX, NUM_TOKENS = 32, 36
TEST_SEED, TEST_BATCH_SIZE = 1_000_000, 64
STEPS_PER_LINE = 100


class Contestant(NamedTuple):
    """A training."""

    dart: bool
    seed: int

    def __str__(self) -> str:
        return f"{'DART-Vim-Ti' if self.dart else 'Vim-Ti, fixed grid'}, seed {self.seed}"


def first_model(contestant: Contestant) -> nn.Module:
    """The model before the first step: both start from the same host."""
    with torch.random.fork_rng():
        torch.manual_seed(contestant.seed)
        host = Vim(
            img_size=CANVAS.size_px,
            patch_size=PATCH_PX,
            in_chans=1,
            num_classes=10,
            global_pool="avg",
        )
        if not contestant.dart:
            return host
        return dartok.adapt(host, num_tokens=NUM_TOKENS, scorer="conv", strength=1.0)


def canvases(split: Split, batch_size: int, seed: int) -> Iterator[Batch]:
    """Batches without end, the same for the same seed."""
    source = DigitCanvases(CANVAS, split=split)
    for batch in source.batches(batch_size, seed=seed):
        yield Batch(normalise(batch.images), batch.labels)


def run(contestant: Contestant, options: argparse.Namespace) -> float:
    """Train a model, saying now and then how far it is; its accuracy on the test canvases."""
    torch.set_num_threads(1)
    learner = Learner(
        first_model(contestant),
        objective(LossConfig(label_smoothing=0.0)),
        optim=OptimConfig(
            learning_rate=options.learning_rate,
            min_learning_rate=0.0,
            warmup_steps=options.steps // 10,
        ),
        num_steps=options.steps,
        seed=contestant.seed,
    )
    batches = canvases("train", options.batch_size, contestant.seed)
    losses = []
    for step, batch in enumerate(islice(batches, options.steps)):
        losses.append(learner.step([batch], step).loss)
        if (step + 1) % STEPS_PER_LINE == 0:
            recent = statistics.mean(losses[-STEPS_PER_LINE:])
            print(f"  {contestant}: step {step + 1}, loss {recent:.3f}", flush=True)
    return accuracy(learner.model, options.test_canvases)


@torch.no_grad()
def accuracy(model: nn.Module, num_canvases: int) -> float:
    """Share of the test canvases that a model gets right."""
    model.eval()
    tally = Tally(num_classes=10)
    batches = canvases("test", TEST_BATCH_SIZE, TEST_SEED)
    for batch in islice(batches, -(-num_canvases // TEST_BATCH_SIZE)):
        tally.add(model(batch.images), batch.labels)
    return tally.measures()["top1"]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=1200, help="of each model (1200)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each model (1)")
    parser.add_argument("--batch-size", type=int, default=16, help="canvases per step (16)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="largest (1e-3)")
    parser.add_argument("--test-canvases", type=int, default=2048, help="for accuracy (2048)")
    parser.add_argument("--processes", type=int, default=1, help="models trained at a time (1)")
    return parser.parse_args()


def main() -> int:
    """Train all, print, and return the exit code."""
    options = parse()
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(
        f"{options.steps} steps of {options.batch_size} canvases ({CANVAS.size_px} px)", flush=True
    )
    runs = [Contestant(dart, seed) for seed in range(options.seeds) for dart in (False, True)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        found = dict(zip(runs, pool.map(run, runs, [options] * len(runs)), strict=True))
    for contestant, right in found.items():
        print(f"{contestant}: {right:.2%}")
    gains = [
        100 * (found[Contestant(True, s)] - found[Contestant(False, s)])
        for s in range(options.seeds)
    ]
    won = statistics.mean(gains) > 0
    print(f"gain of regions {statistics.mean(gains):+.2f} points: {'met' if won else 'NOT MET'}")
    return 0 if won else 1


if __name__ == "__main__":
    sys.exit(main())
