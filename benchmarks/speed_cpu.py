"""DART beside the plain DeiT it replaces, on this machine: medians of interleaved runs.

    python benchmarks/speed_cpu.py --processes 5 --rounds 9 --batch-size 8

Forward passes in float32, eager, without gradients; random weights, which cost the same as trained
ones. DART reads pictures of 448 px and scores them at 224 px; the plain models read 224 px. Where
in memory the weights of a process land moves a ratio by some per cent, so several processes, each
with all calls, take part in the medians. Exits with 1 if the medians do not meet a limit. The
ratios of the fastest rounds stand beside them: where the two disagree, something else was running.
"""

import argparse
import multiprocessing
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import timm
import torch
from torch import Tensor, nn

import dartok
from dartok.bench.machine import describe_machine
from dartok.bench.timing import Timing, time_interleaved
from dartok.core.sampling import sample_regions

PLAIN_PX, DART_PX = 224, 448
PATCH = (16, 16)


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A ratio of two medians, and what is asked of it."""

    call: str
    beside: str
    at_most: float
    """Largest ratio of the median of `call` to that of `beside`."""


LIMITS = (
    Limit(call="DART-DeiT-Ti 196, mobilenetv3_small", beside="DeiT-Ti 196", at_most=1.20),
    Limit(call="DART-DeiT-Ti 196, conv", beside="DeiT-Ti 196", at_most=1.10),
    Limit(call="DART-DeiT-S 392, mobilenetv3_large", beside="DeiT-B 196", at_most=1 / 1.5),
    Limit(call="DART-DeiT-S 392, conv", beside="DeiT-B 196", at_most=1 / 1.6),
    Limit(call="sampling 196 regions", beside="DeiT-Ti 196", at_most=0.10),
)
FLOOR = ("DeiT-S 392, no regions", "DeiT-B 196")
"""The bare backbones: no adaptive DeiT-S at 392 tokens can be faster than this ratio."""


def dart(host: str, num_tokens: int, scorer: str) -> nn.Module:
    """A host with regions at full strength, in eval mode."""
    model = timm.create_model(host)
    return dartok.adapt(model, num_tokens=num_tokens, scorer=scorer, strength=1.0).eval()


def tiny_calls(plain: Tensor, large: Tensor) -> dict[str, Callable[[], object]]:
    """DeiT-Ti at 196 tokens: plain, with two scorers, and the sampling by itself."""
    light = dart("deit_tiny_patch16_224", 196, "conv")
    regions = dartok.regions(light, large)
    return {
        "DeiT-Ti 196": partial(timm.create_model("deit_tiny_patch16_224").eval(), plain),
        "DART-DeiT-Ti 196, mobilenetv3_small": partial(
            dart("deit_tiny_patch16_224", 196, "mobilenetv3_small"), large
        ),
        "DART-DeiT-Ti 196, conv": partial(light, large),
        "sampling 196 regions": partial(sample_regions, large, regions, PATCH),
    }


def small_calls(plain: Tensor, large: Tensor) -> dict[str, Callable[[], object]]:
    """DeiT-S at 392 tokens with two scorers and bare, beside DeiT-B at 196."""
    wide_px = (PLAIN_PX, 2 * PLAIN_PX)  # 14 x 28 patches: 392 tokens without any region
    bare = timm.create_model("deit_small_patch16_224", img_size=wide_px).eval()
    return {
        "DeiT-B 196": partial(timm.create_model("deit_base_patch16_224").eval(), plain),
        "DART-DeiT-S 392, mobilenetv3_large": partial(
            dart("deit_small_patch16_224", 392, "mobilenetv3_large"), large
        ),
        "DART-DeiT-S 392, conv": partial(dart("deit_small_patch16_224", 392, "conv"), large),
        "DeiT-S 392, no regions": partial(bare, torch.rand(len(plain), 3, *wide_px)),
    }


def print_timings(timings: dict[str, Timing]) -> None:
    """One line per call."""
    print(f"{'call':<38}{'median ms':>10}{'+-':>6}{'least ms':>10}")
    for name, timing in timings.items():
        median_ms, least_ms = timing.median_s * 1e3, timing.least_s * 1e3
        print(f"{name:<38}{median_ms:>10.1f}{timing.spread:>6.0%}{least_ms:>10.1f}")


def print_limits(timings: dict[str, Timing]) -> bool:
    """One line per limit, held against the medians; whether all of them are met."""
    print(f"\n{'call':<38}{'beside':<13}{'ratio':>6}{'at most':>9}{'':>9}{'of least':>9}")
    met = True
    for limit in LIMITS:
        ratio, of_least = ratios(timings, limit.call, limit.beside)
        met &= ratio <= limit.at_most
        verdict = "met" if ratio <= limit.at_most else "NOT MET"
        sides = f"{limit.call:<38}{limit.beside:<13}"
        print(f"{sides}{ratio:>6.3f}{limit.at_most:>9.3f}{verdict:>9}{of_least:>9.3f}")
    ratio, of_least = ratios(timings, *FLOOR)
    print(f"{FLOOR[0]:<38}{FLOOR[1]:<13}{ratio:>6.3f}{'':>9}{'floor':>9}{of_least:>9.3f}")
    return met


def ratios(timings: dict[str, Timing], call: str, beside: str) -> tuple[float, float]:
    """Time of `call` over that of `beside`: of the medians, and of the fastest rounds."""
    first, second = timings[call], timings[beside]
    return first.median_s / second.median_s, first.least_s / second.least_s


def measure(batch_size: int, rounds: int, seed: int) -> dict[str, Timing]:
    """All calls, interleaved, in this process."""
    warnings.filterwarnings("ignore", message="scorer .* random weights")  # they cost the same
    torch.manual_seed(seed)
    plain = torch.rand(batch_size, 3, PLAIN_PX, PLAIN_PX)
    large = torch.rand(batch_size, 3, DART_PX, DART_PX)
    with torch.inference_mode():
        timings = time_interleaved(tiny_calls(plain, large), rounds=rounds)
        return timings | time_interleaved(small_calls(plain, large), rounds=rounds)


def measure_in_processes(processes: int, batch_size: int, rounds: int) -> dict[str, Timing]:
    """The rounds of several fresh processes, one after the other, as one timing per call."""
    context = multiprocessing.get_context("spawn")
    seconds: dict[str, tuple[float, ...]] = {}
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        for seed in range(processes):
            timings = pool.submit(measure, batch_size, rounds, seed).result()
            for name, timing in timings.items():
                seconds[name] = seconds.get(name, ()) + timing.seconds
    return {name: Timing(seconds=values) for name, values in seconds.items()}


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=5, help="one after the other (5)")
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each (9)")
    parser.add_argument("--batch-size", type=int, default=8, help="pictures per call (8)")
    options = parser.parse_args()
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(
        f"eager, batch {options.batch_size}, {options.rounds} interleaved rounds in each of "
        f"{options.processes} processes\n"
    )
    timings = measure_in_processes(options.processes, options.batch_size, options.rounds)
    print_timings(timings)
    return 0 if print_limits(timings) else 1


if __name__ == "__main__":
    sys.exit(main())
