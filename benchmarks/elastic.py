"""One elastic checkpoint beside models trained for one number of tokens each, on digits in clutter.

    python benchmarks/elastic.py --steps 2000 --elastic-steps 8000 --processes 2

The tiny ViT of `dartok demo`, adapted, is trained once for each budget and once with a number of
tokens drawn anew for each step: the same first weights, batches and optimiser, the schedule as long
as the training. The elastic model takes --elastic-steps, by default as many as each of the others;
several numbers give several models. As many steps as all the separate models together cost about
what the checkpoints cost that it replaces. All are tested on the same canvases, so differences are
paired: their standard error is that of the canvases, not of another --seed. Prints a line for each
model and exits with 1 if an elastic one falls more than a point short of a separate one. Each model
trains on one thread.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from itertools import islice
from typing import NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

import dartok
from dartok.bench.machine import describe_machine
from dartok.cli.digits_job import DigitsJob, normalise
from dartok.data.digits import CanvasConfig, DigitCanvases, Split
from dartok.data.samples import Batch
from dartok.models.dials import set_num_tokens
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.objective import objective
from dartok.train.budgets import Budget
from dartok.train.learner import Learner
from dartok.train.optim_config import OptimConfig

CANVAS_PX, GRID_TOKENS = 192, 36
TEST_SEED, TEST_BATCH_SIZE = 1_000_000, 64
AT_MOST_POINTS = 1.0
"""That the elastic model may fall short of a separate one."""
STEPS_PER_LINE = 500


class Contestant(NamedTuple):
    """A model to train."""

    budget: Budget
    """Tokens of a step."""
    num_steps: int
    elastic: bool

    def __str__(self) -> str:
        kind = "elastic" if self.elastic else "separate"
        return f"{kind} {self.budget}, {self.num_steps} steps"


class Trained(NamedTuple):
    """What a trained model gets right."""

    correct: dict[int, Bool[Tensor, "canvases"]]
    """For each budget that it was tested at."""
    loss: float
    """Of the last steps, on average."""
    seconds: float
    """Of the training."""


def first_model(seed: int) -> nn.Module:
    """The adapted ViT before the first step: the same for all, whatever its number of tokens."""
    job = DigitsJob(num_tokens=GRID_TOKENS, num_steps=1, seed=seed, canvas_px=CANVAS_PX)
    host = job.build_host()
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of the scorer
        return dartok.adapt(host, num_tokens=GRID_TOKENS, scorer="conv", strength=1.0)


def canvases(split: Split, batch_size: int, seed: int) -> Iterator[Batch]:
    """Batches without end, the same for the same seed."""
    source = DigitCanvases(CanvasConfig(size_px=CANVAS_PX), split=split)
    for batch in source.batches(batch_size, seed=seed):
        yield Batch(normalise(batch.images), batch.labels)


def learner_of(contestant: Contestant, options: argparse.Namespace) -> Learner:
    """The demo's optimiser; sets the number of tokens before each step."""
    budget, num_steps = contestant.budget, contestant.num_steps
    return Learner(
        first_model(options.seed),
        objective(LossConfig(label_smoothing=0.0)),
        optim=OptimConfig(
            learning_rate=options.learning_rate,
            min_learning_rate=0.0,
            warmup_steps=num_steps // 10,
            beta2=0.98,
        ),
        num_steps=num_steps,
        seed=options.seed,
        prepare=lambda model, step: set_num_tokens(model, budget.draw(options.seed, step)),
    )


def run(contestant: Contestant, options: argparse.Namespace) -> Trained:
    """Train a model, saying now and then how far it is, and test it."""
    torch.set_num_threads(1)
    learner, start = learner_of(contestant, options), time.perf_counter()
    batches = canvases("train", options.batch_size, options.seed)
    losses = []
    for step, batch in enumerate(islice(batches, contestant.num_steps)):
        losses.append(learner.step([batch], step).loss)
        if (step + 1) % STEPS_PER_LINE == 0:
            recent = sum(losses[-STEPS_PER_LINE:]) / STEPS_PER_LINE
            print(f"  {contestant}: step {step + 1}, loss {recent:.3f}", flush=True)
    seconds = time.perf_counter() - start
    budgets = options.budgets if contestant.elastic else [contestant.budget.most]
    correct = test(learner.model, budgets, options.test_canvases)
    last = losses[-STEPS_PER_LINE:]
    return Trained(correct, sum(last) / len(last), seconds)


@torch.no_grad()
def test(
    model: nn.Module, budgets: list[int], num_canvases: int
) -> dict[int, Bool[Tensor, "canvases"]]:
    """Which canvases a model gets right, at each budget; the same canvases each time."""
    model.eval()
    found: dict[int, list[Tensor]] = {budget: [] for budget in budgets}
    batches = canvases("test", TEST_BATCH_SIZE, TEST_SEED)
    for batch in islice(batches, -(-num_canvases // TEST_BATCH_SIZE)):
        for budget, parts in found.items():
            set_num_tokens(model, budget)
            parts.append(model(batch.images).argmax(-1) == batch.labels)
    return {budget: torch.cat(parts)[:num_canvases] for budget, parts in found.items()}


def train_all(
    contestants: list[Contestant], options: argparse.Namespace
) -> dict[Contestant, Trained]:
    """Several at a time, the longest first, so that none is left running alone for long."""
    context = multiprocessing.get_context("spawn")
    order = sorted(contestants, key=lambda one: (one.num_steps, one.budget.most), reverse=True)
    with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
        futures = {pool.submit(run, one, options): one for one in order}
        trained = {}
        for future in as_completed(futures):
            one = futures[future]
            trained[one] = future.result()
            print_trained(one, trained[one])
    return trained


def print_trained(contestant: Contestant, trained: Trained) -> None:
    """One line per model."""
    accuracies = ", ".join(
        f"{right.float().mean():.2%} at {budget}" for budget, right in trained.correct.items()
    )
    ending = f"loss {trained.loss:.3f}, {trained.seconds:.0f} s"
    print(f"{contestant}: {accuracies} ({ending})", flush=True)


def print_shortfall(name: str, elastic: Trained, separate: dict[int, Trained]) -> bool:
    """An elastic model beside the separate ones; whether it stays within the limit."""
    print(f"\n{name}\n{'tokens':>6}{'separate':>10}{'elastic':>10}{'difference, points':>21}")
    shortfalls = []
    for budget, other in separate.items():
        mine, theirs = elastic.correct[budget].double(), other.correct[budget].double()
        difference = 100 * (mine - theirs)
        error = difference.std() / len(difference) ** 0.5
        accuracies = f"{theirs.mean():>10.2%}{mine.mean():>10.2%}"
        print(f"{budget:>6}{accuracies}{difference.mean():>+13.2f} +- {error:.2f}")
        shortfalls.append(-float(difference.mean()))
    met = max(shortfalls) <= AT_MOST_POINTS
    verdict = "met" if met else "NOT MET"
    print(f"largest shortfall {max(shortfalls):.2f} points (at most {AT_MOST_POINTS:g}): {verdict}")
    return met


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000, help="of each separate model (2000)")
    parser.add_argument(
        "--elastic-steps", type=int, nargs="+", help="of each elastic model (as --steps)"
    )
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=[16, 25, 36, 49], help="tokens (16 25 36 49)"
    )
    parser.add_argument(
        "--test-canvases", type=int, default=8192, help="that all are tested on (8192)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="canvases per step (32)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="largest (1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (0)")
    parser.add_argument("--processes", type=int, default=1, help="models trained at a time (1)")
    options = parser.parse_args()
    for name in ("steps", "elastic_steps", "budgets", "test_canvases", "batch_size", "processes"):
        refuse_below_one(parser, name, getattr(options, name))
    return options


def refuse_below_one(
    parser: argparse.ArgumentParser, name: str, given: int | list[int] | None
) -> None:
    """Exit with 2 if a number is not a count."""
    numbers = [given] if isinstance(given, int) else given or [1]
    if min(numbers) < 1:
        parser.error(f"{name.replace('_', '-')} must be >= 1, got {min(numbers)}")


def main() -> int:
    """Train all, print, and return the exit code."""
    options = parse()
    torch.set_num_threads(1)
    drawn = Budget(min(options.budgets), max(options.budgets))
    separate = {n: Contestant(Budget(n, n), options.steps, False) for n in options.budgets}
    elastic = [Contestant(drawn, n, True) for n in options.elastic_steps or [options.steps]]
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(
        f"batches of {options.batch_size} canvases ({CANVAS_PX} px), seed {options.seed}; accuracy "
        f"on {options.test_canvases} test canvases\n",
        flush=True,
    )
    trained = train_all([*separate.values(), *elastic], options)
    beside = {budget: trained[one] for budget, one in separate.items()}
    met = [print_shortfall(str(one), trained[one], beside) for one in elastic]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
