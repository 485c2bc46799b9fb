"""Reading by rows and columns: the same as `grid_sample`, and as its own other half."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.core.separable import paint_lines, read_lines

sides = st.integers(1, 9)


def places(count):
    """Also outside [0, 1], where the border is repeated."""
    return 1.4 * torch.rand(2, count, dtype=torch.float64) - 0.2


def grid_sampled(images, x, y):
    across, down = torch.broadcast_tensors(x[:, None, :], y[:, :, None])
    grid = 2 * torch.stack([across, down], dim=-1) - 1
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@given(sides, sides, sides, sides)
def test_both_read_what_grid_sample_reads(height, width, rows, columns):
    images = torch.randn(2, 3, height, width, dtype=torch.float64)
    x, y = places(columns), places(rows)
    expected = grid_sampled(images, x, y)
    assert_close(read_lines(images, x, y), expected, rtol=0, atol=1e-12)
    assert_close(paint_lines(images, x, y), expected, rtol=0, atol=1e-12)


@given(sides, sides, st.integers(1, 4), st.integers(1, 4))
def test_samples_are_averaged(rows, columns, down, across):
    images = torch.randn(2, 3, 7, 8, dtype=torch.float64)
    x, y = places(columns * across), places(rows * down)
    expected = F.avg_pool2d(grid_sampled(images, x, y), (down, across))
    assert_close(read_lines(images, x, y, (down, across)), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("read", [read_lines, paint_lines])
def test_a_picture_read_at_its_own_pixels_is_the_same_to_rounding(read):
    images = torch.randn(2, 3, 700, 333)
    x = ((torch.arange(333, dtype=torch.float64) + 0.5) / 333).expand(2, -1)
    y = ((torch.arange(700, dtype=torch.float64) + 0.5) / 700).expand(2, -1)
    assert_close(read(images, x, y), images, rtol=0, atol=1e-12)


@pytest.mark.parametrize("read", [read_lines, paint_lines])
def test_gradients_reach_pictures_and_places(read):
    images = torch.randn(2, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(read, (images, places(4).requires_grad_(), places(3).requires_grad_()))


@pytest.mark.parametrize("read", [read_lines, paint_lines])
def test_half_precision_and_autocast_do_not_round(read):
    images = torch.randn(2, 3, 8, 8)
    x, y = places(5), places(6)
    expected = read(images, x, y)
    with torch.autocast("cpu", torch.bfloat16):
        found = read(images, x, y)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    half = images.bfloat16()
    assert torch.equal(read(half, x, y), read(half.float(), x, y))


@pytest.mark.parametrize("read", [read_lines, paint_lines])
def test_a_place_that_is_not_a_number_gives_none_and_leaves_batch_mates(read):
    images = torch.randn(2, 3, 8, 8)
    x, y = places(5), places(6)
    broken = x.clone()
    broken[1] = torch.nan
    found = read(images, broken, y)
    assert found[1].isnan().all()
    assert torch.equal(found[0], read(images, x, y)[0])
