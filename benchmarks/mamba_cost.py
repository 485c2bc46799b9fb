"""Parameters and multiply-adds of Vision Mamba with DART, beside the authors' README.

    python benchmarks/mamba_cost.py

One picture of 448 px, scored at 224 px as in the authors' table. What a selective scan costs is a
convention, and three are in use:

    all         every matrix product and convolution, and 5 for each of the N states of a channel,
                step and direction: delta a, its exponential, (delta x) b, the update, the read-out
    Vim's       the same but the projections to and from the step sizes and states (x_proj,
                dt_proj), which its fused kernel hides; 9 for each state, and 2 for each channel
                (skip and gate)
    VideoMamba's  neither those projections nor the scan

The README's rows of Vim follow the second, those of VideoMamba the third. Exits with 1 if a row
is more than 3 % from the README by its own convention, or Vim's by ours.
"""

import sys
import warnings
from typing import Any, NamedTuple

import torch
from torch import nn

import dartok
from dartok.bench.cost import measure_cost
from dartok.bench.machine import describe_machine
from dartok.models.mamba.vim import Vim
from dartok.models.scan.chunked import MULTIPLY_ADDS_PER_STATE
from dartok.scorers.build import build_scorer

IMAGE_PX, SCORE_PX = 448, 224
TOLERANCE = 0.03


class Row(NamedTuple):
    """A line of the authors' README."""

    name: str
    num_tokens: int
    parameters_m: float
    multiply_adds_g: float


ROWS = (
    Row("darvim_tiny", 196, 8, 1.68),
    Row("darvim_tiny_2seq", 392, 8, 3.29),
    Row("darvim_sm", 196, 29, 5.55),
    Row("darvim_sm_2seq", 392, 29, 10.9),
    Row("videomamba_tiny", 196, 8, 1.15),
    Row("videomamba_tiny", 392, 8, 2.24),
)


def build(row: Row) -> Vim:
    """The model of a row; VideoMamba has the tokenizer of the authors' Vim of its width."""
    if row.name.startswith("darvim"):
        model: nn.Module = dartok.create_model(row.name, score_size=SCORE_PX)
    else:
        scorer = build_scorer(
            "mobilenetv3_small_v2", weights=None, num_channels=3, side_px=SCORE_PX
        )
        host = dartok.create_model(row.name)
        model = dartok.adapt(host, num_tokens=row.num_tokens, scorer=scorer, strength=1.0)
    assert isinstance(model, Vim)
    return model.eval()


def by_convention(model: Vim, num_tokens: int) -> dict[str, float]:
    """Multiply-adds of one picture, in 1e9, by each of the three conventions."""
    mixer: Any = model.layers[0].mixer
    channels, states = mixer.A_log.shape
    steps = 2 * len(model.layers) * (num_tokens + 1)  # both directions, the class token
    scan = steps * channels * states * MULTIPLY_ADDS_PER_STATE
    hidden = steps * sum(m.weight.numel() for m in (mixer.x_proj, mixer.dt_proj))
    everything = measure_cost(model, (IMAGE_PX, IMAGE_PX)).multiply_adds
    seen = everything - scan - hidden
    vim = seen + steps * channels * (9 * states + 2)
    return {"all": everything / 1e9, "Vim's": vim / 1e9, "VideoMamba's": seen / 1e9}


def print_row(row: Row) -> bool:
    """One line of the table; whether it is within the tolerance."""
    model = build(row)
    parameters = measure_cost(model, (IMAGE_PX, IMAGE_PX)).parameters / 1e6
    found = by_convention(model, row.num_tokens)
    off = {name: value / row.multiply_adds_g - 1 for name, value in found.items()}
    figures = "".join(f"{found[name]:>9.3f}{off[name]:>+8.1%}" for name in found)
    readme = f"{row.parameters_m:g} M, {row.multiply_adds_g:g} G"
    print(f"{row.name:<18}{row.num_tokens:>4}{parameters:>8.2f}{figures}   {readme}")
    same_size = round(parameters) == row.parameters_m
    theirs = ("all", "Vim's") if row.name.startswith("darvim") else ("VideoMamba's",)
    return same_size and all(abs(off[name]) <= TOLERANCE for name in theirs)


def main() -> int:
    """Count, print, and return the exit code."""
    warnings.filterwarnings("ignore", category=UserWarning)  # random weights, batch statistics
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(f"one picture of {IMAGE_PX} px, scored at {SCORE_PX} px\n")
    print(f"{'':<18}{'':>4}{'param.':>8}{'multiply-adds, G, by the convention of':>51}")
    heads = f"{'all':>17}{'Vim':>17}{'VideoMamba':>17}"
    print(f"{'model':<16}{'tokens':>6}{'M':>8}{heads}   README")
    met = True
    for row in ROWS:
        met &= print_row(row)
    print(f"\nwithin {TOLERANCE:.0%} of the README: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
