"""Parameters and multiply-adds of the authors' models, beside what their code and table say.

    python benchmarks/cost_table.py

One picture of 448 px, scored at 224 px as in the authors' table. Multiply-adds are half of what
PyTorch's `FlopCounterMode` counts: matrix products, convolutions and attention. Exits with 1 if a
figure is more than 1 % from that of the authors' code.
"""

import sys
import warnings
from typing import NamedTuple

import torch

import dartok
from dartok.bench.cost import measure_cost
from dartok.bench.machine import describe_machine

IMAGE_PX, SCORE_PX = 448, 224
TOLERANCE = 0.01


class Authors(NamedTuple):
    """What the authors' code counts, where it was counted, and what their table rounds it to."""

    parameters_m: float
    multiply_adds_g: float
    table: str


ROWS: dict[str, Authors | None] = {
    "darvit_tiny": Authors(6.30, 1.317, "7 M, 1.32 G"),
    "darvit_tiny_v2": Authors(6.76, 1.326, ""),
    "darvit_tiny_121p": None,
    "darvit_sm": Authors(24.10, 4.83, "24 M, 4.84 G"),
    "darvit_sm_144p": None,
    "darvit_sm_288p": None,
    "darvit_sm_392p": Authors(24.10, 10.15, "24 M, 10.1 G"),
}


def compared(ours: float, theirs: float | None, style: str) -> str:
    """Our figure, theirs, and how far ours is from theirs."""
    if theirs is None:
        return f"{ours:>10{style}}{'':>17}"
    return f"{ours:>10{style}}{theirs:>9{style}}{ours / theirs - 1:>+8.2%}"


def print_row(name: str, authors: Authors | None) -> bool:
    """One line of the table; whether it is within the tolerance."""
    model = dartok.create_model(name, score_size=SCORE_PX)
    cost = measure_cost(model, (IMAGE_PX, IMAGE_PX))
    ours = (cost.parameters / 1e6, cost.multiply_adds / 1e9)
    theirs = (None, None) if authors is None else authors[:2]
    figures = compared(ours[0], theirs[0], ".2f") + compared(ours[1], theirs[1], ".3f")
    table = "" if authors is None else authors.table
    print(f"{name:<18}{model.patch_embed.num_tokens:>6}{figures}   {table}".rstrip())
    return authors is None or all(
        abs(mine / other - 1) <= TOLERANCE for mine, other in zip(ours, authors[:2], strict=True)
    )


def main() -> int:
    """Count, print, and return the exit code."""
    warnings.filterwarnings("ignore", category=UserWarning)  # random weights, batch statistics
    print(describe_machine(torch.device("cpu"), torch.float32))
    print(f"one picture of {IMAGE_PX} px, scored at {SCORE_PX} px\n")
    print(f"{'':<24}{'parameters, M':>27}{'multiply-adds, G':>27}   authors'")
    print(f"{'model':<18}{'tokens':>6}" + 2 * f"{'dartok':>10}{'authors':>9}{'':>8}" + "   table")
    met = True
    for name, authors in ROWS.items():
        met &= print_row(name, authors)
    print(f"\nall within {TOLERANCE:.0%} of the authors' code: {'met' if met else 'NOT MET'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
