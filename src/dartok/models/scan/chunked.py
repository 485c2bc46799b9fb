"""The selective scan in plain PyTorch, forward and backward as one operator.

A chunk of steps at a time: what is parallel over its steps runs at once, on tensors that stay in
the processor's cache, and one fused multiply-add per step carries the state on. Only the states at
the chunks' ends are kept; the backward pass computes the others again, chunk by chunk.

States lie as (steps, batch, group, N, E): E, the longest axis, last.
"""

import math
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from dartok.core.precision import without_autocast

__all__ = ["MULTIPLY_ADDS_PER_STATE", "chunked_scan"]

MULTIPLY_ADDS_PER_STATE = 5
"""For cost tables: of each of the N x E states and step: `delta a`, its exponential, `(delta x) b`,
the update and the read-out count as one multiply-add each."""

_STEP_NUMBERS, _CHUNK_NUMBERS = 2**16, 2**19
"""States of one step, and of a chunk of steps, that are worked on together: large enough for a call
to pay, small enough for a few buffers of 2 MiB to stay in a cache."""

_LEAST_STEPS, _MOST_STEPS = 8, 64

_MOST_KEPT = 4 * _CHUNK_NUMBERS
"""Numbers of a buffer that is kept for the next scan: 8 MiB in float32."""


def chunked_scan(
    x: Float[Tensor, "B L G E"],
    delta: Float[Tensor, "B L G E"],
    a: Float[Tensor, "G E N"],
    b: Float[Tensor, "B L G N"],
    c: Float[Tensor, "B L G N"],
    skip: Float[Tensor, "G E"],
) -> Float[Tensor, "B L G E"]:
    """`reference_scan`, in one operator; all inputs of one dtype, float32 or float64.

    Differentiable once, in reverse mode, and not by `torch.func`. Memory for the backward pass: the
    inputs, and one state for each chunk of 8 to 64 steps.

    Example:
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> zero = torch.zeros(1, 1, 1)
        >>> chunked_scan(ones, ones, zero, ones, ones, torch.zeros(1, 1)).flatten()
        tensor([1., 2., 3.])
    """
    inputs = (x, delta, a, b, c, skip)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    y, _ = _scan(*inputs, keep)
    return y


class _Chunk(NamedTuple):
    """Some steps of all sequences, steps first."""

    steps: slice
    x: Float[Tensor, "K B G E"]
    delta: Float[Tensor, "K B G E"]
    b: Float[Tensor, "K B G N"]
    c: Float[Tensor, "K B G N"]

    def decay(
        self, halvings: Float[Tensor, "G N E"], out: Float[Tensor, "size B G N E"]
    ) -> Float[Tensor, "K B G N E"]:
        """`exp(delta a) = 2 ** (delta halvings)`, written into `out`."""
        return torch.mul(self.delta.unsqueeze(-2), halvings, out=out[: len(self.x)]).exp2_()

    def states(
        self, decay: Float[Tensor, "K B G N E"], out: Float[Tensor, "size+1 B G N E"]
    ) -> Float[Tensor, "K+1 B G N E"]:
        """The states after each step, written into `out` behind the one before the first."""
        out = out[: len(self.x) + 1]
        torch.mul((self.delta * self.x).unsqueeze(-2), self.b.unsqueeze(-1), out=out[1:])
        before, *after = out.unbind(0)
        for decay_of_step, state in zip(decay.unbind(0), after, strict=True):
            before = state.addcmul_(decay_of_step, before)
        return out

    def state_gradients(
        self,
        grad: Float[Tensor, "K B G E"],
        decay: Float[Tensor, "K B G N E"],
        later: Float[Tensor, "B G N E"],
        out: Float[Tensor, "size B G N E"],
    ) -> Float[Tensor, "K B G N E"]:
        """`g[l] = c[l] grad[l] + decay[l + 1] g[l + 1]`: the same recurrence, run backwards.

        `later` is what the next chunk adds to the last step.
        """
        out = torch.mul(grad.unsqueeze(-2), self.c.unsqueeze(-1), out=out[: len(self.x)])
        gradients, decays = out.unbind(0), decay.unbind(0)
        gradients[-1].add_(later)
        for step in range(len(gradients) - 2, -1, -1):
            gradients[step].addcmul_(decays[step + 1], gradients[step + 1])
        return out


class _Part(NamedTuple):
    """Some of the sequences, which are scanned by themselves, and how many steps at a time."""

    rows: slice
    num_steps: int

    def chunks(self, x: Tensor, delta: Tensor, b: Tensor, c: Tensor) -> list[_Chunk]:
        """All steps of these sequences, in order."""
        found = []
        for first in range(0, x.shape[1], self.num_steps):
            steps = slice(first, min(first + self.num_steps, x.shape[1]))
            parts = (tensor[self.rows, steps].transpose(0, 1) for tensor in (x, delta, b, c))
            found.append(_Chunk(steps, *parts))
        return found

    def buffer(
        self, name: str, x: Tensor, num_states: int, more: int = 0
    ) -> Float[Tensor, "K+more B G N E"]:
        """Room for the states of a chunk."""
        steps, rows = min(self.num_steps, x.shape[1]) + more, x[self.rows].shape[0]
        return _workspace.room(name, x, (steps, rows, x.shape[2], num_states, x.shape[3]))


class _Workspace(threading.local):
    """Memory that a thread keeps from one scan to the next.

    The first touch of fresh memory takes several times as long as the arithmetic on it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}

    def room(self, name: str, like: Tensor, shape: tuple[int, ...]) -> Tensor:
        """A tensor of that shape with anything in it, good until the name is asked for again."""
        count = math.prod(shape)
        if count > _MOST_KEPT:
            return like.new_empty(shape)
        key = (name, like.device, like.dtype)
        kept = self._kept.get(key)
        if kept is None or kept.numel() < count:
            with torch.inference_mode(False):  # else it could not be written outside of that mode
                kept = self._kept[key] = torch.empty(count, device=like.device, dtype=like.dtype)
        return kept[:count].view(shape)


_workspace = _Workspace()


def _parts(x: Tensor, num_states: int) -> list[_Part]:
    batch = x.shape[0]
    num_rows, num_steps = _rows_and_steps(x, num_states)
    starts = range(0, batch, num_rows)
    return [_Part(slice(first, min(first + num_rows, batch)), num_steps) for first in starts]


def _rows_and_steps(x: Tensor, num_states: int) -> tuple[int, int]:
    """Sequences of a part and steps of a chunk.

    From shapes alone, so that the backward pass finds the same; not from the length, which a
    compiler may leave open.
    """
    of_one = max(1, x.shape[2] * x.shape[3] * num_states)
    num_rows = max(1, _STEP_NUMBERS // of_one)
    fitting = _CHUNK_NUMBERS // max(1, min(num_rows, x.shape[0]) * of_one)
    return num_rows, min(max(fitting, _LEAST_STEPS), _MOST_STEPS)


def _num_chunks(x: Tensor, num_states: int) -> int:
    return -(-x.shape[1] // _rows_and_steps(x, num_states)[1])


def _over_channels(
    states: Float[Tensor, "K B G N E"], weights: Float[Tensor, "K B G E"]
) -> Float[Tensor, "K B G N"]:
    """Sum over E. The vector goes first: the other order takes ten times as long on the CPU."""
    return (weights.unsqueeze(-2) @ states.transpose(-1, -2)).squeeze(-2)


def _states_first(a: Float[Tensor, "G E N"]) -> Float[Tensor, "G N E"]:
    return a.transpose(1, 2).contiguous()


def _halvings(rates: Tensor) -> Tensor:
    """Rates to the base of 2: on the CPU `exp2` takes a quarter of the time of `exp`."""
    return rates / math.log(2)


def _room(x: Tensor, count: int, num_states: int) -> Float[Tensor, "count B G N E"]:
    batch, _, groups, width = x.shape
    return x.new_empty(count, batch, groups, num_states, width)


@torch.library.custom_op("dartok::selective_scan", mutates_args=())
def _scan(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    """The outputs, and the states before each chunk if they are to be kept."""
    num_states = b.shape[-1]
    kept = _room(x, _num_chunks(x, num_states) if keep else 0, num_states)
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    halvings = _halvings(_states_first(a))
    with without_autocast(x):
        for part in _parts(x, num_states):
            decays = part.buffer("decays", x, num_states)
            states = part.buffer("states", x, num_states, 1)
            states[0] = 0
            for index, chunk in enumerate(part.chunks(x, delta, b, c)):
                if keep:
                    kept[index, part.rows] = states[0]
                found = chunk.states(chunk.decay(halvings, decays), states)
                read = (chunk.c.unsqueeze(-2) @ found[1:]).squeeze(-2)
                y[part.rows, chunk.steps] = read.transpose(0, 1)
                states[0] = found[-1]
    return y.addcmul_(x, skip), kept


@_scan.register_fake
def _scan_shapes(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    return y, _room(x, _num_chunks(x, b.shape[-1]) if keep else 0, b.shape[-1])


class _Gradients(NamedTuple):
    """Of the inputs of some sequences, filled chunk by chunk; of the rates, of all together."""

    x: Float[Tensor, "B L G E"]
    delta: Float[Tensor, "B L G E"]
    rates: Float[Tensor, "G N E"]
    b: Float[Tensor, "B L G N"]
    c: Float[Tensor, "B L G N"]

    def fill(
        self,
        chunk: _Chunk,
        grad: Float[Tensor, "K B G E"],
        rates: Float[Tensor, "G N E"],
        decay: Float[Tensor, "K B G N E"],
        states: Float[Tensor, "K+1 B G N E"],
        outer: Float[Tensor, "K B G N E"],
    ) -> None:
        """The gradients of one chunk's inputs from those of its states, `outer`.

        `decay` and `outer` are written over: fresh memory would cost more than the arithmetic.
        """
        entering = (chunk.b.unsqueeze(-2) @ outer).squeeze(-2)
        self.x[:, chunk.steps] = (chunk.delta * entering).transpose(0, 1)
        self.b[:, chunk.steps] = _over_channels(outer, chunk.delta * chunk.x).transpose(0, 1)
        self.c[:, chunk.steps] = _over_channels(states[1:], grad).transpose(0, 1)
        exponents = outer.mul_(decay).mul_(states[:-1])
        self.rates.add_(torch.mul(exponents, chunk.delta.unsqueeze(-2), out=decay).sum((0, 1)))
        of_delta = exponents.mul_(rates).sum(-2).addcmul_(chunk.x, entering)
        self.delta[:, chunk.steps] = of_delta.transpose(0, 1)


@torch.library.custom_op("dartok::selective_scan_backward", mutates_args=())
def _scan_backward(
    grad: Tensor, x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `x` (but for the skip), `delta`, `a`, `b` and `c`."""
    rates = _states_first(a)
    halvings, of_rates = _halvings(rates), torch.zeros_like(rates)
    of_x, of_delta, of_b, of_c = _empty(x, delta, b, c)
    with without_autocast(x):
        for part in _parts(x, b.shape[-1]):
            some = [tensor[part.rows] for tensor in (of_x, of_delta, of_b, of_c)]
            found = _Gradients(some[0], some[1], of_rates, some[2], some[3])
            decays, outers = (part.buffer(name, x, b.shape[-1]) for name in ("decays", "outers"))
            states = part.buffer("states", x, b.shape[-1], 1)
            later = torch.zeros_like(states[0])
            chunks = part.chunks(x, delta, b, c)
            for chunk, before in zip(reversed(chunks), reversed(kept.unbind(0)), strict=True):
                states[0] = before[part.rows]
                of_chunk = grad[part.rows, chunk.steps].transpose(0, 1)
                decay = chunk.decay(halvings, decays)
                after = chunk.states(decay, states)
                outer = chunk.state_gradients(of_chunk, decay, later, outers)
                torch.mul(decay[0], outer[0], out=later)
                found.fill(chunk, of_chunk, rates, decay, after, outer)
    return of_x, of_delta, of_rates.transpose(1, 2).contiguous(), of_b, of_c


@_scan_backward.register_fake
def _scan_backward_shapes(
    grad: Tensor, x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_x, of_delta, of_a, of_b, of_c = _empty(x, delta, a, b, c)
    return of_x, of_delta, of_a, of_b, of_c


def _empty(*like: Tensor) -> Iterator[Tensor]:
    return (torch.empty_like(t, memory_format=torch.contiguous_format) for t in like)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    x, delta, a, b, c, skip, kept = ctx.saved_tensors
    of_x, *others = _scan_backward(grad, x, delta, a, b, c, kept)
    return torch.addcmul(of_x, grad, skip), *others, (grad * x).sum((0, 1)), None


_scan.register_autograd(_backward, setup_context=_setup)


@register_flop_formula(torch.ops.dartok.selective_scan)
def _scan_flops(x: torch.Size, delta: torch.Size, a: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * MULTIPLY_ADDS_PER_STATE * x[0] * x[1] * a.numel()
