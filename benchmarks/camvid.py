"""What regions gain in segmentation: the same backbone, steps and tokens, with and without them.

    python benchmarks/camvid.py CAMVID --seeds 3

CAMVID holds train/, trainannot/ and the same for val and test, as packed for SegNet; any other data
set that `dartok audit` reads will do. For each seed a small ViT is trained from scratch as a
segmenter on a fixed grid, and then with as many regions, whose score net also learns where classes
meet. Both read the same crops, as large as a frame, in the same order. IoU is that of the last
step, on --split. Prints a line per run, the IoU of each class, the gain, and the ceiling that the
audit finds for the regions of the last run; exits with 1 if the gain is below 2 points or a model
is above its ceiling. One thread by default: models so small are no faster with more.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dartok.bench.ceiling_audit import audit_ceilings, model_regions
from dartok.bench.machine import describe_machine
from dartok.data.augment import AugmentConfig
from dartok.data.source_config import DataConfig
from dartok.scorers.build import build_scorer
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.task_config import TaskConfig
from dartok.train.config import TrainConfig
from dartok.train.loop_config import LoopConfig
from dartok.train.model_config import ModelConfig
from dartok.train.optim_config import OptimConfig
from dartok.train.package import load_package
from dartok.train.run import Result, Run
from dartok.train.segmenting import open_split
from dartok.train.world import start_world

GAIN_POINTS = 2.0
KINDS = ("grid", "dart")


class Trained(NamedTuple):
    """What a run came to."""

    miou: float
    ious: Tensor
    """Of each class."""
    folder: Path
    """Of the model."""


def model_of(options: argparse.Namespace, kind: str) -> ModelConfig:
    """Only the regions differ."""
    if kind == "grid":
        tokens = str(options.num_tokens)
        return ModelConfig(
            model=options.model, num_tokens=tokens, scorer="uniform", partition="grid"
        )
    return ModelConfig(
        model=options.model,
        num_tokens=str(options.num_tokens),
        num_rows=options.num_rows,
        scorer=options.scorer,
        size_embedding=options.size_embedding,
        antialias=options.antialias,
        strength_ramp=options.strength_ramp,
    )


def configure(options: argparse.Namespace, kind: str, seed: int, out: Path) -> TrainConfig:
    """A run of one contestant."""
    height, width = options.size_px
    return TrainConfig(
        data=DataConfig(
            data=f"{options.data}:train",
            val=f"{options.data}:{options.split}",
            image_px=height,
            workers=options.workers,
        ),
        task=TaskConfig(
            task="segmentation",
            decoder=options.decoder,
            detail=options.detail,
            class_balance=options.class_balance,
            dice=options.dice,
            score_boundary=options.score_boundary if kind == "dart" else 0.0,
            min_scale=1.0,
            max_scale=2.0,
            crop_width_px=width,
        ),
        model=model_of(options, kind),
        augment=AugmentConfig(color_jitter=0.2),
        loss=LossConfig(label_smoothing=0.0),
        optim=OptimConfig(learning_rate=options.learning_rate),
        loop=LoopConfig(
            out=out,
            steps=options.steps,
            batch_size=options.batch_size,
            seed=seed,
            eval_every=10**9,
            save_every=10**9,
            device="cpu",
        ),
    )


def train(config: TrainConfig) -> Trained:
    """Measures after the last step."""
    results: list[Result] = []
    with start_world(config.loop.device) as world:
        Run(config=config, world=world, on_result=results.append).train()
    counts = results[-1].confusion
    right = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - right
    return Trained(results[-1].measures["miou"], right / union, config.loop.out / "best")


def print_classes(names: tuple[str, ...], found: dict[str, list[Trained]]) -> None:
    """IoU of each class, the mean over the seeds, and what regions gain."""
    means = {kind: torch.stack([run.ious for run in runs]).mean(0) for kind, runs in found.items()}
    print(f"{'IoU / %':<14}{'grid':>8}{'DART':>8}{'gain':>8}")
    for index, name in enumerate(names):
        grid, dart = (100 * float(means[kind][index]) for kind in KINDS)
        print(f"{name:<14}{grid:8.2f}{dart:8.2f}{dart - grid:+8.2f}")


def gain_of(found: dict[str, list[Trained]]) -> float:
    """In points of mIoU, the mean over the seeds; printed with its deviation."""
    gains = [100 * (dart.miou - grid.miou) for grid, dart in zip(*found.values(), strict=True)]
    for kind, runs in found.items():
        print(f"mIoU {kind:<5} {100 * statistics.mean(run.miou for run in runs):6.2f} %")
    spread = statistics.stdev(gains) if len(gains) > 1 else float("nan")
    print(f"gain {statistics.mean(gains):+.2f} +- {spread:.2f} points (at least {GAIN_POINTS})")
    return statistics.mean(gains)


def print_ceilings(options: argparse.Namespace, found: dict[str, list[Trained]]) -> bool:
    """Whether no model is above what one class for each of its regions allows."""
    package = load_package(found["dart"][-1].folder)
    source = open_split(f"{options.data}:{options.split}", options.split)
    audit = audit_ceilings(
        source,
        budgets=[options.num_tokens],
        scorer=build_scorer("edge"),
        scorer_name="edge",
        limit=len(source),
        model_cut=model_regions(package.model, package.pixels),
    )
    ceilings = {row.kind: row.ceiling.miou for row in audit.rows}
    for kind, ceiling in ceilings.items():
        print(f"ceiling of {kind:<12} {100 * ceiling:6.2f} %")
    best = {kind: max(run.miou for run in runs) for kind, runs in found.items()}
    return best["grid"] <= ceilings["fixed grid"] and best["dart"] <= ceilings["model"]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num-tokens", type=int, default=196)
    parser.add_argument("--model", default="test_vit3")
    parser.add_argument("--size-px", type=int, nargs=2, default=(360, 480))
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--decoder", default="linear")
    parser.add_argument("--detail", type=int, default=4)
    parser.add_argument("--class-balance", type=float, default=0.5)
    parser.add_argument("--dice", type=float, default=0.0)
    parser.add_argument("--score-boundary", type=float, default=1.0)
    parser.add_argument("--num-rows", type=int, default=None)
    parser.add_argument("--scorer", default="conv")
    parser.add_argument("--size-embedding", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--antialias", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--strength-ramp", type=int, default=0)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    """Train all contestants and compare them."""
    options = parse()
    torch.set_num_threads(options.threads)
    print(describe_machine(torch.device("cpu"), torch.float32), flush=True)
    found: dict[str, list[Trained]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for kind in KINDS:
                out = Path(folder) / f"{kind}{seed}"
                found[kind].append(train(configure(options, kind, seed, out)))
                print(f"seed {seed} {kind:<5} mIoU {100 * found[kind][-1].miou:6.2f} %", flush=True)
        names = load_package(found["dart"][0].folder).class_names
        print_classes(names, found)
        gain = gain_of(found)
        below = print_ceilings(options, found)
    print(f"no model above its ceiling: {'met' if below else 'NOT met'}")
    sys.exit(0 if gain >= GAIN_POINTS and below else 1)


if __name__ == "__main__":
    main()
