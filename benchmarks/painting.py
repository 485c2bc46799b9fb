"""Painting tokens on a map beside the backbone that makes them, on this machine's processor.

    python benchmarks/painting.py --rounds 9

The 196 tokens of 8 pictures of 224 px, 384 wide, are painted on 128 x 128 cells; the backbone is
DeiT-S on regions, its scorer included. Medians of interleaved rounds, in float32, in inference.
On a busy machine --clock cpu counts this process's processor time, on one thread.

Such a map is 201 MB. Where the allocator gives memory back after each call, as glibc's does from
32 MB on, the system maps and clears every page of it anew, whatever is written there: the line
"filling" is what that costs for a map of one value. So there are two tables: with the allocator as
it is, and with one that keeps its memory, as a GPU's, jemalloc and tcmalloc do; glibc's is told to
halfway. The limit is on the second, which is the cost of painting itself; where the allocator is
not glibc's there is the first alone. Exits with 1 if the limit is not met.
"""

import argparse
import ctypes
import sys
import time
from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import Tensor

import dartok
from dartok.bench.machine import describe_machine
from dartok.bench.timing import Timing, time_interleaved

BATCH, IMAGE_PX = 8, 224
SIZES = ((14, 14), (28, 28), (56, 56), (128, 128))
SIZE = (128, 128)
MOST = 0.1
"""Of the time of the backbone's forward pass."""
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
"""Parameters of glibc's mallopt: blocks that are mapped on their own, and what is given back."""


def keep_memory() -> bool:
    """Tell glibc's allocator to keep what is freed; whether there is one that understands."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(
        mallopt(parameter, value) == 1
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
    )


def calls() -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    torch.manual_seed(0)
    host = timm.create_model("deit_small_patch16_224", num_classes=0)
    model: Any = dartok.adapt(host, strength=1.0).eval()
    images = torch.randn(BATCH, 3, IMAGE_PX, IMAGE_PX)
    regions = dartok.regions(model, images)
    tokens = torch.randn(BATCH, regions.num_tokens, model.num_features)

    def painting(size: tuple[int, int]) -> Callable[[], Tensor]:
        return lambda: regions.to_map(tokens, size)

    shape = (BATCH, model.num_features, *SIZE)
    return {
        "forward": lambda: model(images),
        **{_label(size): painting(size) for size in SIZES},
        f"filling {SIZE[0]} x {SIZE[1]}": lambda: torch.empty(shape).fill_(1.0),
    }


def _label(size: tuple[int, int]) -> str:
    return f"painting {size[0]} x {size[1]}"


def print_table(title: str, timings: dict[str, Timing]) -> float:
    """Milliseconds, and shares of the forward pass; returns that of the painting in question."""
    forward_s = timings["forward"].median_s
    print(f"\n{title}")
    for name, timing in timings.items():
        share = timing.median_s / forward_s
        print(f"  {name:<20}{1e3 * timing.median_s:>10.1f} ms{share:>8.3f} of the forward pass")
    return timings[_label(SIZE)].median_s / forward_s


def main(arguments: list[str] | None = None) -> int:
    """Time, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="of each table")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what is counted")
    options = parser.parse_args(arguments)
    if options.clock == "cpu":
        torch.set_num_threads(1)
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(f"{BATCH} pictures of {IMAGE_PX} px, clock: {options.clock}")
    timing: dict[str, Any] = {"rounds": options.rounds, "clock": CLOCKS[options.clock]}
    with torch.inference_mode():
        timed = calls()
        share = print_table("the allocator as it is", time_interleaved(timed, **timing))
        if keep_memory():
            share = print_table("memory is kept", time_interleaved(timed, warmups=2, **timing))
    met = share < MOST
    print(f"\n{_label(SIZE)}: {share:.3f}, under {MOST:g}: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
