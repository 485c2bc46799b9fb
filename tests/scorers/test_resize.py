"""The copy of fixed size: antialiased, and half by half where that fits."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.scorers.resize import _any_size_copy, fixed_copy


def test_no_size_and_the_same_size_return_the_images_themselves():
    images = torch.rand(1, 3, 32, 32)
    assert fixed_copy(images, None) is images
    assert fixed_copy(images, 32) is images


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_powers_of_two_are_means_of_blocks(factor):
    images = torch.rand(2, 3, 16 * factor, 16 * factor, dtype=torch.float64)
    expected = F.avg_pool2d(images, factor)
    assert_close(fixed_copy(images, 16), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(33, 64), (64, 31), (500, 375), (20, 20), (10000, 40)])
def test_any_size_gives_the_asked_one_and_keeps_constants_and_the_mean(size):
    copy = fixed_copy(torch.full((1, 3, *size), 0.7), 16)
    assert_close(copy, torch.full((1, 3, 16, 16), 0.7))
    ramp = torch.linspace(0, 1, size[1]).expand(1, 1, *size)
    assert abs(float(fixed_copy(ramp, 16).mean()) - 0.5) < 1e-3


def test_fine_stripes_do_not_alias():
    stripes = torch.arange(256) % 2 * 2.0 - 1
    for size_px in (256, 250):
        copy = fixed_copy(stripes[:size_px].expand(1, 1, size_px, size_px), 32)
        assert copy.abs().max() < 0.15


def test_half_precision_is_resized_in_float32():
    assert fixed_copy(torch.rand(1, 3, 50, 50).half(), 16).dtype == torch.float32


@pytest.mark.parametrize(
    "size", [(32, 32), (64, 64), (65, 64), (300, 500), (256, 96), (31, 20), (512, 256), (33, 1000)]
)
def test_the_copy_in_a_graph_of_any_size_is_the_same(size):
    images = torch.rand(2, 3, *size)
    assert_close(_any_size_copy(images, 32), fixed_copy(images, 32), rtol=0, atol=2e-6)
