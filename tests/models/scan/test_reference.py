"""The scan as it is written down, against NumPy, closed forms and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from scans import SHAPES, scan_inputs
from torch.testing import assert_close

from dartok.models.scan import reference_scan

ROUNDING = 1e-12  # absolute, of numbers of some ten


def oracle(x, delta, a, b, c, skip):
    """The recurrence in NumPy float64, for one number of one state at a time."""
    outputs = np.zeros(x.shape)
    for sequence, group, channel in np.ndindex(x.shape[0], *x.shape[2:]):
        state = np.zeros(a.shape[-1])
        for step in range(x.shape[1]):
            place = sequence, step, group
            for n in range(len(state)):
                decay = np.exp(delta[place][channel] * a[group, channel, n])
                entering = delta[place][channel] * x[place][channel] * b[place][n]
                state[n] = decay * state[n] + entering
            passed = skip[group, channel] * x[place][channel]
            outputs[place][channel] = state @ c[place] + passed
    return outputs


@settings(max_examples=15)
@given(SHAPES)
def test_the_reference_matches_the_equations(shape):
    inputs = scan_inputs(**shape | {"length": min(shape["length"], 30)})
    expected = oracle(*(tensor.numpy() for tensor in inputs))
    assert_close(reference_scan(*inputs), torch.from_numpy(expected), rtol=0, atol=ROUNDING)


def test_without_decay_the_states_are_cumulative_sums():
    x, delta, a, b, c, skip = scan_inputs(length=50)
    entered = ((delta * x).unsqueeze(-1) * b.unsqueeze(-2)).cumsum(1)
    expected = (entered * c.unsqueeze(-2)).sum(-1) + skip * x
    actual = reference_scan(x, delta, torch.zeros_like(a), b, c, skip)
    assert_close(actual, expected, rtol=0, atol=ROUNDING)


def test_constant_inputs_give_geometric_sums():
    first = scan_inputs(length=1)
    x, delta, a, b, c, skip = (
        tensor.expand(-1, 60, -1, -1) if tensor.ndim == 4 else tensor for tensor in first
    )
    ratio = torch.exp(delta.unsqueeze(-1) * a)
    powers = ratio ** torch.arange(1, 61).view(1, -1, 1, 1, 1)
    states = (delta * x).unsqueeze(-1) * b.unsqueeze(-2) * (1 - powers) / (1 - ratio)
    expected = (states * c.unsqueeze(-2)).sum(-1) + skip * x
    assert_close(reference_scan(x, delta, a, b, c, skip), expected, rtol=0, atol=ROUNDING)


def test_without_steps_only_the_skip_is_left():
    x, delta, a, b, c, skip = scan_inputs()
    assert reference_scan(x, torch.zeros_like(delta), a, b, c, skip).equal(skip * x)


def test_an_output_does_not_depend_on_later_steps_or_other_sequences_or_groups():
    x, *others = scan_inputs()
    x.requires_grad_()
    reference_scan(x, *others)[0, 10, 1].sum().backward()
    assert x.grad[0, :11, 1].count_nonzero() == x.grad[0, :11, 1].numel()
    x.grad[0, :11, 1] = 0
    assert x.grad.count_nonzero() == 0


def test_gradients_are_those_of_finite_differences():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(length=6, width=2, num_states=2)]
    assert torch.autograd.gradcheck(reference_scan, inputs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_have_the_dtype_and_shape_of_the_inputs(dtype):
    inputs = scan_inputs(dtype=dtype)
    y = reference_scan(*inputs)
    assert (y.dtype, y.shape) == (dtype, inputs[0].shape)
