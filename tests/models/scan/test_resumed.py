"""A scan in parts is the scan of the whole, and ends in its state."""

import pytest
import torch
from refusals import refused
from torch.testing import assert_close

from dartok.models.scan import reference_scan, selective_scan
from dartok.models.scan.resumed import resumed_scan

BATCH, GROUPS, WIDTH, STATES = 2, 2, 5, 3


def inputs(length, dtype=torch.float64, largest_step=0.5):
    x, delta = torch.randn(2, BATCH, length, GROUPS, WIDTH, dtype=dtype)
    a = -torch.rand(GROUPS, WIDTH, STATES, dtype=dtype) * 16
    b, c = torch.randn(2, BATCH, length, GROUPS, STATES, dtype=dtype)
    skip = torch.randn(GROUPS, WIDTH, dtype=dtype)
    return x, delta.abs() * largest_step, a, b, c, skip


def in_parts(x, delta, a, b, c, skip, sizes, **options):
    state, outputs = None, []
    for part in zip(*(t.split(sizes, dim=1) for t in (x, delta, b, c)), strict=True):
        of_x, of_delta, of_b, of_c = part
        y, state = resumed_scan(of_x, of_delta, a, of_b, of_c, skip, state=state, **options)
        outputs.append(y)
    return torch.cat(outputs, dim=1), state


def state_after(x, delta, a, b, c, skip):
    """One step after the other."""
    state = torch.zeros(BATCH, GROUPS, WIDTH, STATES, dtype=x.dtype)
    for step in range(x.shape[1]):
        decay = torch.exp(delta[:, step].unsqueeze(-1) * a)
        entering = (delta[:, step] * x[:, step]).unsqueeze(-1) * b[:, step].unsqueeze(-2)
        state = decay * state + entering
    return state


@pytest.mark.parametrize("kind", ["chunked", "associative"])
@pytest.mark.parametrize("sizes", [[30], [1] * 30, [1, 29], [29, 1], [7, 16, 7]])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_parts_give_the_outputs_and_the_last_state_of_the_whole(kind, sizes, dtype, atol):
    whole = inputs(30, dtype)
    y, state = in_parts(*whole, sizes, kind=kind)
    assert_close(y, reference_scan(*whole), rtol=0, atol=atol)
    assert_close(state, state_after(*whole), rtol=0, atol=atol)


def test_slow_and_fast_decays_neither_overflow_nor_vanish():
    """Exponents down to -16 x 2000 in float32: what they leave is 0; those of 1e-4 leave all."""
    for largest_step in (1e-5, 100.0):
        whole = inputs(40, torch.float32, largest_step)
        y, state = in_parts(*whole, [13, 27])
        assert y.isfinite().all()
        wide = [t.double() for t in whole]
        expected = reference_scan(*wide)
        assert_close(y.double(), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
        last = state_after(*wide)
        assert_close(state.double(), last, rtol=1e-5, atol=1e-5 * float(last.abs().max()))


def test_gradients_pass_from_part_to_part():
    found = []
    for sizes in ([9], [4, 5]):
        torch.manual_seed(0)
        leaves = [t.requires_grad_() for t in inputs(9)]
        y, state = in_parts(*leaves, sizes)
        (y.square().sum() + state.sum()).backward()
        found.append([leaf.grad for leaf in leaves])
    assert_close(*found, rtol=0, atol=1e-11)


def test_gradients_are_those_of_finite_differences():
    parts = [t.requires_grad_() for t in inputs(3)]
    state = torch.randn(BATCH, GROUPS, WIDTH, STATES, dtype=torch.float64, requires_grad=True)

    def run(*given):
        *these, start = given
        return tuple(resumed_scan(*these, state=start, kind="associative"))

    assert torch.autograd.gradcheck(run, (*parts, state))


def test_half_precision_keeps_its_state_wide_also_under_autocast():
    whole = [t.bfloat16() for t in inputs(6)]
    with torch.autocast("cpu", torch.bfloat16):
        y, state = in_parts(*whole, [2, 4])
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.float32)
    exact = reference_scan(*(t.float() for t in whole))
    assert float((y.float() - exact).norm() / exact.norm()) < 1e-2


def test_autocast_rounds_nothing_of_what_is_wide():
    whole, state = inputs(6, torch.float32), torch.randn(BATCH, GROUPS, WIDTH, STATES)
    expected = resumed_scan(*whole, state=state)
    with torch.autocast("cpu", torch.bfloat16):
        found = resumed_scan(*whole, state=state)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_without_a_state_the_outputs_are_bit_for_bit_those_of_the_scan():
    whole = inputs(20, torch.float32)
    assert torch.equal(resumed_scan(*whole).y, selective_scan(*whole))


@pytest.mark.refuses
def test_the_state_of_another_stream_is_refused():
    whole = inputs(4)
    with refused(
        "state must be (B, G, E, N) = (2, 2, 5, 3) as these inputs, got (1, 2, 5, 3); keep one for "
        "each stream"
    ):
        resumed_scan(*whole, state=torch.zeros(1, 2, 5, 3, dtype=torch.float64))
