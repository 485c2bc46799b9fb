"""The selective scan of a sequence that comes in parts: from a state, and to a state.

The scan is linear in its state, so what an earlier part left behind is added to the outputs of any
of the scans, which start at 0; none of them need know of it.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dartok.core.precision import without_autocast
from dartok.models.scan.dispatch import ScanName, selective_scan

__all__ = ["Resumed", "resumed_scan"]


class Resumed(NamedTuple):
    """What one part of a sequence gives."""

    y: Float[Tensor, "B L G E"]
    """Outputs, in the dtype of `x`."""
    state: Float[Tensor, "B G E N"]
    """What the next part starts from, in float32 or wider."""


def resumed_scan(
    x: Float[Tensor, "B L G E"],
    delta: Float[Tensor, "B L G E"],
    a: Float[Tensor, "G E N"],
    b: Float[Tensor, "B L G N"],
    c: Float[Tensor, "B L G N"],
    skip: Float[Tensor, "G E"],
    *,
    state: Float[Tensor, "B G E N"] | None = None,
    kind: ScanName = "auto",
) -> Resumed:
    """`selective_scan` that starts from a state, and the state that it ends in.

    With `d[l] = exp(a (delta[1] + ... + delta[l]))`, step l reads `d[l] state` more than from 0:

        y[l] = selective_scan(...)[l] + (d[l] state) c[l]
        state' = d[L] state + sum_l exp(a (delta[l+1] + ... + delta[L])) (delta[l] x[l]) b[l]

    Exact but for rounding; the exponents are sums of terms of one sign, so nothing overflows or
    cancels. Differentiable. Memory: one number for each step and state.

    Source: Mamba, arXiv:2312.00752, algorithm 2, solved for the state.

    Args:
        x: As of `selective_scan`, like the following; of this part alone, of at least one step.
        delta: Step sizes, `> 0`.
        a: Decay rates, `< 0`.
        b: What enters the state.
        c: What is read from the state.
        skip: What passes by the state.
        state: What the part before left; None at the start.
        kind: As of `selective_scan`.
    Raises:
        ValueError: If shapes do not belong together.
    Example:
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> parts = [ones, ones, torch.zeros(1, 1, 1), ones, ones, torch.zeros(1, 1)]
        >>> y, state = resumed_scan(*parts, state=torch.full((1, 1, 1, 1), 4.0))
        >>> y.flatten(), state.flatten()
        (tensor([5., 6., 7.]), tensor([7.]))
    """
    y = selective_scan(x, delta, a, b, c, skip, kind=kind)
    wide = torch.promote_types(x.dtype, torch.float32)
    moved, steps, rates, entered, read = (t.to(wide) for t in (x, delta, a, b, c))
    passed = steps.cumsum(1)
    later = F.pad(steps[:, 1:], (0, 0, 0, 0, 0, 1))  # a sum, not a difference of sums: no rounding
    remaining = later.flip(1).cumsum(1).flip(1)
    with without_autocast(x):
        left = torch.exp(remaining.unsqueeze(-1) * rates)
        end = torch.einsum("blgen,blge,blgn->bgen", left, steps * moved, entered)
        if state is None:
            return Resumed(y, end)
        _check_state(state, end)
        begun = torch.exp(passed.unsqueeze(-1) * rates) * state.to(wide).unsqueeze(1)
        carried = torch.einsum("blgen,blgn->blge", begun, read)
        return Resumed((y.to(wide) + carried).to(x.dtype), begun[:, -1] + end)


def _check_state(state: Tensor, like: Tensor) -> None:
    if state.shape != like.shape:
        raise ValueError(
            f"state must be (B, G, E, N) = {tuple(like.shape)} as these inputs, got "
            f"{tuple(state.shape)}; keep one for each stream"
        )
