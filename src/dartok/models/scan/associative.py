"""The selective scan without a loop over its steps: for graphs, and where each call is slow.

A step takes a state `s` to `decay s + entering`, and so do several in a row, whose decays multiply:
`(d2, e2) after (d1, e1) = (d2 d1, d2 e1 + e2)`. So the steps are cut into blocks of 16, which run
side by side, at first from states of 0. What each block does to a state is one step of a shorter
scan, done likewise; and from the states that it finds the blocks run again.
"""

from collections.abc import Iterator, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["associative_scan"]

_BLOCK = 16
_OPEN_LEVELS = 4  # in a graph of any length; the last of 32: for 131,072 steps


def associative_scan(
    x: Float[Tensor, "B L G E"],
    delta: Float[Tensor, "B L G E"],
    a: Float[Tensor, "G E N"],
    b: Float[Tensor, "B L G N"],
    c: Float[Tensor, "B L G N"],
    skip: Float[Tensor, "G E"],
) -> Float[Tensor, "B L G E"]:
    """`reference_scan`, in some hundred operators; all inputs of one dtype, float32 or float64.

    Differentiable any number of times. Memory: two numbers for each step and state, ten with the
    backward pass. Decays are exponentials of sums of `delta a` and never divided by, so nothing
    overflows where those are `<= 0`. A graph that leaves the length open is right up to 131,072
    steps, and not beyond.

    Source: Blelloch, Prefix sums and their applications, CMU-CS-90-190: recurrence equations.

    Example:
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> zero = torch.zeros(1, 1, 1)
        >>> associative_scan(ones, ones, zero, ones, ones, torch.zeros(1, 1)).flatten()
        tensor([1., 2., 3.])
    """
    length = x.shape[1]
    levels = _levels(length)
    moved, of_step, entered, read = (_in_blocks(t, levels[0]) for t in (delta * x, delta, b, c))
    rates = a.transpose(1, 2)
    decay = _decay(of_step, rates)  # its exponent is gone before what enters needs room
    entering = moved.unsqueeze(-2) * entered.unsqueeze(-1)
    states = _states(of_step, decay, entering, rates, levels[1:])
    reads = read.unsqueeze(-1).split(1, dim=2)
    outputs = [(state * one).sum(-2) for state, one in zip(states, reads, strict=True)]
    return _fitted(_in_line(outputs), length) + skip * x


class _Level(NamedTuple):
    """How steps, or the blocks of the level below, are cut into blocks."""

    num_blocks: int
    size: int


def _levels(length: int) -> list[_Level]:
    """Blocks, blocks of blocks and so on, up to a single one.

    Where the length is open there is one block to spare, since exporters set an axis of 1 apart.
    """
    if _is_open(length):
        spans = (_BLOCK**power for power in range(1, _OPEN_LEVELS))
        below = [_Level((length + 2 * span - 1) // span, _BLOCK) for span in spans]
        return [*below, _Level(1, 2 * _BLOCK)]
    levels = []
    while length > _BLOCK:
        num_blocks = -(-length // _BLOCK)
        levels.append(_Level(num_blocks, _BLOCK))
        length = num_blocks
    return [*levels, _Level(1, length)]


def _is_open(length: int | Tensor) -> bool:
    """Whether a graph is being recorded that leaves the length open."""
    if isinstance(length, Tensor):  # so torch.jit.trace counts
        return True
    if not torch.compiler.is_compiling():
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value  # loads a computer algebra

    return not has_static_value(length)


def _decay(
    delta: Float[Tensor, "B K S G E"], rates: Float[Tensor, "G N E"]
) -> Float[Tensor, "B K S G N E"]:
    return torch.exp(delta.unsqueeze(-2) * rates)


def _states(
    delta: Float[Tensor, "B K S G E"],
    decay: Float[Tensor, "B K S G N E"],
    entering: Float[Tensor, "B K S G N E"],
    rates: Float[Tensor, "G N E"],
    above: Sequence[_Level],
) -> Iterator[Float[Tensor, "B K 1 G N E"]]:
    """The states after the first step of each of K blocks, the second and so on."""
    steps = list(zip(decay.split(1, dim=2), entering.split(1, dim=2), strict=True))
    before = torch.zeros_like(steps[0][1])
    if above:
        ends = reduce(_after, steps, before).squeeze(2)
        before = _before(delta.sum(2), ends, rates, above).unsqueeze(2)
    for step in steps:
        before = _after(before, step)
        yield before


def _after(state: Tensor, step: tuple[Tensor, Tensor]) -> Tensor:
    decay, entering = step
    return torch.addcmul(entering, decay, state)


def _before(
    delta: Float[Tensor, "B K G E"],
    ends: Float[Tensor, "B K G N E"],
    rates: Float[Tensor, "G N E"],
    levels: Sequence[_Level],
) -> Float[Tensor, "B K G N E"]:
    """The states before each of K blocks, in which `delta` passes and of which `ends` remain."""
    level, *above = levels
    delta = _in_blocks(delta, level)
    after = _states(delta, _decay(delta, rates), _in_blocks(ends, level), rates, above)
    return _fitted(_in_line(list(after)), ends.shape[1], first=1)


def _in_blocks(values: Float[Tensor, "B L *rest"], level: _Level) -> Float[Tensor, "B K S *rest"]:
    """Steps in blocks. What fills the last blocks comes after every step: it changes none."""
    return _fitted(values, level.num_blocks * level.size).unflatten(1, level)


def _in_line(parts: Sequence[Float[Tensor, "B K 1 *rest"]]) -> Float[Tensor, "B K*S *rest"]:
    """The steps of blocks, given as their first steps, their second and so on."""
    return torch.cat(list(parts), dim=2).flatten(1, 2)


def _fitted(values: Float[Tensor, "B L *rest"], length: int, *, first: int = 0) -> Tensor:
    """Steps behind `first` of zeros, cut off or filled with zeros to `length`.

    `pad` does both without asking which, as a graph of open length must.
    """
    missing = length - values.shape[1] - first
    return F.pad(values, (0, 0) * (values.ndim - 2) + (first, missing))
