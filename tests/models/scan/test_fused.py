import sys
from types import ModuleType

import pytest
import torch
from refusals import refused
from torch.testing import assert_close

from dartok.models.scan.fused import mamba_ssm_scan
from dartok.models.scan.reference import reference_scan

INTERFACE = "mamba_ssm.ops.selective_scan_interface"
FLOAT64 = "scan kind='mamba_ssm' computes in float32, got float64: use kind='associative'"
REMEDY = (
    "scan kind='mamba_ssm' needs mamba-ssm: pip install 'dartok[mamba]' on a machine with CUDA "
    "and nvcc, or use kind='auto'"
)


def stand_in(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):  # noqa: N803
    """The package's layout, channel by channel: `u` is `(B, D, L)`, `B` is `(B, G, N, L)`."""
    assert {t.dtype for t in (u, delta, A, B, C, D)} == {torch.float32}
    (batch, dim, length), (_, groups, num_states, _) = u.shape, B.shape
    assert A.shape == (dim, num_states)
    assert D.shape == (dim,)
    assert B.shape == C.shape == (batch, groups, num_states, length)
    channels = []
    for channel in range(dim):
        group = channel // (dim // groups)
        state, outputs = torch.zeros(batch, num_states), []
        for step in range(length):
            size, value = delta[:, channel, step, None], u[:, channel, step, None]
            state = torch.exp(size * A[channel]) * state + size * value * B[:, group, :, step]
            outputs.append((state * C[:, group, :, step]).sum(1) + D[channel] * value[:, 0])
        channels.append(torch.stack(outputs, dim=1))
    return torch.stack(channels, dim=1)


@pytest.fixture
def package(monkeypatch):
    """A stand-in for what can only be installed where there is a GPU."""
    parts = INTERFACE.split(".")
    for depth in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:depth]), ModuleType(parts[depth - 1]))
    sys.modules[INTERFACE].selective_scan_fn = stand_in


def random_inputs(groups, *, dtype=torch.float32):
    batch, length, width, num_states = 2, 5, 3, 4
    inputs = (
        torch.randn(batch, length, groups, width),
        torch.rand(batch, length, groups, width),
        -torch.rand(groups, width, num_states),
        torch.randn(batch, length, groups, num_states),
        torch.randn(batch, length, groups, num_states),
        torch.randn(groups, width),
    )
    return [tensor.to(dtype).requires_grad_() for tensor in inputs]


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_the_package_is_given_its_own_layout(groups):
    inputs = random_inputs(groups)
    y, expected = mamba_ssm_scan(*inputs), reference_scan(*inputs)
    assert_close(y, expected, rtol=0, atol=1e-5)
    weights = torch.randn_like(y)
    actual = torch.autograd.grad(y, inputs, weights)
    assert_close(actual, torch.autograd.grad(expected, inputs, weights), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("package")
def test_half_precision_is_computed_in_float32_and_rounded_once():
    inputs = random_inputs(2, dtype=torch.bfloat16)
    y = mamba_ssm_scan(*inputs)
    expected = reference_scan(*(tensor.float() for tensor in inputs))
    assert y.dtype == torch.bfloat16
    assert_close(y.float(), expected, rtol=2**-8, atol=1e-5)


@pytest.mark.refuses
@pytest.mark.usefixtures("package")
def test_float64_is_refused():
    with refused(FLOAT64):
        mamba_ssm_scan(*random_inputs(1, dtype=torch.float64))


@pytest.mark.refuses
def test_without_the_package_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "mamba_ssm", None)
    with pytest.raises(ImportError) as error:
        mamba_ssm_scan(*random_inputs(1))
    assert str(error.value) == REMEDY


@pytest.mark.gpu
def test_the_package_matches_the_reference_on_a_gpu():
    pytest.importorskip("mamba_ssm")
    inputs = [tensor.detach().cuda().requires_grad_() for tensor in random_inputs(2)]
    y, expected = mamba_ssm_scan(*inputs), reference_scan(*inputs)
    assert_close(y, expected, rtol=0, atol=1e-4)
    actual = torch.autograd.grad(y.sum(), inputs)
    assert_close(actual, torch.autograd.grad(expected.sum(), inputs), rtol=0, atol=1e-4)
