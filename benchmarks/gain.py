"""What regions gain: the same backbone, steps, augmentation and tokens, with and without them.

    python benchmarks/gain.py FOLDER --num-tokens 49 --dart-px 160 --seeds 3

FOLDER holds train/ and val/, each with one folder of pictures per class; "digits" needs none. For
each seed a timm ViT is trained on its fixed grid, which reads pictures of as many patches as it has
tokens, and then with regions on pictures of --dart-px, for the same number of tokens. Accuracy is
that of the last step, not of the best one. Prints a line per run, then mean, deviation and gain.
"""

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path

import torch

from dartok.bench.machine import describe_machine
from dartok.data.augment import AugmentConfig
from dartok.data.source_config import DataConfig
from dartok.train.config import TrainConfig
from dartok.train.loop_config import LoopConfig
from dartok.train.model_config import ModelConfig
from dartok.train.optim_config import OptimConfig
from dartok.train.run import Result, Run
from dartok.train.world import start_world

PATCH_PX = 16
MEASURES = ("top1", "mean_class_top1")


def configure(options: argparse.Namespace, *, dart: bool, seed: int, out: Path) -> TrainConfig:
    """A run of one contestant; only the pixels that it reads and the regions differ."""
    data = options.data if options.data == "digits" else str(Path(options.data) / "train")
    grid_px = math.isqrt(options.num_tokens) * PATCH_PX
    regions = {"num_tokens": str(options.num_tokens), "scorer": options.scorer}
    return TrainConfig(
        data=DataConfig(
            data=data, image_px=options.dart_px if dart else grid_px, workers=options.workers
        ),
        model=ModelConfig(model=options.model, **(regions if dart else {})),
        augment=AugmentConfig(min_crop=options.min_crop, hflip=options.hflip),
        optim=OptimConfig(learning_rate=options.learning_rate),
        loop=LoopConfig(
            out=out,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=seed,
            eval_every=10**9,
            save_every=10**9,
            device=options.device,
        ),
    )


def train(config: TrainConfig) -> dict[str, float]:
    """Measures after the last step."""
    results: list[Result] = []
    with start_world(config.loop.device) as world:
        Run(config=config, world=world, on_result=results.append).train()
    return results[-1].measures


def print_summary(rows: dict[str, list[dict[str, float]]]) -> None:
    """Mean and deviation of each contestant, and of the difference of their pairs."""
    for measure in MEASURES:
        values = {name: [100 * row[measure] for row in found] for name, found in rows.items()}
        values["gain"] = [b - a for a, b in zip(values["grid"], values["dart"], strict=True)]
        for name, of_seeds in values.items():
            spread = statistics.stdev(of_seeds) if len(of_seeds) > 1 else math.nan
            mean = statistics.mean(of_seeds)
            unit = "points" if name == "gain" else "%"
            print(f"{measure:<16}{name:<6}{mean:7.2f} +- {spread:.2f} {unit}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="folder with train/ and val/, or digits")
    parser.add_argument("--model", default="test_vit4", help="timm ViT (test_vit4)")
    parser.add_argument("--scorer", default="conv", help="score net (conv)")
    parser.add_argument("--num-tokens", type=int, default=49, help="a square number (49)")
    parser.add_argument("--dart-px", type=int, default=160, help="pictures that DART reads (160)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--epochs", type=int, default=30, help="of each run (30)")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures per step (64)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="largest (1e-3)")
    parser.add_argument("--min-crop", type=float, default=0.35, help="least area of a crop (0.35)")
    parser.add_argument("--hflip", type=float, default=0.5, help="probability of a flip (0.5)")
    parser.add_argument("--workers", type=int, default=1, help="processes that read (1)")
    parser.add_argument("--device", default="auto", help="such as cuda")
    return parser.parse_args()


def main() -> int:
    """Train all, print, and return the exit code."""
    options = parse()
    if math.isqrt(options.num_tokens) ** 2 != options.num_tokens:
        print(f"num-tokens must be a square number, got {options.num_tokens}", file=sys.stderr)
        return 2
    rows: dict[str, list[dict[str, float]]] = {"grid": [], "dart": []}
    with tempfile.TemporaryDirectory() as folder, start_world(options.device) as world:
        print(describe_machine(world.device, torch.float32))
        print(f"{options.model}, {options.num_tokens} tokens, {options.epochs} epochs", flush=True)
        for seed in range(options.seeds):
            for name, found in rows.items():
                out = Path(folder) / f"{name}-{seed}"
                found.append(train(configure(options, dart=name == "dart", seed=seed, out=out)))
                shown = ", ".join(f"{key} {found[-1][key]:.2%}" for key in MEASURES)
                print(f"seed {seed} {name}: {shown}", flush=True)
    print_summary(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
