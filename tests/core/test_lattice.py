"""The warp of a lattice: what it moves where, and that its inverse undoes it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from torch.testing import assert_close

from dartok.core.lattice import Lattice, lattice_of
from dartok.core.partition import flow_partition, grid_partition

sides = st.integers(1, 9)


def lattice(rows, columns, batch=2, contrast=3.0, dtype=torch.float64):
    """Of random scores: cells of very different sizes."""
    scores = torch.exp(contrast * torch.randn(batch, 12, 10, dtype=dtype))
    found = lattice_of(grid_partition(scores, num_tokens=rows * columns, num_rows=rows))
    return Lattice(found.row_edges.to(dtype), found.column_edges.to(dtype))


@given(sides, sides, st.floats(0.0, 4.0))
def test_points_and_boxes_come_back_to_the_ten_thousandth_of_a_pixel(rows, columns, contrast):
    warp = lattice(rows, columns, contrast=contrast)
    points = torch.rand(2, 50, 2, dtype=torch.float64)
    size_px = 4096
    assert ((warp.to_image(warp.to_warped(points)) - points).abs() * size_px).max() < 1e-4
    assert ((warp.to_warped(warp.to_image(points)) - points).abs() * size_px).max() < 1e-4
    corners = torch.rand(2, 20, 2, 2, dtype=torch.float64).sort(dim=2).values
    moved = warp.to_warped(corners)
    assert (moved[:, :, 1] >= moved[:, :, 0]).all(), "a box stays a box"
    assert ((warp.to_image(moved) - corners).abs() * size_px).max() < 1e-4


@given(sides, sides)
def test_edges_become_an_even_lattice(rows, columns):
    warp = lattice(rows, columns)
    corners = torch.stack(
        [
            warp.column_edges[:, None].expand(-1, rows + 1, -1),
            warp.row_edges[:, :, None].expand(-1, -1, columns + 1),
        ],
        dim=-1,
    )
    even = torch.stack(
        torch.meshgrid(
            torch.linspace(0, 1, columns + 1, dtype=torch.float64),
            torch.linspace(0, 1, rows + 1, dtype=torch.float64),
            indexing="xy",
        ),
        dim=-1,
    )
    assert_close(warp.to_warped(corners), even.expand_as(corners), rtol=0, atol=1e-9)


def interpolated(values, places, axis):
    """NumPy's own linear interpolation along one axis, its ends repeated."""
    known = np.arange(values.shape[axis])
    return np.apply_along_axis(lambda line: np.interp(places, known, line), axis, values)


def test_warped_pixels_are_those_that_numpy_interpolates():
    warp = lattice(4, 5)
    images = torch.rand(2, 3, 33, 47, dtype=torch.float64)
    actual = warp.warp(images, (16, 20))
    for image, rows, columns, found in zip(images, *warp, actual, strict=True):
        y = np.interp((np.arange(16) + 0.5) / 16, np.linspace(0, 1, 5), rows) * 33 - 0.5
        x = np.interp((np.arange(20) + 0.5) / 20, np.linspace(0, 1, 6), columns) * 47 - 0.5
        expected = interpolated(interpolated(image.numpy(), y, 1), x, 2)
        assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-9)


def centres(count):
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def there_and_back(warp, values, warped_px, size_px):
    """A function of x and y through a picture, its warp, and back; and itself."""
    y, x = centres(size_px[0])[:, None], centres(size_px[1])
    picture = values(x, y).expand(2, 1, *size_px)
    return warp.unwarp(warp.warp(picture, warped_px), size_px), picture


def inside(found, warp, warped_px, size_px):
    """Only what lies between the outermost samples: beyond, the border is repeated."""
    kept = []
    for one, rows, columns in zip(found, *warp, strict=True):
        ranges = []
        for edges, count, size in zip((rows, columns), warped_px, size_px, strict=True):
            even = np.linspace(0, 1, len(edges))
            first, last = np.interp([0.5 / count, 1 - 0.5 / count], even, edges)
            at = centres(size).numpy()
            ranges.append(np.flatnonzero((at >= max(first, at[1])) & (at <= min(last, at[-2]))))
        kept.append(one[..., ranges[0], :][..., ranges[1]])
    return kept


def widest_gap(edges, count):
    """Largest distance in the picture of two neighbouring samples of a warp."""
    even = np.linspace(0, 1, edges.shape[1])
    places = [np.interp(centres(count).numpy(), even, one) for one in edges.numpy()]
    return max(float(np.diff(one).max()) for one in places)


@pytest.mark.parametrize("contrast", [0.5, 1.5])
def test_a_smooth_map_comes_back_to_an_error_of_second_order_also_across_edges(contrast):
    warp = lattice(7, 6, contrast=contrast)
    errors = []
    for fineness in (1, 2, 4):
        warped_px, size_px = (80 * fineness, 90 * fineness), (75 * fineness, 100 * fineness)
        sizes = warped_px, size_px
        pair = there_and_back(warp, lambda x, y: torch.sin(3 * y) * torch.cos(4 * x), *sizes)
        back, picture = (inside(one, warp, *sizes) for one in pair)
        errors.append(max(float((a - b).abs().max()) for a, b in zip(back, picture, strict=True)))
        down = widest_gap(warp.row_edges, warped_px[0]) ** 2 + (1 / size_px[0]) ** 2
        across = widest_gap(warp.column_edges, warped_px[1]) ** 2 + (1 / size_px[1]) ** 2
        assert errors[-1] <= (9 * down + 16 * across) / 8  # d^2 / 8 times the second derivatives
    assert errors[0] / errors[1] > 3
    assert errors[1] / errors[2] > 3  # halved distances, a quarter of the error


@given(sides, sides)
def test_what_is_linear_in_the_picture_comes_back_as_it_was(rows, columns):
    warp = lattice(rows, columns)
    sizes = (40, 30), (27, 35)
    pair = there_and_back(warp, lambda x, y: 2 + 3 * x - 5 * y, *sizes)
    for back, picture in zip(*(inside(one, warp, *sizes) for one in pair), strict=True):
        assert_close(back, picture, rtol=0, atol=1e-9)


@given(sides, sides)
def test_boxes_in_pixels_come_back_to_the_ten_thousandth_of_a_pixel(rows, columns):
    warp = lattice(rows, columns)
    sizes = {"image_px": (3000, 4000), "warped_px": (224, 320)}
    full_px = torch.tensor([4000, 3000] * 2)
    boxes = []
    for count in (7, 0):
        corners = torch.rand(count, 2, 2).sort(dim=1).values
        boxes.append(corners.flatten(1) * full_px)  # float32, as detectors have them
    moved = warp.boxes_to_warped(boxes, **sizes)
    back = warp.boxes_to_image(moved, **sizes)
    assert [one.shape for one in back] == [(7, 4), (0, 4)]
    assert (back[0] - boxes[0]).abs().max() < 1e-4
    assert (moved[0][:, 2:] >= moved[0][:, :2]).all()


def test_a_box_around_cells_of_its_picture_becomes_a_box_around_even_cells():
    warp = lattice(4, 5)
    x, y = 400 * warp.column_edges, 300 * warp.row_edges
    boxes = torch.stack([x[:, 1], y[:, 2], x[:, 4], y[:, 3]], dim=1).unsqueeze(1)
    assert (boxes[1] - boxes[0]).abs().max() > 1  # px: each picture has a lattice of its own
    moved = warp.boxes_to_warped(boxes, image_px=(300, 400), warped_px=(80, 100))
    expected = torch.tensor([[20.0, 40.0, 80.0, 60.0]], dtype=torch.float64)
    for one in moved:
        assert_close(one, expected, rtol=0, atol=1e-9)


def test_an_even_lattice_copies_a_picture_and_averages_a_larger_one():
    even = lattice(3, 4, contrast=0.0)
    images = torch.rand(2, 3, 24, 32, dtype=torch.float64)
    assert_close(even.warp(images, (24, 32)), images, rtol=0, atol=1e-9)
    halved = torch.nn.functional.avg_pool2d(images, 2)
    assert_close(even.warp(images, (12, 16)), halved, rtol=0, atol=1e-9)
    quartered = torch.nn.functional.avg_pool2d(images, 4)
    assert_close(even.warp(images, (6, 8), oversample=2), quartered, rtol=0, atol=1e-9)
    apart = torch.nn.functional.avg_pool2d(images, (3, 4))
    assert_close(even.warp(images, (8, 8), oversample=(3, 4)), apart, rtol=0, atol=1e-9)
    assert_close(even.unwarp(images, (24, 32)), images, rtol=0, atol=1e-9)


@given(sides, sides)
def test_a_constant_stays_constant(rows, columns):
    warp = lattice(rows, columns)
    ones = torch.ones(2, 1, 9, 11, dtype=torch.float64)
    assert_close(warp.warp(ones, (8, 13)), torch.ones(2, 1, 8, 13, dtype=torch.float64))
    assert_close(warp.unwarp(ones, (8, 13)), torch.ones(2, 1, 8, 13, dtype=torch.float64))


def test_gradients_reach_pictures_and_edges():
    images = torch.rand(1, 2, 9, 8, dtype=torch.float64, requires_grad=True)
    scores = (0.5 + torch.rand(1, 5, 4, dtype=torch.float64)).requires_grad_()

    def there_and_back(images, scores):
        warp = lattice_of(grid_partition(scores, num_tokens=6, num_rows=2))
        return warp.unwarp(warp.warp(images, (6, 6)), (7, 5))

    torch.autograd.gradcheck(there_and_back, (images, scores), atol=1e-5)


def test_half_precision_is_sampled_in_float32():
    warp = lattice(3, 3)
    images = torch.rand(2, 3, 32, 32).bfloat16()
    found = warp.warp(images, (16, 16))
    assert found.dtype == torch.bfloat16
    assert_close(found, warp.warp(images.float(), (16, 16)).bfloat16(), rtol=0, atol=0)


@pytest.mark.refuses
def test_what_is_no_lattice_is_refused():
    flow = flow_partition(torch.rand(1, 4, 4) + 0.1, num_tokens=7, num_rows=2)
    with pytest.raises(ValueError, match="needs partition='grid' of images, got 7 regions in 2"):
        lattice_of(flow)
    warp = lattice(2, 2)
    with pytest.raises(ValueError, match="images must be .* with B = 2 as the lattice, got"):
        warp.warp(torch.rand(3, 1, 4, 4), (2, 2))
    with pytest.raises(ValueError, match=r"at least 1, got \(0, 2\) and 1"):
        warp.unwarp(torch.rand(2, 1, 4, 4), (0, 2))
    sizes = {"image_px": (4, 4), "warped_px": (2, 2)}
    with refused("boxes must be one tensor (M, 4) for each of 2 pictures, got 1"):
        warp.boxes_to_image([torch.rand(3, 4)], **sizes)
    with refused("boxes must be (M, 4) in each picture, got (2, 2)"):
        warp.boxes_to_warped([torch.rand(2, 2)] * 2, **sizes)
