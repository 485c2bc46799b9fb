"""Angles and decays: their definition, and that no precision of a model narrows them."""

import copy
import math

import pytest
import torch
from refusals import refused
from torch.testing import assert_close

from dartok.models.rmt.positions import RelativePositions


def positions(head_dim=8, num_heads=3, *, factorised=True):
    return RelativePositions(
        head_dim, num_heads, decay_start=2.0, decay_range=4.0, factorised=factorised
    )


def test_buffers_are_those_of_the_definition_in_float32():
    made = positions()
    angles = [10_000 ** (-i / 3) for i in range(4) for _ in range(2)]
    decays = [math.log(1 - 2 ** (-2 - 4 * head / 3)) for head in range(3)]
    assert made.angle.dtype == made.decay.dtype == torch.float32
    assert_close(made.angle, torch.tensor(angles), rtol=1e-6, atol=0)
    assert_close(made.decay, torch.tensor(decays), rtol=1e-6, atol=0)
    assert list(made.state_dict()) == ["angle", "decay"]


def test_a_rotation_turns_each_pair_by_the_angle_of_its_location():
    made = positions().double()
    table = made.tables((3, 5), torch.float64)
    x = torch.randn(2, 3, 5, 3, 8, dtype=torch.float64)
    found = table.rotate(x)
    for y, column, pair in [(0, 0, 0), (1, 4, 2), (2, 3, 3)]:
        turn = (y * 5 + column) * made.angle[2 * pair].double()
        a, b = x[:, y, column, :, 2 * pair], x[:, y, column, :, 2 * pair + 1]
        expected = a * turn.cos() - b * turn.sin(), b * turn.cos() + a * turn.sin()
        for place, values in zip((pair, pair + 4), expected, strict=True):
            assert_close(found[:, y, column, :, place], values, rtol=0, atol=1e-12)


def test_decays_grow_with_the_distance_along_an_axis_or_along_both():
    made = positions().double()
    table = made.tables((3, 4), torch.float64)
    assert_close(table.across[:, 1, 3], made.decay * 2)
    assert_close(table.down[:, 2, 0], made.decay * 2)
    assert table.whole is None
    whole = positions(factorised=False).double().tables((3, 4), torch.float64)
    assert whole.across is whole.down is None
    assert whole.whole.shape == (3, 12, 12)
    assert_close(whole.whole[:, 1 * 4 + 3, 2 * 4 + 1], made.decay * 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_leaves_the_buffers_as_they_are(dtype):
    made, wide = positions(), positions()
    made.to(dtype)
    assert made.angle.dtype == torch.float32
    assert torch.equal(made.angle, wide.angle)
    assert torch.equal(made.decay, wide.decay)
    table = made.tables((56, 56), dtype)
    assert table.cos.dtype == torch.float32
    assert torch.equal(table.cos, wide.tables((56, 56), torch.float32).cos)
    assert table.rotate(torch.randn(1, 56, 56, 3, 8, dtype=dtype)).dtype == dtype


def test_float64_casts_the_float32_values():
    wide = copy.deepcopy(positions()).double()
    assert torch.equal(wide.angle, positions().angle.double())
    assert torch.equal(wide.decay, positions().decay.double())


def test_a_float32_table_of_a_large_map_is_right_to_rounding():
    exact = positions().double().tables((56, 56), torch.float64)
    assert_close(
        positions().tables((56, 56), torch.float32).sin.double(), exact.sin, rtol=0, atol=6e-8
    )


@pytest.mark.refuses
def test_an_odd_number_of_channels_has_no_pairs():
    with refused("the channels of a head must be even, got 7"):
        positions(7)
