"""The selective scan as it is written down: one step after the other. For reading and for tests."""

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["reference_scan"]


def reference_scan(
    x: Float[Tensor, "B L G E"],
    delta: Float[Tensor, "B L G E"],
    a: Float[Tensor, "G E N"],
    b: Float[Tensor, "B L G N"],
    c: Float[Tensor, "B L G N"],
    skip: Float[Tensor, "G E"],
) -> Float[Tensor, "B L G E"]:
    """`s[l] = exp(delta[l] a) s[l-1] + (delta[l] x[l]) b[l]`, `y[l] = s[l] c[l] + skip x[l]`.

    The state `s`, `E x N` numbers for each sequence and group, starts at 0. Differentiable by
    autograd, at the price of every state kept: `L` times the memory of `chunked_scan`.

    Source: Mamba, arXiv:2312.00752, algorithm 2, discretised as in its section 2.

    Args:
        x: Inputs; G groups (directions) are scanned side by side, each with its own a, b, c.
        delta: Step sizes, `> 0`.
        a: Decay rates, `< 0`.
        b: What enters the state.
        c: What is read from the state.
        skip: What passes by the state (Mamba's D).
    Example:
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> zero = torch.zeros(1, 1, 1)
        >>> reference_scan(ones, ones, zero, ones, ones, torch.zeros(1, 1)).flatten()
        tensor([1., 2., 3.])
    """
    decay = torch.exp(delta.unsqueeze(-1) * a)
    entering = (delta * x).unsqueeze(-1) * b.unsqueeze(-2)
    state = torch.zeros_like(decay[:, 0])
    outputs = []
    for step in range(x.shape[1]):
        state = decay[:, step] * state + entering[:, step]
        outputs.append((state * c[:, step].unsqueeze(-2)).sum(-1))
    return torch.stack(outputs, dim=1) + skip * x
