"""The selective scan in plain PyTorch beside the loops it replaces, on this machine's processor.

    python benchmarks/scan_speed.py --rounds 9

The sizes are a small vision Mamba's at 392 tokens. `chunked` and `associative` are ours. The loops
are written down as usual, over tensors (batch, steps, channels, states), and differentiated by
autograd: one indexes step after step, whose backward pass is quadratic in the length, one unbinds
the steps. Medians of interleaved rounds, in float32; the indexing loop takes part in few. Peak
memory is that of a forward and backward pass in a fresh process: its peak resident set, which Linux
counts and can be told to count anew, less what was resident before. On a busy machine --clock cpu
counts this process's processor time, on one thread. Exits with 1 if a limit is not met.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dartok.bench.machine import describe_machine
from dartok.bench.timing import Timing, time_interleaved
from dartok.models.scan.associative import associative_scan
from dartok.models.scan.chunked import chunked_scan

Inputs = tuple[Tensor, ...]
Clock = Callable[[], float]

BATCH, CHANNELS, STATES = 8, 384, 16
LENGTHS = (256, 512, 1024, 2048, 4096)
"""Of single sequences, to see how the time grows."""

LEAST_GAIN = 12.0
"""Over the indexing loop, forward and backward."""
MOST_OF_UNBIND_TIME = 1.0
MOST_OF_UNBIND_MEMORY = 0.25
MOST_GROWTH = 1.25
"""Of the time per step, from the shortest to the longest."""


class Steps(NamedTuple):
    """What the loops read at each step, steps second."""

    decay: Tensor
    entering: Tensor
    c: Tensor


def expanded(x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Steps:
    """Every step of the only group, at once: (batch, steps, channels, states)."""
    decay = torch.exp(delta[:, :, 0].unsqueeze(-1) * a[0])
    entering = (delta * x)[:, :, 0].unsqueeze(-1) * b
    return Steps(decay, entering, c[:, :, 0])


def indexing_scan(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor
) -> Tensor:
    """A loop that takes each step out of the tensors of all, as plain code for Mamba does."""
    steps = expanded(x, delta, a, b, c)
    state = torch.zeros_like(steps.decay[:, 0])
    outputs = []
    for step in range(x.shape[1]):
        state = steps.decay[:, step] * state + steps.entering[:, step]
        outputs.append((state * steps.c[:, step].unsqueeze(1)).sum(-1))
    return torch.stack(outputs, dim=1).unsqueeze(2) + skip * x


def unbinding_scan(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor
) -> Tensor:
    """The same loop over the steps as a list, whose gradients are put together once."""
    steps = expanded(x, delta, a, b, c)
    state = torch.zeros_like(steps.decay[:, 0])
    outputs = []
    for decay, entering, read in zip(*(part.unbind(1) for part in steps), strict=True):
        state = decay * state + entering
        outputs.append((state * read.unsqueeze(1)).sum(-1))
    return torch.stack(outputs, dim=1).unsqueeze(2) + skip * x


SCANS: dict[str, Callable[..., Tensor]] = {
    "chunked": chunked_scan,
    "associative": associative_scan,
    "unbind loop": unbinding_scan,
    "indexing loop": indexing_scan,
}
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
FAST = ("chunked", "associative", "unbind loop")
BESIDE_INDEXING = ("chunked", "indexing loop")


def random_inputs(batch: int, length: int) -> Inputs:
    """Steps and rates as large as at the start of a training, in float32."""
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator)
    uniform = torch.rand(batch, length, 1, CHANNELS, generator=generator)
    inputs = (
        normal(batch, length, 1, CHANNELS),
        1e-3 * 100**uniform,
        -torch.arange(1.0, STATES + 1).repeat(1, CHANNELS, 1),
        normal(batch, length, 1, STATES),
        normal(batch, length, 1, STATES),
        torch.ones(1, CHANNELS),
    )
    return tuple(tensor.requires_grad_() for tensor in inputs)


@torch.no_grad()
def forward(name: str, inputs: Inputs) -> None:
    """As in inference."""
    SCANS[name](*inputs)


def forward_backward(name: str, inputs: Inputs) -> None:
    """As in training; gradients of all inputs."""
    torch.autograd.grad(SCANS[name](*inputs).sum(), inputs)


def check_outputs(inputs: Inputs) -> None:
    """That all ways compute the same."""
    with torch.no_grad():
        first, *others = (scan(*inputs) for scan in SCANS.values())
    for other in others:
        torch.testing.assert_close(other, first, rtol=1e-4, atol=1e-4)


def peak_mib(name: str, length: int) -> float:
    """What a forward and backward pass adds to this process's memory, at its peak."""
    forward_backward(name, random_inputs(1, 2))  # code and threads, which are no part of it
    inputs = random_inputs(BATCH, length)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mib("VmRSS")
    forward_backward(name, inputs)
    return resident_mib("VmHWM") - before


def resident_mib(field: str) -> float:
    """The memory that this process holds, "VmRSS", or the most that it held, "VmHWM"."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(value) / 1024


def memory_in_processes(names: Iterable[str], length: int) -> dict[str, float]:
    """`peak_mib` of each, in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        return {name: pool.submit(peak_mib, name, length).result() for name in names}


def time_calls(
    call: Callable[[str, Inputs], None],
    names: Iterable[str],
    inputs: Inputs,
    *,
    rounds: int,
    clock: Clock,
    warmups: int = 1,
) -> dict[str, Timing]:
    """The scans of these names, interleaved."""
    calls = {name: partial(call, name, inputs) for name in names}
    return time_interleaved(calls, rounds=rounds, warmups=warmups, clock=clock)


def print_row(name: str, *columns: str) -> None:
    """One line of a table."""
    print(f"{name:<34}" + "".join(f"{column:>15}" for column in columns), flush=True)


def print_sizes(length: int, rounds: int, slow_rounds: int, clock: Clock) -> list[bool]:
    """Times and memory of all, and whether the limits are met."""
    memory = memory_in_processes(SCANS, length)  # before this process grows
    inputs = random_inputs(BATCH, length)
    check_outputs(inputs)
    timed = partial(time_calls, inputs=inputs, clock=clock)
    ahead = timed(forward, SCANS, rounds=rounds)
    both = timed(forward_backward, FAST, rounds=rounds)
    beside = timed(forward_backward, BESIDE_INDEXING, rounds=slow_rounds, warmups=0)
    print_row("", "forward ms", "+ backward ms", "peak MiB")
    for name in SCANS:
        trained = (both if name in both else beside)[name]
        times = (f"{1e3 * timing.median_s:.1f}" for timing in (ahead[name], trained))
        print_row(name, *times, f"{memory[name]:.0f}")
    gain = ratio(beside, "indexing loop", "chunked")
    share_of_time = ratio(both, "chunked", "unbind loop")
    share_of_memory = memory["chunked"] / memory["unbind loop"]
    print()
    return [
        print_verdict(
            f"at least {LEAST_GAIN:.0f} x the indexing loop forward and backward",
            gain >= LEAST_GAIN,
            f"{gain:.1f} x",
        ),
        print_verdict(
            "no slower than the unbind loop",
            share_of_time <= MOST_OF_UNBIND_TIME,
            f"{share_of_time:.2f} x",
        ),
        print_verdict(
            "at most a quarter of the unbind loop's peak memory",
            share_of_memory <= MOST_OF_UNBIND_MEMORY,
            f"{share_of_memory:.3f} x",
        ),
    ]


def ratio(timings: dict[str, Timing], first: str, second: str) -> float:
    """Of medians."""
    return timings[first].median_s / timings[second].median_s


def print_verdict(limit: str, met: bool, value: str) -> bool:
    """One line; whether the limit is met."""
    print(f"{limit}: {'met' if met else 'NOT MET'} ({value})", flush=True)
    return met


def print_growth(rounds: int, clock: Clock) -> bool:
    """Time per step of single sequences; whether it stays the same."""
    calls = {
        f"{length:,}": partial(forward_backward, "chunked", random_inputs(1, length))
        for length in LENGTHS
    }
    timings = time_interleaved(calls, rounds=rounds, clock=clock)
    print()
    print_row("chunked, one sequence of", "+ backward ms", "us per step")
    per_step = []
    for length, (name, timing) in zip(LENGTHS, timings.items(), strict=True):
        per_step.append(1e6 * timing.median_s / length)
        print_row(name, f"{1e3 * timing.median_s:.1f}", f"{per_step[-1]:.1f}")
    growth = per_step[-1] / per_step[0]
    limit = f"linear from {LENGTHS[0]} to {LENGTHS[-1]:,}"
    print()
    return print_verdict(limit, growth <= MOST_GROWTH, f"{growth:.2f} x the time per step")


def main() -> int:
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="timed rounds of each (9)")
    parser.add_argument("--slow-rounds", type=int, default=2, help="of the indexing loop (2)")
    parser.add_argument("--length", type=int, default=393, help="steps of the comparison (393)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="what is timed (wall)")
    options = parser.parse_args()
    for name in ("rounds", "slow_rounds", "length"):
        if getattr(options, name) < 1:
            parser.error(f"{name} must be >= 1, got {getattr(options, name)}")
    if options.clock == "cpu":
        torch.set_num_threads(1)  # threads that wait for each other use up processor time
    print(describe_machine(torch.device("cpu"), torch.float32))
    sizes = f"{options.length} steps, {CHANNELS} channels, {STATES} states, batch {BATCH}"
    print(f"{sizes}; {options.rounds} interleaved rounds, {options.clock} time\n", flush=True)
    clock = CLOCKS[options.clock]
    met = print_sizes(options.length, options.rounds, options.slow_rounds, clock)
    return 0 if all([*met, print_growth(options.rounds, clock)]) else 1


if __name__ == "__main__":
    sys.exit(main())
