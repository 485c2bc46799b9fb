"""The selective scan as a kernel for CUDA, forward and backward as one operator.

One program takes one sequence, one group and `_BLOCK_E` channels through all steps, its states in
registers. Of these only the ones before each chunk are kept; the backward pass computes the others
again, chunk by chunk, into a buffer that it then reads from the end. Sums over several programs are
left to PyTorch, in a fixed order: the same inputs always give the same gradients.

States lie as (N, E): E, the axis along which memory is read, last.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from dartok.models.scan.chunked import MULTIPLY_ADDS_PER_STATE

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError(
        "scan kind='triton' needs triton: it comes with PyTorch for CUDA; use kind='associative'"
    ) from error

__all__ = ["triton_is_available", "triton_scan"]

_BLOCK_E = tl.constexpr(32)
"""Channels of one program: those of one warp, whose loads are then whole cache lines."""

_STATES_PER_THREAD = 16
"""Of the backward pass, which holds some six such sets: twice that fills the registers."""

_MOST_STATES = 256

_STAGES = tl.constexpr(3)
"""A step is computed while the inputs of the next two are on their way."""

_function: Callable[[Callable[..., Any]], Any] = triton.jit
_kernel: Callable[[Callable[..., Any]], Any] = triton.jit(do_not_specialize=["length", "size"])


def triton_is_available(device: torch.device) -> bool:
    """Whether `triton_scan` can run on the device.

    Example:
        >>> triton_is_available(torch.device("cpu"))
        False
    """
    return device.type == "cuda" and importlib.util.find_spec("triton") is not None


def triton_scan(
    x: Float[Tensor, "B L G E"],
    delta: Float[Tensor, "B L G E"],
    a: Float[Tensor, "G E N"],
    b: Float[Tensor, "B L G N"],
    c: Float[Tensor, "B L G N"],
    skip: Float[Tensor, "G E"],
) -> Float[Tensor, "B L G E"]:
    """`reference_scan` on a CUDA device; inputs of float32, bfloat16 or float16, also mixed.

    Computed in float32; outputs and gradients are rounded to the dtype of what they belong to.
    Differentiable once, in reverse mode, and the same in each run. Memory for the backward pass:
    the inputs, about `2 sqrt(L)` states of each sequence (beyond 4,096 steps `64 + L / 64`), and `N
    / 16` times x.

    Raises:
        ValueError: If a tensor is on another device or float64, or if `N > 256`.
    Example:
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> zero = torch.zeros(1, 1, 1)
        >>> triton_scan(ones, ones, zero, ones, ones, torch.zeros(1, 1))
        Traceback (most recent call last):
        ValueError: scan kind='triton' needs CUDA tensors, got cpu: use kind='associative'
    """
    inputs = (x, delta, a, b, c, skip)
    _refuse(*inputs)
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
    y, _ = _scan(*inputs, keep)
    return y


def _refuse(*inputs: Tensor) -> None:
    for tensor in inputs:
        if not (tensor.is_cuda or _IS_INTERPRETED):
            raise ValueError(
                "scan kind='triton' needs CUDA tensors, "
                f"got {tensor.device.type}: use kind='associative'"
            )
        if tensor.dtype == torch.float64:
            raise ValueError(
                "scan kind='triton' computes in float32, got float64: use kind='associative'"
            )
    num_states = inputs[2].shape[-1]
    if num_states > _MOST_STATES:
        raise ValueError(f"scan kind='triton' needs N <= {_MOST_STATES} states, got {num_states}")


def _chunk_size(length: int) -> int:
    """Steps per chunk, near the root of the length: kept and buffered states together are few."""
    return next((size for size in (8, 16, 32) if size * size >= length), 64)


@_function
def _load(pointers: tl.tensor, mask: tl.tensor) -> tl.tensor:
    return tl.load(pointers, mask=mask, other=0.0).to(tl.float32)


@_function
def _store(pointers: tl.tensor, values: tl.tensor, mask: tl.tensor) -> None:
    tl.store(pointers, values.to(pointers.dtype.element_ty), mask=mask)


@_function
def _place(
    length: tl.tensor, width: tl.tensor, num_states: tl.tensor, block_n: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Of a program: its number, its first row, its places in `n`, `e` and both, and which exist."""
    sequence, group, groups = tl.program_id(0), tl.program_id(1), tl.num_programs(1).to(tl.int64)
    n = tl.arange(0, block_n)
    e = tl.program_id(2) * _BLOCK_E + tl.arange(0, _BLOCK_E)
    in_n, in_e = n < num_states, e < width
    return (
        sequence * groups + group,
        sequence * groups * length + group,
        n,
        e,
        n[:, None] * width + e[None, :],
        (in_n, in_e, in_n[:, None] & in_e[None, :]),
    )


@_function
def _step(
    inputs: tl.tuple, rates: tl.tensor, at_n: tl.tensor, at_e: tl.tensor, exist: tl.tuple
) -> tuple[tl.tensor, ...]:
    """`x`, `delta` and `b` of a step, how the state decays in it and what enters the state."""
    x, delta = _load(inputs[0] + at_e, exist[1]), _load(inputs[1] + at_e, exist[1])
    b = _load(inputs[2] + at_n, exist[0])
    return x, delta, b, tl.exp(delta[None, :] * rates), (delta * x)[None, :] * b[:, None]


@_kernel
def _forward_kernel(
    x_ptr: tl.tensor,
    delta_ptr: tl.tensor,
    rates_ptr: tl.tensor,
    b_ptr: tl.tensor,
    c_ptr: tl.tensor,
    skip_ptr: tl.tensor,
    y_ptr: tl.tensor,
    kept_ptr: tl.tensor,
    length: tl.tensor,
    size: tl.tensor,
    width: tl.tensor,
    num_states: tl.tensor,
    keep: tl.constexpr,
    block_n: tl.constexpr,
) -> None:
    program, row, n, e, tile, exist = _place(length, width, num_states, block_n)
    group, groups, numbers = tl.program_id(1), tl.num_programs(1), num_states * width
    inputs = (x_ptr, delta_ptr, b_ptr)
    rates = _load(rates_ptr + group * numbers + tile, exist[2])
    skip = _load(skip_ptr + group * width + e, exist[1])
    state = tl.zeros_like(rates)
    for first in range(0, length, size):
        if keep:
            kept = (program * tl.cdiv(length, size) + first // size) * numbers
            tl.store(kept_ptr + kept + tile, state, mask=exist[2])
        for step in tl.range(first, tl.minimum(first + size, length), num_stages=_STAGES):
            index = row + step * groups
            at_n, at_e = index * num_states + n, index * width + e
            x, _, _, decay, entering = _step(inputs, rates, at_n, at_e, exist)
            c = _load(c_ptr + at_n, exist[0])
            state = decay * state + entering
            _store(y_ptr + at_e, tl.sum(state * c[:, None], axis=0) + skip * x, exist[1])


@_function
def _step_back(
    inputs: tl.tuple,
    outputs: tl.tuple,
    rates: tl.tensor,
    skip: tl.tensor,
    before: tl.tensor,
    later: tl.tensor,
    at: tl.tuple,
    exist: tl.tuple,
) -> tuple[tl.tensor, ...]:
    """Store the gradients of a step's inputs.

    `before` is the state before the step, `later` what the next step adds to the gradient of the
    state after it. Returns what this step adds to that of `before`, to `rates` and to `skip`.
    """
    x, delta, b, decay, entering = _step(inputs, rates, at[0], at[1], exist)
    c, grad = _load(inputs[3] + at[0], exist[0]), _load(inputs[4] + at[1], exist[1])
    outer = grad[None, :] * c[:, None] + later
    into, further = tl.sum(outer * b[:, None], axis=0), outer * decay
    exponents = further * before
    of_b = tl.sum(outer * (delta * x)[None, :], axis=1)
    of_c = tl.sum((decay * before + entering) * grad[None, :], axis=1)
    _store(outputs[0] + at[1], delta * into + skip * grad, exist[1])
    _store(outputs[1] + at[1], tl.sum(exponents * rates, axis=0) + x * into, exist[1])
    _store(outputs[2] + at[2], of_b, exist[0])
    _store(outputs[3] + at[2], of_c, exist[0])
    return further, exponents * delta[None, :], grad * x


@_kernel
def _backward_kernel(
    x_ptr: tl.tensor,
    delta_ptr: tl.tensor,
    rates_ptr: tl.tensor,
    b_ptr: tl.tensor,
    c_ptr: tl.tensor,
    skip_ptr: tl.tensor,
    grad_ptr: tl.tensor,
    kept_ptr: tl.tensor,
    buffer_ptr: tl.tensor,
    of_x_ptr: tl.tensor,
    of_delta_ptr: tl.tensor,
    of_rates_ptr: tl.tensor,
    of_b_ptr: tl.tensor,
    of_c_ptr: tl.tensor,
    of_skip_ptr: tl.tensor,
    length: tl.tensor,
    size: tl.tensor,
    width: tl.tensor,
    num_states: tl.tensor,
    block_n: tl.constexpr,
) -> None:
    program, row, n, e, tile, exist = _place(length, width, num_states, block_n)
    group, groups, numbers = tl.program_id(1), tl.num_programs(1), num_states * width
    inputs = (x_ptr, delta_ptr, b_ptr, c_ptr, grad_ptr)
    outputs = (of_x_ptr, of_delta_ptr, of_b_ptr, of_c_ptr)
    rates = _load(rates_ptr + group * numbers + tile, exist[2])
    skip = _load(skip_ptr + group * width + e, exist[1])
    later, of_rates, of_skip = tl.zeros_like(rates), tl.zeros_like(rates), tl.zeros_like(skip)
    states, num_chunks = buffer_ptr + program * size * numbers + tile, tl.cdiv(length, size)
    for chunk in range(num_chunks - 1, -1, -1):
        first, last = chunk * size, tl.minimum((chunk + 1) * size, length)
        state = _load(kept_ptr + (program * num_chunks + chunk) * numbers + tile, exist[2])
        for step in tl.range(first, last, num_stages=_STAGES):
            tl.store(states + (step - first) * numbers, state, mask=exist[2])
            index = row + step * groups
            at_n, at_e = index * num_states + n, index * width + e
            _, _, _, decay, entering = _step(inputs, rates, at_n, at_e, exist)
            state = decay * state + entering
        tl.debug_barrier()  # what is read next, other threads may have written
        for step in tl.range(last - 1, first - 1, -1, num_stages=_STAGES):
            index = row + step * groups
            part = index * tl.num_programs(2) + tl.program_id(2)
            at = (index * num_states + n, index * width + e, part * num_states + n)
            before = _load(states + (step - first) * numbers, exist[2])
            later, more, skips = _step_back(inputs, outputs, rates, skip, before, later, at, exist)
            of_rates, of_skip = of_rates + more, of_skip + skips
        tl.debug_barrier()
    tl.store(of_rates_ptr + program * numbers + tile, of_rates, mask=exist[2])
    tl.store(of_skip_ptr + program * width + e, of_skip, mask=exist[1])


_IS_INTERPRETED = not isinstance(_forward_kernel, triton.JITFunction)


def _launch(x: Tensor, b: Tensor) -> tuple[tuple[int, int, int], dict[str, int]]:
    """The programs of a kernel, and its constants."""
    block_n = triton.next_power_of_2(b.shape[-1])
    warps = max(1, block_n // _STATES_PER_THREAD)
    constants = {"block_n": block_n, "num_warps": warps, "enable_fp_fusion": True}
    return (x.shape[0], x.shape[2], _num_blocks(x)), constants


def _num_blocks(x: Tensor) -> int:
    return -(-x.shape[3] // _BLOCK_E.value)


def _states(x: Tensor, b: Tensor, count: int) -> Float[Tensor, "B G count N E"]:
    """Room for some states of each sequence."""
    batch, _, groups, width = x.shape
    return x.new_empty(batch, groups, count, b.shape[-1], width, dtype=torch.float32)


@torch.library.custom_op("dartok::selective_scan_triton", mutates_args=())
def _scan(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    """The outputs, and the states before each chunk if they are to be kept."""
    y, kept = _scan_shapes(x, delta, a, b, c, skip, keep)
    read = (t.contiguous() for t in (x, delta, a.transpose(1, 2), b, c, skip))
    length, size = x.shape[1], _chunk_size(x.shape[1])
    grid, constants = _launch(x, b)
    with torch.cuda.device_of(x):
        _forward_kernel[grid](
            *read, y, kept, length, size, x.shape[3], b.shape[3], keep=keep, **constants
        )
    return y, kept


@_scan.register_fake
def _scan_shapes(
    x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor, keep: bool
) -> tuple[Tensor, Tensor]:
    num_chunks = -(-x.shape[1] // _chunk_size(x.shape[1])) if keep else 0
    return torch.empty_like(x, memory_format=torch.contiguous_format), _states(x, b, num_chunks)


@torch.library.custom_op("dartok::selective_scan_triton_backward", mutates_args=())
def _scan_backward(
    grad: Tensor,
    x: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of the six inputs."""
    (batch, length, groups, width), num_states = x.shape, b.shape[3]
    size, blocks = _chunk_size(length), _num_blocks(x)
    of_x, of_delta, *_ = _scan_backward_shapes(grad, x, delta, a, b, c, skip, kept)
    of_rates, of_skip = _states(x, b, 1).squeeze(2), kept.new_empty(batch, groups, width)
    of_b, of_c = (kept.new_empty(batch, length, groups, blocks, num_states) for _ in range(2))
    read = (t.contiguous() for t in (x, delta, a.transpose(1, 2), b, c, skip, grad, kept))
    buffer = _states(x, b, size)
    written = (buffer, of_x, of_delta, of_rates, of_b, of_c, of_skip)
    grid, constants = _launch(x, b)
    with torch.cuda.device_of(x):
        _backward_kernel[grid](*read, *written, length, size, width, num_states, **constants)
    return (
        of_x,
        of_delta,
        of_rates.sum(0).transpose(1, 2).to(a.dtype).contiguous(),
        of_b.sum(-2).to(b.dtype),
        of_c.sum(-2).to(c.dtype),
        of_skip.sum(0).to(skip.dtype),
    )


@_scan_backward.register_fake
def _scan_backward_shapes(
    grad: Tensor,
    x: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    skip: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    of_x, of_delta, of_a, of_b, of_c, of_skip = (
        torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in (x, delta, a, b, c, skip)
    )
    return of_x, of_delta, of_a, of_b, of_c, of_skip


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*tensors, output[1])


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_scan_backward(grad, *ctx.saved_tensors), None


_scan.register_autograd(_backward, setup_context=_setup)


@register_flop_formula(torch.ops.dartok.selective_scan_triton)
def _scan_flops(x: torch.Size, delta: torch.Size, a: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * MULTIPLY_ADDS_PER_STATE * x[0] * x[1] * a.numel()
