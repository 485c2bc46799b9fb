"""`GridReshaper`: a plain resize at the start, then larger where the score is high."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.core.lattice import lattice_of
from dartok.core.reshaper import GridReshaper
from dartok.core.steering import Steering


class Softplus(nn.Module):
    """A small scorer that learns and looks at one picture at a time."""

    def __init__(self):
        super().__init__()
        self.net = nn.Conv2d(3, 1, 4, stride=4)

    def forward(self, images):
        return F.softplus(3 * self.net(images)).squeeze(1) + 0.01


class Fixed(nn.Module):
    """The scores it was given, whatever the pictures."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, images):
        return self.scores.expand(images.shape[0], -1, -1)


def reshaper(**options):
    return GridReshaper(**{"scorer": Softplus(), "grid": (4, 5)} | options)


def pictures(height=48, width=64, batch=2):
    return torch.randn(batch, 3, height, width)


sizes_px = st.tuples(st.integers(8, 60), st.integers(8, 60))
grids = st.tuples(st.integers(1, 9), st.integers(1, 9))


@given(sizes_px, grids)
def test_at_strength_zero_and_equal_size_it_is_the_identity(size, grid):
    images = pictures(*size)
    found, _ = reshaper(grid=grid, strength=0.0)(images)
    assert_close(found, images, rtol=0, atol=1e-6)


@given(grids, st.integers(1, 5), st.integers(1, 5))
def test_at_strength_zero_a_reduction_by_whole_factors_is_the_area_average(grid, down, across):
    images = pictures(12 * down, 9 * across)
    found, _ = reshaper(grid=grid, strength=0.0, size_px=(12, 9))(images)
    assert_close(found, F.avg_pool2d(images, (down, across)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(40, 30), (31, 77), (90, 100)])
def test_at_strength_zero_any_reduction_keeps_out_aliasing(size):
    images = pictures(101, 113, batch=1)
    found, _ = reshaper(strength=0.0, size_px=size)(images)
    pixels_per_pixel = (101 * 113) / (size[0] * size[1])
    assert found.var() < 1.1 * images.var() / pixels_per_pixel  # a point sample keeps all of it
    assert_close(found.mean(), images.mean(), rtol=0, atol=0.02)


def test_an_enlargement_is_the_bilinear_one():
    images = pictures(12, 15)
    found, _ = reshaper(strength=0.0, size_px=(40, 31))(images)
    expected = F.interpolate(images, (40, 31), mode="bilinear")
    assert_close(found, expected, rtol=0, atol=1e-5)


def test_cells_are_the_quantiles_of_the_sums_and_become_equally_large():
    scores = torch.rand(6, 8, dtype=torch.float64) + 0.1
    module = reshaper(scorer=Fixed(scores), grid=(3, 4), size_px=(30, 40))
    images = pictures(60, 80, batch=1)
    warped, lattice = module(images)
    for edges, sums, count in (
        (lattice.row_edges, scores.sum(1), 3),
        (lattice.column_edges, scores.sum(0), 4),
    ):
        mass = np.concatenate([[0.0], np.cumsum(sums.numpy())])
        levels = np.linspace(0, mass[-1], count + 1)
        expected = np.interp(levels, mass, np.linspace(0, 1, len(mass)))
        assert_close(edges[0], torch.from_numpy(expected), rtol=0, atol=1e-12)
    ramp = (torch.arange(80.0) + 0.5).expand(1, 1, 60, 80) / 80
    even = module.warp(ramp, lattice)[0, 0, 0]
    expected = np.interp((np.arange(40) + 0.5) / 40, np.linspace(0, 1, 5), lattice.column_edges[0])
    at = slice(1, -1)  # the border pixel is repeated beyond its centre
    assert_close(even[at].double(), torch.from_numpy(expected)[at], rtol=0, atol=2e-3)
    assert warped.shape == (1, 3, 30, 40)


@given(sizes_px, grids, sizes_px)
def test_any_size_any_grid_and_the_regions_are_the_cells(size, grid, size_px):
    module = reshaper(grid=grid, size_px=size_px)
    images = pictures(*size)
    warped, lattice = module(images)
    assert warped.shape == (2, 3, *size_px)
    assert warped.isfinite().all()
    regions = module.regions(images)
    assert regions.num_tokens == grid[0] * grid[1]
    assert torch.equal(lattice_of(regions).row_edges, lattice.row_edges)
    assert torch.equal(lattice_of(regions).column_edges, lattice.column_edges)
    assert (lattice.row_edges.diff() > 0).all()
    assert (lattice.column_edges.diff() > 0).all()
    back = lattice.unwarp(warped, size)
    assert back.shape == images.shape
    points = torch.rand(2, 20, 2, dtype=torch.float64)
    assert_close(lattice.to_image(lattice.to_warped(points)), points, rtol=0, atol=1e-9)


def test_what_scores_high_becomes_large():
    scores = torch.full((14, 14), 0.2)
    scores[4:7, 8:11] = 10.0
    module = reshaper(scorer=Fixed(scores), grid=(14, 14))
    images = torch.zeros(1, 3, 140, 140)
    images[..., 40:70, 80:110] = 1.0
    shares = []
    for strength in (0.0, 0.3, 0.6, 1.0):
        module.set_strength(strength)
        shares.append(float(module(images).images.mean()))
    assert shares[0] == pytest.approx(900 / 140**2, rel=1e-4)
    assert shares == sorted(shares)
    assert shares[3] > 4 * shares[0]


@given(grids, st.floats(0.05, 0.9), st.floats(1.1, 20.0))
def test_rows_and_columns_keep_within_the_bounds(grid, smaller, larger):
    scores = torch.exp(6 * torch.randn(9, 11))
    bounds = {"min_region": smaller / max(grid), "max_region": min(1.0, larger / min(grid))}
    _, lattice = reshaper(scorer=Fixed(scores), grid=grid, **bounds)(pictures())
    for edges in lattice:
        assert edges.diff().max() <= bounds["max_region"] + 1e-6
        assert edges.diff().min() >= bounds["min_region"] - 1e-6


def test_steering_holds_for_the_calls_made_meanwhile_and_within_the_bound():
    module, images = reshaper(grid=(8, 8)), pictures()
    before = module.regions(images)
    steering = Steering([torch.tensor([[0.1, 0.1, 0.4, 0.5]])] * 2, 4.0)
    with module.steered(steering):
        meanwhile = module(images).lattice
        bounded = reshaper(scorer=module.scorer, grid=(8, 8), max_region=0.2)
        with bounded.steered(steering):
            assert bounded(images).lattice.row_edges.diff().max() <= 0.2 + 1e-6
    assert torch.equal(lattice_of(module.regions(images, steering)).row_edges, meanwhile.row_edges)
    inside = (meanwhile.row_edges > 0.1) & (meanwhile.row_edges < 0.5)
    assert inside.sum() > ((before.row_edges > 0.1) & (before.row_edges < 0.5)).sum()
    assert torch.equal(module.regions(images).row_edges, before.row_edges)


def test_a_picture_alone_becomes_what_it_becomes_in_a_batch():
    module, images = reshaper(size_px=(20, 24)).eval(), pictures(batch=3)
    together, alone = module(images), module(images[1:2])
    assert_close(together.lattice.row_edges[1:2], alone.lattice.row_edges, rtol=0, atol=1e-9)
    assert_close(together.images[1:2], alone.images, rtol=0, atol=1e-5)


def test_gradients_reach_the_scorer_and_no_batch_mate():
    module, images = reshaper(size_px=(20, 24)), pictures(batch=3).requires_grad_()
    module(images).images[0].square().sum().backward()
    assert images.grad[0].count_nonzero() > 0
    assert images.grad[1:].count_nonzero() == 0
    for parameter in module.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.count_nonzero() > 0


def test_the_gradient_is_that_of_the_finite_difference():
    images = torch.rand(1, 1, 9, 8, dtype=torch.float64, requires_grad=True)
    scores = (0.5 + torch.rand(5, 4, dtype=torch.float64)).requires_grad_()

    def warped(images, scores):
        module = reshaper(scorer=Fixed(scores), grid=(2, 3), size_px=(4, 5), max_region=0.9)
        return module(images).images

    torch.autograd.gradcheck(warped, (images, scores), atol=1e-5)


def test_geometry_is_exact_under_autocast_and_in_half_precision():
    module, images = reshaper(scorer=Fixed(torch.rand(5, 6) + 0.1)), pictures()
    expected = module(images)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(images)
    assert found.lattice.row_edges.dtype == torch.float64
    assert torch.equal(found.lattice.column_edges, expected.lattice.column_edges)
    assert torch.equal(found.images, expected.images)
    half, _ = module(images.bfloat16())
    assert half.dtype == torch.bfloat16


@pytest.mark.slow
def test_it_can_be_exported_as_a_graph():
    module, images = reshaper(size_px=(20, 24)).eval(), pictures()
    graph = torch.export.export(module, (images,)).module()
    found = graph(images)
    assert_close(found.images, module(images).images, rtol=0, atol=1e-3)  # float32 geometry


def test_its_state_and_description_hold_its_strength_and_settings():
    module = reshaper(strength=0.25, size_px=(20, 24), max_region=0.5)
    other = reshaper()
    other.load_state_dict(module.state_dict())
    assert other.strength == 0.25
    for part in ("grid=(4, 5)", "size_px=(20, 24)", "oversample=1", "max_region=0.5"):
        assert part in repr(module)


@pytest.mark.refuses
def test_options_that_cannot_be_are_refused():
    for options, message in [
        ({"grid": 4}, "grid must be (rows, columns) or (height, width), got 4"),
        ({"grid": (0, 4)}, "grid must be >= 1, got 0"),
        ({"size_px": (20.5, 4)}, "size_px must be a whole number, got 20.5"),
        ({"oversample": 0}, "oversample must be >= 1, got 0"),
        ({"strength": 2}, "strength must be from 0 (fixed grid) to 1 (DART), got 2"),
        (
            {"max_region": 0.2},
            "max_region must be at least 0.25 for 20 regions in 4 rows, got 0.2; raise it or ask "
            "for more regions",
        ),
    ]:
        with refused(message):
            reshaper(**options)


@pytest.mark.refuses
def test_pictures_and_scores_that_cannot_be_are_refused():
    module = reshaper()
    with pytest.raises(ValueError, match=r"images must be \(B, C, H, W\) with at least one image"):
        module(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="images must be finite"):
        module(torch.full((1, 3, 8, 8), torch.nan))
    module.scorer = Fixed(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="scorer must give positive finite scores, got 0 to 0"):
        module(pictures())
