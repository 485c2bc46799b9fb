"""What regions gain on videos: half the tokens against the fixed grid, the same host and steps.

    python benchmarks/pointing_host.py POINTING host.pt
    python benchmarks/clips_gain.py FOLDER --host host.pt --seeds 3 --processes 2

FOLDER holds train/, val/ and any other folders to measure on, each with one folder of videos per
class. With --mosaic 4 4 its files are pictures of 4 x 4 frames, which are cut apart first. All
clips are decoded once and kept in memory. For each seed a ViT of images (--host, or from scratch)
is made one of clips and trained on the fixed grid of each frame, joint attention over all of them,
and then with regions: at most half as many tokens, where its score net wants them, in frames of
more pixels, told their sizes, their strength raised at the start. Both begin with the same
weights, and see the same clips, crops and colours in the same order. Accuracy is that of the last
step, not of the best one. Prints a line per run, then mean, deviation and gain; exits with 1 if
half the tokens are less accurate on val/, on average.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor, multiprocessing, nn
from torch.nn import functional as F

import dartok
from dartok.bench.machine import describe_machine
from dartok.core.tokenizer import Tokenizer
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.clips.sampling import eval_indices
from dartok.data.clips.sources import ClipFolder
from dartok.models.dials import tokenizer_of
from dartok.scorers.build import build_scorer

PATCH_PX = 16
TRAIN, JUDGED = "train", "val"
KINDS = ("grid", "dart")


class Clips(NamedTuple):
    """Videos in memory."""

    frames: UInt8[Tensor, "N T 3 side side"]
    labels: Int[Tensor, "N"]


class Job(NamedTuple):
    """One run."""

    kind: str
    seed: int


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


def read_clips(source: ClipFolder, num_frames: int, side_px: int) -> Clips:
    """Frames spread over each video, whole, resized to squares."""
    shape = (len(source), num_frames, 3, side_px, side_px)
    frames = torch.empty(shape, dtype=torch.uint8).share_memory_()
    for number in range(len(source)):
        video = source.load(number)
        (places,) = eval_indices(video.num_frames, ClipConfig(num_frames=num_frames))
        frames[number] = resized(video.frames(places.tolist()), side_px)
    return Clips(frames, torch.tensor([source.label(number) for number in range(len(source))]))


def resized(frames: Tensor, side_px: int) -> Tensor:
    """Squares, without aliasing, in the dtype of the frames."""
    return F.interpolate(frames, (side_px, side_px), mode="bilinear", antialias=True)


def read_all(options: argparse.Namespace) -> dict[str, Clips]:
    """The clips of each folder."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(options.data)
        if options.mosaic is not None:
            cut_mosaics(data, Path(folder), *options.mosaic)
            data = Path(folder)
        names = ClipFolder(data / TRAIN).class_names
        found = {}
        for path in sorted(path for path in data.iterdir() if path.is_dir()):
            source = ClipFolder(path, names)
            found[path.name] = read_clips(source, options.num_frames, options.store_px)
            print(f"{path.name}: {len(source)} videos of {len(names)} classes", flush=True)
        return found


def build(options: argparse.Namespace, kind: str, num_classes: int) -> nn.Module:
    """The host over the frames of a clip: on its fixed grid, or on half as many regions."""
    host: Any = timm.create_model(
        options.model,
        num_classes=0,
        img_size=options.host_px,
        class_token=False,
        global_pool="avg",
    )
    weights = None if options.host is None else torch.load(options.host, weights_only=True)
    if weights is not None:
        host.load_state_dict(weights["host"])
    host.reset_classifier(num_classes)
    full = options.num_frames * (options.grid_px // PATCH_PX) ** 2
    dart = kind == "dart"
    model = dartok.adapt(
        host,
        num_frames=options.num_frames,
        num_tokens=round(options.share * full) if dart else full,
        scorer=build_scorer(options.scorer, side_px=options.dart_px) if dart else "uniform",
        partition=options.partition if dart else "grid",
        size_embedding=dart,
        strength=1.0,
    )
    tokenizer = tokenizer_of(model)
    tell_time(tokenizer)
    if weights is not None and tokenizer.size_embed is not None:
        tokenizer.size_embed.load_state_dict(weights["size_embed"])
    return model


@torch.no_grad()
def tell_time(tokenizer: Tokenizer) -> None:
    """Start positions in time as waves, 1/2 to 8 over a clip, in the last third of the channels."""
    times = tokenizer.time_embed
    assert times is not None
    _, channels, steps = times.shape
    count = channels // 6
    phases = torch.pi * 2 ** torch.linspace(0, 4, count)[:, None] * (torch.arange(steps) + 0.5)
    times[0, -2 * count :] = torch.cat([(phases / steps).sin(), (phases / steps).cos()])


def normalised(frames: UInt8[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
    """From -1 to 1."""
    return frames.float() / 127.5 - 1


def varied(
    clips: UInt8[Tensor, "B T 3 H W"], side_px: int, least: float, generator: torch.Generator
) -> Float[Tensor, "B T 3 side side"]:
    """A window of each clip, its frames alike, of `least` to all of height and width; colours."""
    draws = torch.rand(len(clips), 6, generator=generator).tolist()
    made = []
    for clip, (share, place, across, along, gain, shift) in zip(clips, draws, strict=True):
        height = round((least + (1 - least) * share) * clip.shape[-2])
        width = round((least + (1 - least) * place) * clip.shape[-1])
        top = int(across * (clip.shape[-2] - height + 1))
        left = int(along * (clip.shape[-1] - width + 1))
        window = normalised(clip[..., top : top + height, left : left + width])
        made.append((0.7 + 0.6 * gain) * resized(window, side_px) + 0.4 * (shift - 0.5))
    return torch.stack(made)


def batches(
    clips: Clips, options: argparse.Namespace, side_px: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Drawn with replacement, without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        drawn = torch.randint(len(clips.labels), (options.batch_size,), generator=generator)
        yield (
            varied(clips.frames[drawn], side_px, options.min_crop, generator),
            clips.labels[drawn],
        )


@torch.inference_mode()
def accuracy(model: nn.Module, clips: Clips, side_px: int) -> float:
    """Share of videos whose class is the likeliest, from their whole frames."""
    model.eval()
    right = 0
    for frames, labels in zip(clips.frames.split(32), clips.labels.split(32), strict=True):
        seen = resized(normalised(frames).flatten(0, 1), side_px).unflatten(0, frames.shape[:2])
        right += int((model(seen).argmax(1) == labels).sum())
    model.train()
    return right / len(clips.labels)


def train(job: Job, options: argparse.Namespace, found: dict[str, Clips]) -> dict[str, float]:
    """Accuracy on each folder but train/ after the last step."""
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    side_px = getattr(options, f"{job.kind}_px")
    tests = {name: clips for name, clips in found.items() if name != TRAIN}
    model = build(options, job.kind, int(found[TRAIN].labels.max()) + 1)
    optim = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optim, options.learning_rate, options.steps, pct_start=0.1, cycle_momentum=False
    )
    source, seen, start = batches(found[TRAIN], options, side_px, job.seed), 0.0, time.monotonic()
    for step in range(1, options.steps + 1):
        if job.kind == "dart":
            reached = min(1.0, step / (options.ramp * options.steps))
            dartok.set_strength(model, options.strength * reached)
        clips, labels = next(source)
        loss = F.cross_entropy(model(clips), labels, label_smoothing=0.1)
        optim.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optim.step()
        schedule.step()
        seen += loss.item()
        if step % options.report_every == 0 or step == options.steps:
            scores = {name: accuracy(model, clips, side_px) for name, clips in tests.items()}
            shown = ", ".join(f"{name} {score:.2%}" for name, score in scores.items())
            mean = seen / (step % options.report_every or options.report_every)
            minutes = (time.monotonic() - start) / 60
            line = f"seed {job.seed} {job.kind} step {step}: loss {mean:.3f}, {shown}"
            print(f"{line} ({minutes:.1f} min)", flush=True)
            seen = 0.0
    return scores


def run(arguments: tuple[Job, argparse.Namespace, dict[str, Clips]]) -> dict[str, float]:
    """`train`, for a pool."""
    return train(*arguments)


def print_summary(rows: dict[Job, dict[str, float]]) -> float:
    """Mean and deviation of each contestant and of the gain, whose mean on val/ is returned."""
    gains = {}
    for name in next(iter(rows.values())):
        values = {
            kind: [100 * row[name] for job, row in rows.items() if job.kind == kind]
            for kind in KINDS
        }
        values["gain"] = [b - a for a, b in zip(values["grid"], values["dart"], strict=True)]
        gains[name] = statistics.mean(values["gain"])
        for kind, of_seeds in values.items():
            spread = statistics.stdev(of_seeds) if len(of_seeds) > 1 else math.nan
            unit = "points" if kind == "gain" else "%"
            shown = ", ".join(f"{value:.2f}" for value in of_seeds)
            mean = statistics.mean(of_seeds)
            print(f"{name:<10}{kind:<6}{mean:7.2f} +- {spread:.2f} {unit} ({shown})")
    return gains[JUDGED]


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", help="folder with train/ and val/")
    parser.add_argument("--mosaic", type=int, nargs=2, help="rows and columns of frames")
    parser.add_argument("--model", default="test_vit", help="timm ViT (test_vit)")
    parser.add_argument("--host", type=Path, help="weights of the ViT, as of pointing_host.py")
    parser.add_argument("--host-px", type=int, default=64, help="pictures it is of (64)")
    parser.add_argument("--scorer", default="motion/conv", help="score net (motion/conv)")
    parser.add_argument("--num-frames", type=int, default=8, help="of a clip (8)")
    parser.add_argument("--grid-px", type=int, default=96, help="frames of the grid (96)")
    parser.add_argument("--dart-px", type=int, default=128, help="frames that DART reads (128)")
    parser.add_argument("--store-px", type=int, default=144, help="frames in memory (144)")
    parser.add_argument("--share", type=float, default=4 / 9, help="of the grid's tokens (4/9)")
    parser.add_argument("--first-seed", type=int, default=0, help="of the runs (0)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--steps", type=int, default=1000, help="of each run (1000)")
    parser.add_argument("--partition", default="grid", help="grid or flow (grid)")
    parser.add_argument("--strength", type=float, default=0.5, help="of the score (0.5)")
    parser.add_argument("--ramp", type=float, default=0.25, help="share of steps to full strength")
    parser.add_argument("--report-every", type=int, default=250, help="steps (250)")
    parser.add_argument("--batch-size", type=int, default=32, help="clips per step (32)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="largest (1e-3)")
    parser.add_argument("--min-crop", type=float, default=0.8, help="least side of a crop (0.8)")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time (1)")
    return parser.parse_args()


def main() -> int:
    """Train all, print, and return the exit code."""
    options = parse()
    print(describe_machine(torch.device("cpu"), torch.float32))
    found = read_all(options)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    jobs = [Job(kind, seed) for seed in seeds for kind in KINDS]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        results = pool.map(run, [(job, options, found) for job in jobs], chunksize=1)
    gain = print_summary(dict(zip(jobs, results, strict=True)))
    print(f"half the tokens at least as accurate: {'met' if gain >= 0 else 'NOT met'}")
    return 0 if gain >= 0 else 1


if __name__ == "__main__":
    sys.exit(main())
