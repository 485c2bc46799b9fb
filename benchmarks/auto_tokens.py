"""What a count for each image gives: its mean on other pictures, and the time it takes or saves.

    python benchmarks/auto_tokens.py FOLDER --mean 98

FOLDER holds train/ and val/, each with one folder of pictures per class. The mass of a token is
calibrated on pictures of train/ and the counts of val/ are printed. Then batches of val/ are run
with the same number of tokens for all, with groups of one count each, and padded and masked; they
take turns. Exits with 1 if the mean of val/ is more than 2 % off. Weights are random: nothing here
depends on them but the time; the score is the deviation of the pixels (--scorer).
"""

import argparse
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from torch import Tensor, nn

import dartok
from dartok.bench.machine import describe_machine
from dartok.bench.timing import time_interleaved
from dartok.data.folder import FolderSource
from dartok.data.transforms import eval_transform
from dartok.train.model import pixels_of

MOST_OFF = 0.02
SCORED_AT_ONCE = 32


def pictures(model: nn.Module, folder: Path, count: int, image_px: int) -> Iterator[Tensor]:
    """Batches of pictures drawn from a folder, as the model sees them in evaluation."""
    source, transform = FolderSource(folder), eval_transform(pixels_of(model, image_px))
    drawn = np.random.default_rng(0).permutation(len(source))[:count].tolist()
    for start in range(0, len(drawn), SCORED_AT_ONCE):
        chosen = drawn[start : start + SCORED_AT_ONCE]
        yield torch.stack([transform(source.load(index)) for index in chosen])


@torch.inference_mode()
def counts_of(model: nn.Module, batches: Iterator[Tensor]) -> Tensor:
    """Tokens of each picture."""
    found = []
    for batch in batches:
        counts = dartok.regions(model, batch).counts
        assert counts is not None
        found.append(counts)
    return torch.cat(found)


@torch.inference_mode()
def compare_times(
    model: nn.Module, batches: list[Tensor], options: argparse.Namespace
) -> dict[str, list[float]]:
    """Seconds of each batch, fixed and per image in both ways, medians of interleaved rounds."""
    budget = dartok.regions(model, batches[0]).num_tokens
    fixed = timm_adapted(options)
    dartok.set_num_tokens(fixed, options.mean)
    no_mask = torch.zeros(1, 1, 1, model.get_parameter("cls_token").shape[1] + budget)
    seconds: dict[str, list[float]] = {}
    for batch in batches:
        calls = {
            "the same for all": partial(fixed, batch),
            "groups of one count": partial(model, batch),
            "padded and masked": partial(model, batch, attn_mask=no_mask),
        }
        for name, timing in time_interleaved(calls, rounds=options.rounds).items():
            seconds.setdefault(name, []).append(timing.median_s)
    return seconds


def timm_adapted(options: argparse.Namespace) -> nn.Module:
    """The model, at full strength."""
    host: nn.Module = timm.create_model(options.model)
    return dartok.adapt(host, num_tokens=options.mean, scorer=options.scorer, strength=1.0).eval()


def main() -> int:
    """Run from the command line."""
    options = parse()
    print(describe_machine(torch.device("cpu"), torch.float32), flush=True)
    torch.manual_seed(0)
    model = timm_adapted(options)
    dartok.set_num_tokens(model, "auto", least=options.least, most=options.most)
    train, val = options.data / "train", options.data / "val"
    reached = dartok.calibrate_num_tokens(
        model, pictures(model, train, options.calibrate, options.image_px)
    )
    counts = counts_of(model, pictures(model, val, options.pictures, options.image_px)).double()
    off = float(counts.mean()) / options.mean - 1
    print(f"calibrated on {options.calibrate} pictures: mean {reached:.1f}")
    print(
        f"{len(counts)} others: mean {counts.mean():.1f} ({off:+.2%}), deviation "
        f"{counts.std():.1f}, from {counts.min():.0f} to {counts.max():.0f}, "
        f"{counts.unique().numel()} different counts"
    )
    if options.batches:
        size = options.batch_size
        drawn = pictures(model, val, size * options.batches, options.image_px)
        batches = list(torch.cat(list(drawn)).split(size))
        print_times(compare_times(model, batches, options), size)
    return int(abs(off) > MOST_OFF)


def print_times(seconds: dict[str, list[float]], batch_size: int) -> None:
    """Milliseconds per picture and the ratio to a fixed number."""
    fixed = statistics.median(seconds["the same for all"])
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(
            f"{name:20} {middle / batch_size * 1000:7.2f} ms a picture, {middle / fixed:.2f} x "
            f"the time of the same number for all"
        )


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="deit_tiny_patch16_224")
    parser.add_argument("--scorer", default="detail")
    parser.add_argument("--mean", type=int, default=98)
    parser.add_argument("--least", type=int)
    parser.add_argument("--most", type=int)
    parser.add_argument("--image-px", type=int, default=224)
    parser.add_argument("--calibrate", type=int, default=2000, help="pictures")
    parser.add_argument("--pictures", type=int, default=2000, help="others, of val/")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4, help="that are timed; 0 for none")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
