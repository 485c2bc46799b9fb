"""What regions gain on videos: half the tokens against the fixed grid, the same host and steps.

    python benchmarks/clips_gain.py FOLDER --num-frames 8 --grid-px 96 --dart-px 144 --seeds 3

FOLDER holds train/ and val/, each with one folder of videos per class. With --mosaic 4 4 its files
are pictures of 4 x 4 frames, which are cut apart first. For each seed a timm ViT is trained on the
fixed grid of each frame, joint attention over all of them, and then with regions: half as many
tokens for the whole clip, free to lie where its score net wants them. Accuracy is that of the last
step, not of the best one. Prints a line per run, then mean, deviation and gain, and exits with 1 if
half the tokens are less accurate on average.
"""

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path

import torch
from PIL import Image

from dartok.bench.machine import describe_machine
from dartok.data.augment import AugmentConfig
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.source_config import DataConfig
from dartok.tasks.task_config import TaskConfig
from dartok.train.config import TrainConfig
from dartok.train.loop_config import LoopConfig
from dartok.train.model_config import ModelConfig
from dartok.train.optim_config import OptimConfig
from dartok.train.run import Result, Run
from dartok.train.world import start_world

PATCH_PX = 16
MEASURES = ("top1", "mean_class_top1")
KINDS = ("grid", "dart")


def cut_mosaics(source: Path, target: Path, rows: int, columns: int) -> None:
    """Write each picture below a class folder as a folder of frames."""
    for path in sorted(source.glob("*/*/*.jpg")):
        picture = Image.open(path)
        width, height = picture.width // columns, picture.height // rows
        folder = target / path.relative_to(source).with_suffix("")
        folder.mkdir(parents=True)
        for number in range(rows * columns):
            left, top = number % columns * width, number // columns * height
            frame = picture.crop((left, top, left + width, top + height))
            frame.save(folder / f"{number:03}.jpg", quality=95)


def configure(options: argparse.Namespace, data: Path, kind: str, seed: int) -> TrainConfig:
    """A run of one contestant; only the regions and the pixels they are taken from differ."""
    full = options.num_frames * (options.grid_px // PATCH_PX) ** 2
    regions = ModelConfig(model=options.model)
    if kind == "dart":
        num_tokens = str(round(options.share * full))
        regions = ModelConfig(model=options.model, num_tokens=num_tokens, scorer=options.scorer)
    return TrainConfig(
        data=DataConfig(
            data=str(data / "train"),
            image_px=options.dart_px if kind == "dart" else options.grid_px,
            workers=options.workers,
        ),
        clip=ClipConfig(num_frames=options.num_frames),
        task=TaskConfig(task="video"),
        model=regions,
        augment=AugmentConfig(min_crop=options.min_crop, hflip=options.hflip, color_jitter=0.3),
        optim=OptimConfig(learning_rate=options.learning_rate),
        loop=LoopConfig(
            out=Path(options.out) / f"{kind}-{seed}",
            steps=options.steps,
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


def print_summary(rows: dict[str, list[dict[str, float]]]) -> float:
    """Mean and deviation of each contestant and of the gain, whose mean in top-1 is returned."""
    gains = {}
    for measure in MEASURES:
        values = {name: [100 * row[measure] for row in found] for name, found in rows.items()}
        values["gain"] = [b - a for a, b in zip(values["grid"], values["dart"], strict=True)]
        gains[measure] = statistics.mean(values["gain"])
        for name, of_seeds in values.items():
            spread = statistics.stdev(of_seeds) if len(of_seeds) > 1 else math.nan
            unit = "points" if name == "gain" else "%"
            print(f"{measure:<16}{name:<6}{statistics.mean(of_seeds):7.2f} +- {spread:.2f} {unit}")
    return gains["top1"]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="folder with train/ and val/")
    parser.add_argument("--mosaic", type=int, nargs=2, help="rows and columns of frames")
    parser.add_argument("--model", default="test_vit4", help="timm ViT (test_vit4)")
    parser.add_argument("--scorer", default="motion/conv", help="score net (motion/conv)")
    parser.add_argument("--num-frames", type=int, default=8, help="of a clip (8)")
    parser.add_argument("--grid-px", type=int, default=96, help="frames of the grid (96)")
    parser.add_argument("--dart-px", type=int, default=144, help="frames that DART reads (144)")
    parser.add_argument("--share", type=float, default=0.5, help="of the grid's tokens (0.5)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--steps", type=int, default=600, help="of each run (600)")
    parser.add_argument("--batch-size", type=int, default=16, help="clips per step (16)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="largest (1e-3)")
    parser.add_argument("--min-crop", type=float, default=0.7, help="least area of a crop (0.7)")
    parser.add_argument("--hflip", type=float, default=0.0, help="probability of a flip (0)")
    parser.add_argument("--workers", type=int, default=0, help="processes that read (0)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="such as cuda")
    return parser.parse_args()


def main() -> int:
    """Train all, print, and return the exit code."""
    options = parse()
    torch.set_num_threads(options.threads)
    print(describe_machine(torch.device(options.device), torch.float32))
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        data, options.out = Path(options.data), Path(folder) / "runs"
        if options.mosaic is not None:
            data = Path(folder) / "frames"
            cut_mosaics(Path(options.data), data, *options.mosaic)
        for seed in range(options.seeds):
            for kind, found in rows.items():
                found.append(train(configure(options, data, kind, seed)))
                shown = ", ".join(f"{key} {found[-1][key]:.2%}" for key in MEASURES)
                print(f"seed {seed} {kind}: {shown}", flush=True)
    gain = print_summary(rows)
    print(f"half the tokens at least as accurate: {'met' if gain >= 0 else 'NOT met'}")
    return 0 if gain >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
