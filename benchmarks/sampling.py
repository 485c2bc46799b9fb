"""What samples of large regions miss, and what it costs not to: points, more points, exact means.

    python benchmarks/sampling.py --sizes 448 1792 --rounds 15

Regions follow a score of one decade. The error is against the exact mean of each sample's share of
its region, in float64, over a zone plate (rings of all frequencies, in [-1, 1]) and a photograph in
[0, 1]: root mean square over all samples of regions that are wider or higher than a patch. Times
are medians of interleaved rounds on one thread: forward, and forward and backward to the scores. On
a busy machine --clock cpu counts this process's processor time. Exits with 1 if means are inexact.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from dartok.bench.machine import describe_machine
from dartok.bench.timing import time_interleaved
from dartok.core.antialias import area_samples
from dartok.core.partition import partition
from dartok.core.regions import Regions
from dartok.core.sampling import sample_regions
from dartok.data.photographs import load_photograph

PATCH, TOKENS, ROWS = 16, 196, 14

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Sample = Callable[[Tensor, Regions], Tensor]


def points(oversample: int, antialias: bool = False) -> Sample:
    """Our sampling with these options."""
    return lambda images, regions: sample_regions(
        images, regions, (PATCH, PATCH), oversample=oversample, antialias=antialias
    )


def spacing_px(regions: Regions, images: Tensor) -> Tensor:
    """How far apart the samples of each region are, down and across."""
    row = ((regions.strip_edges[:, 1:] + regions.strip_edges[:, :-1]) / 2).floor().long()
    heights = regions.row_edges[:, 0].diff(dim=-1).gather(1, row) * images.shape[-2]
    widths = regions.strip_edges.diff(dim=-1) * images.shape[-1]
    return torch.stack([heights, widths], dim=-1) / PATCH


def exact(images: Tensor, regions: Regions) -> Tensor:
    """The means, in float64."""
    steps = (torch.arange(PATCH, dtype=torch.float64) + 0.5) / PATCH
    width = regions.strip_edges.diff(dim=-1).unsqueeze(-1)
    strip = regions.strip_edges[:, :-1, None] + width * steps
    row = strip.floor().long()
    columns = area_samples(
        images.double(),
        regions.row_edges,
        x=(strip - row).flatten(1),
        width=(width / PATCH).expand_as(strip).flatten(1),
        row=row.flatten(1),
        num_samples=PATCH,
    )
    return columns.unflatten(2, (TOKENS, PATCH)).permute(0, 2, 1, 4, 3)


def zone_plate(side_px: int) -> Tensor:
    """Rings that get finer outwards."""
    centred = torch.arange(side_px) - side_px / 2 + 0.5
    square = centred**2 + centred.unsqueeze(1) ** 2
    return torch.cos(math.pi * square / side_px).expand(1, 3, -1, -1).contiguous()


def photograph(side_px: int) -> Tensor:
    """A photograph of that size."""
    picture = load_photograph("astronaut")[None]
    return F.interpolate(picture, (side_px, side_px), mode="bicubic").clamp(0, 1)


def errors(sample: Sample, regions: Regions, side_px: int) -> list[float]:
    """Root mean square of both pictures."""
    found = []
    for picture in (zone_plate(side_px), photograph(side_px)):
        large = spacing_px(regions, picture).amax(-1) > 1
        difference = (sample(picture, regions) - exact(picture, regions))[large]
        found.append(float(difference.square().mean().sqrt()))
    return found


def times_ms(
    samples: dict[str, Sample], side_px: int, rounds: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Medians, forward, and forward and backward."""
    images, scores = torch.randn(1, 3, side_px, side_px), scores_of_one_decade()

    def forward(sample: Sample) -> Callable[[], Tensor]:
        regions = partition(scores, num_tokens=TOKENS, num_rows=ROWS)
        return lambda: sample(images, regions)

    def both(sample: Sample) -> Callable[[], None]:
        def call() -> None:
            leaf = scores.clone().requires_grad_()
            regions = partition(leaf, num_tokens=TOKENS, num_rows=ROWS)
            sample(images, regions).square().sum().backward()

        return call

    calls: dict[str, Callable[[], object]] = {}
    for name, sample in samples.items():
        calls |= {f"{name} forward": forward(sample), f"{name} both": both(sample)}
    timings = time_interleaved(calls, rounds=rounds, warmups=2, clock=clock)
    return {
        name: [timings[f"{name} {way}"].median_s * 1e3 for way in ("forward", "both")]
        for name in samples
    }


def scores_of_one_decade() -> Tensor:
    """The same scores for every size."""
    return 10 ** torch.rand(1, 14, 14, generator=torch.Generator().manual_seed(0))


def main(arguments: list[str] | None = None) -> int:
    """Print one line for each size and way; 1 if means are not exact."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[448, 1792], help="in pixels")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    samples = {
        "points": points(1),
        "oversample=2": points(2),
        "oversample=4": points(4),
        "antialias": points(1, antialias=True),
    }
    print(describe_machine(torch.device("cpu"), torch.float32))
    print("size    way           zone plate  photograph  forward    with backward")
    worst = 0.0
    regions = partition(scores_of_one_decade(), num_tokens=TOKENS, num_rows=ROWS)
    for side_px in options.sizes:
        times = times_ms(samples, side_px, options.rounds, CLOCKS[options.clock])
        for name, sample in samples.items():
            plate, photo = errors(sample, regions, side_px)
            forward, both = times[name]
            print(
                f"{side_px:4d} px {name:14s}{plate:10.5f}  {photo:10.5f}"
                f"  {forward:7.1f} ms  {both:7.1f} ms"
            )
        worst = max(worst, plate, photo)
    return int(worst > 1e-4)


if __name__ == "__main__":
    sys.exit(main())
