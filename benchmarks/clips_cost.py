"""Time and memory of a clip, against its frames and its tokens.

    python benchmarks/clips_cost.py --hosts videomamba_tiny_video vit_tiny_patch16_224

Each host is adapted to clips with a score net of motion, and reads one clip of random pictures at a
time. For every number of frames and of tokens, the forward passes of all budgets take turns; memory
is the most that a fresh process (a GPU: its allocator) uses beyond what it held before the pass. On
the CPU that is told by Linux alone.
Prints a table for each host, and by what power of N time and memory grow over the last doublings;
exits with 1 if those of a Mamba host are not linear in N, by which a power of at most 1.1 is meant.
"""

import argparse
import ctypes
import math
import multiprocessing
import sys
import warnings
from functools import partial
from pathlib import Path

import timm
import torch
from torch import nn

import dartok
from dartok.bench.machine import describe_machine
from dartok.bench.timing import time_interleaved

LARGEST_POWER = 1.1
MIB = 2**20


def build(host: str, num_frames: int, num_tokens: int) -> nn.Module:
    """The adapted model, in eval mode."""
    if host in dartok.list_models():
        encoder: nn.Module = dartok.create_model(host, num_frames=num_frames)
        frames = None
    else:
        encoder, frames = timm.create_model(host), num_frames
    return dartok.adapt(
        encoder, num_frames=frames, num_tokens=num_tokens, scorer="motion/conv", strength=1.0
    ).eval()


@torch.inference_mode()
def memory_mib(host: str, num_frames: int, num_tokens: int, side_px: int, device: str) -> float:
    """Most memory of a forward pass beyond that of the model and the clip."""
    warnings.simplefilter("ignore")
    model = build(host, num_frames, num_tokens).to(device)
    clip = torch.randn(1, num_frames, 3, side_px, side_px, device=device)
    model(clip[:, :2, :, :32, :32])  # what libraries allocate once
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        model(clip)
        return (torch.cuda.max_memory_allocated() - before) / MIB
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed while the model was made
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is what is held now
    held = _most_kib()
    model(clip)
    return (_most_kib() - held) / 1024


def _most_kib() -> float:
    """Most memory that this process has held, as Linux tells it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def seconds(host: str, num_frames: int, options: argparse.Namespace) -> list[float]:
    """Median time of a forward pass at each number of tokens."""
    model = build(host, num_frames, options.num_tokens[0]).to(options.device)
    clip = torch.randn(1, num_frames, 3, options.side_px, options.side_px, device=options.device)

    def forward(num_tokens: int) -> None:
        dartok.set_num_tokens(model, num_tokens)
        model(clip)

    calls = {str(n): partial(forward, n) for n in options.num_tokens}
    wait = torch.cuda.synchronize if options.device != "cpu" else (lambda: None)
    with torch.inference_mode():
        timings = time_interleaved(calls, rounds=options.rounds, synchronise=wait)
    return [timings[name].median_s for name in calls]


def power(values: list[float], tokens: list[int]) -> float:
    """Of N, between the first and the last of some values."""
    return math.log(values[-1] / values[0]) / math.log(tokens[-1] / tokens[0])


def measure(host: str, options: argparse.Namespace) -> bool:
    """Print the table of a host; whether it is linear in N, over the last two doublings."""
    print(f"{host}: seconds per clip / MiB beyond model and clip", flush=True)
    print("frames" + "".join(f"{n:>16}" for n in options.num_tokens) + "   powers of N")
    linear = True
    for frames in options.num_frames:
        times = seconds(host, frames, options)
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            jobs = [(host, frames, n, options.side_px, options.device) for n in options.num_tokens]
            memory = pool.starmap(memory_mib, jobs, chunksize=1)
        powers = [power(values[-3:], options.num_tokens[-3:]) for values in (times, memory)]
        linear &= powers[0] <= LARGEST_POWER and powers[1] <= LARGEST_POWER
        cells = (f"{s:>7.2f} /{m:>7.0f}" for s, m in zip(times, memory, strict=True))
        shown = ", ".join(f"{value:.2f}" for value in powers)
        print(f"{frames:>6}" + "".join(f"{cell:>16}" for cell in cells) + f"   {shown}", flush=True)
    return linear


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    hosts = ["videomamba_tiny_video", "vit_tiny_patch16_224"]
    parser.add_argument("--hosts", nargs="+", default=hosts, help="ours, or timm's ViTs")
    parser.add_argument("--num-frames", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--num-tokens", type=int, nargs="+", default=[196, 392, 784, 1568, 3136])
    parser.add_argument("--side-px", type=int, default=224, help="of the frames (224)")
    parser.add_argument("--rounds", type=int, default=5, help="forward passes of each (5)")
    parser.add_argument("--device", default="cpu", help="such as cuda")
    return parser.parse_args()


def main() -> int:
    """Measure all hosts, and return the exit code."""
    options = parse()
    warnings.filterwarnings("ignore", category=UserWarning)
    print(describe_machine(torch.device(options.device), torch.float32))
    linear = {host: measure(host, options) for host in options.hosts}
    of_mamba = [found for host, found in linear.items() if "mamba" in host]
    print(f"Mamba hosts linear in N: {'met' if all(of_mamba) else 'NOT met'}")
    return 0 if all(of_mamba) else 1


if __name__ == "__main__":
    sys.exit(main())
