"""The attention of RMT against a plain loop, and what it may and may not see."""

import pytest
import rmt_oracles
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dartok.models.rmt.positions import RelativePositions
from dartok.models.rmt.retention import DepthwiseConv, Retention

KINDS = {True: rmt_oracles.factorised, False: rmt_oracles.full}


def layer(width, num_heads, *, factorised):
    """A layer and its positions, in float64."""
    positions = RelativePositions(
        width // num_heads, num_heads, decay_start=2.0, decay_range=4.0, factorised=factorised
    )
    return Retention(width, num_heads).double().eval(), positions.double()


@given(
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    num_heads=st.integers(1, 3),
    pairs=st.integers(1, 3),
    factorised=st.booleans(),
    seed=st.integers(0, 99),
)
@torch.no_grad()
def test_it_is_the_loop_over_all_locations(height, width, num_heads, pairs, factorised, seed):
    torch.manual_seed(seed)
    channels = 2 * pairs * num_heads
    retention, positions = layer(channels, num_heads, factorised=factorised)
    x = 3 * torch.randn(2, height, width, channels, dtype=torch.float64)
    found = retention(x, positions.tables((height, width), x.dtype))
    weights = {name: value.numpy() for name, value in retention.state_dict().items()}
    for image in range(2):
        expected = rmt_oracles.retention(
            x[image].numpy(),
            weights,
            angles=positions.angle[::2].numpy(),
            decays=positions.decay.numpy(),
            attend=KINDS[factorised],
        )
        assert_close(found[image], torch.from_numpy(expected), rtol=0, atol=1e-10)


@torch.no_grad()
def test_a_depthwise_convolution_keeps_size_and_channels_apart():
    conv = DepthwiseConv(4, 5).double()
    x = torch.randn(1, 3, 7, 4, dtype=torch.float64)
    weights = [value.numpy() for value in conv.state_dict().values()]
    expected = rmt_oracles.depthwise(x[0].numpy(), *weights)
    assert_close(conv(x)[0], torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("factorised", [True, False])
def test_gradients_are_those_of_finite_differences(factorised):
    retention, positions = layer(4, 2, factorised=factorised)
    table = positions.tables((2, 3), torch.float64)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: retention(x, table), x)


@torch.no_grad()
def test_float32_is_close_to_float64():
    retention, positions = layer(32, 2, factorised=True)
    x = torch.randn(1, 30, 20, 32, dtype=torch.float64)
    exact = retention(x, positions.tables((30, 20), x.dtype))
    found = retention.float()(x.float(), positions.float().tables((30, 20), torch.float32))
    assert (found.double() - exact).abs().max() < 1e-6
