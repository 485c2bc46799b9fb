"""Inputs of the selective scan, and how far one way to compute it is from the reference."""

import torch
from hypothesis import strategies as st

from dartok.models.scan import reference_scan

__all__ = ["NAMES", "SHAPES", "differences", "scan_inputs", "value_and_gradients"]

NAMES = ("y", "x", "delta", "a", "b", "c", "skip")
"""The outputs, and the inputs that gradients are of."""

SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 3),
        "length": st.one_of(st.integers(1, 20), st.integers(1, 140)),
        "groups": st.integers(1, 3),
        "width": st.integers(1, 6),
        "num_states": st.integers(1, 5),
        "seed": st.integers(0, 2**31),
    }
)
"""Arguments of `scan_inputs`."""


def scan_inputs(
    batch=2, length=37, groups=2, width=5, num_states=3, *, seed=0, dtype=torch.float64
):
    """Steps of 0.001 to 1 and rates of 0.1 to 16: states that forget at once and that hardly do."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def spread(low, high, *shape):  # uniform in the exponent
        share = torch.rand(shape, generator=generator, dtype=torch.float64)
        return low * (high / low) ** share

    inputs = (
        normal(batch, length, groups, width),
        spread(1e-3, 1, batch, length, groups, width),
        -spread(0.1, 16, groups, width, num_states),
        normal(batch, length, groups, num_states),
        normal(batch, length, groups, num_states),
        normal(groups, width),
    )
    return tuple(tensor.to(dtype) for tensor in inputs)


def value_and_gradients(scan, inputs):
    """The outputs, and the gradients of a sum of them, weighted alike in each sequence."""
    leaves = [tensor.detach().requires_grad_() for tensor in inputs]
    y = scan(*leaves)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(y.shape[1:], generator=generator, dtype=torch.float64).to(y.dtype)
    weights = weights.repeat(len(y), 1, 1, 1)
    return (y.detach(), *torch.autograd.grad(y, leaves, weights))


def differences(scan, inputs):
    """Of outputs and gradients, name to the largest difference from the reference in float64.

    Relative to the largest value of the reference, or to 1.
    """
    actual = value_and_gradients(scan, inputs)
    expected = value_and_gradients(reference_scan, [tensor.double() for tensor in inputs])
    found = {}
    for name, ours, theirs in zip(NAMES, actual, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == inputs[0].dtype
        assert ours.isfinite().all(), name
        largest = theirs.abs().max().clamp_min(1)
        found[name] = float((ours.double() - theirs).abs().max() / largest)
    return found
