"""Bounds on regions: never violated, without effect where they do not bind, exact in gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from dartok.core.bounds import bound_lengths, water_fill
from dartok.core.budget import AutoBudget
from dartok.core.counts import Counts
from dartok.core.partition import partition
from dartok.core.sides import Bounds
from dartok.core.steering import Steering
from dartok.core.tokenizer import Tokenizer

SLACK = 1e-9  # of the picture's side


def filled_by_bisection(density, least, most):
    """The definition, in NumPy: the factor at which clamped densities have a mean of 1."""
    share = density / density.mean()
    low, high = np.log(least / share.max()), np.log(most / share.min())
    for _ in range(100):
        middle = (low + high) / 2
        below = np.clip(np.exp(middle) * share, least, most).mean() < 1
        low, high = (middle, high) if below else (low, middle)
    return np.clip(np.exp(low) * share, least, most)


@settings(max_examples=80)
@given(
    st.integers(1, 60),
    st.floats(0, 12),
    st.floats(1e-6, 0.999),
    st.floats(1.001, 1e3),
    st.integers(0, 2**31),
)
def test_filling_matches_bisection_over_many_decades(cells, decades, least, most, seed):
    density = 10 ** (decades * np.random.default_rng(seed).random(cells))
    expected = filled_by_bisection(density, least, most)
    bounds = (torch.tensor(bound, dtype=torch.float64) for bound in (least, most))
    filled = water_fill(torch.from_numpy(density), *bounds)
    assert_close(filled, torch.from_numpy(expected), rtol=1e-9, atol=1e-12)
    assert abs(float(filled.mean()) - 1) < 1e-11
    assert least <= filled.min()
    assert filled.max() <= most


def test_padding_stays_empty_and_does_not_count():
    density = torch.rand(2, 9, dtype=torch.float64) ** 4 + 0.01
    is_cell = torch.arange(9) < torch.tensor([[5], [9]])
    bounds = torch.tensor([[0.6], [0.5]]).double(), torch.tensor([[1.5], [1.6]]).double()
    filled = water_fill(density * is_cell, *bounds, is_cell)
    alone = water_fill(density[:1, :5], bounds[0][:1], bounds[1][:1])
    assert filled[0, 5:].eq(0).all()
    assert_close(filled[:1, :5], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("least", "most"), [(0.3, 2.0), (0.0, 1.5), (0.5, 7.0)])
def test_gradients_of_filling_are_exact(least, most):
    density = (torch.rand(3, 7, dtype=torch.float64) ** 3 + 0.01).requires_grad_()
    bounds = torch.tensor(least).double(), torch.tensor(most).double()
    assert gradcheck(lambda values: water_fill(values, *bounds), density)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0], ids=["nan", "inf", "no mass"])
def test_a_density_without_mass_gives_nan_to_itself_alone(bad):
    density = torch.rand(3, 5) + 0.1
    density[1] = bad
    filled = bound_lengths(density, Bounds(0.1, 0.3), 0.2)
    assert filled[1].isnan().all()
    assert filled[[0, 2]].isfinite().all()


def make_scores(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Of six decades, or of one hot cell."""
    generator = torch.Generator().manual_seed(seed)
    scores = 10 ** (6 * torch.rand(shape, generator=generator) - 3)
    if seed % 3 == 0:
        scores = torch.full(shape, 1e-7)
        scores.view(-1)[seed % scores.numel()] = 1.0
    return scores


def sides(regions) -> torch.Tensor:
    """Heights of rows and strip lengths of regions, those of padding left out."""
    lengths = regions.strip_edges.diff(dim=-1)[regions.is_region()]
    return torch.cat([regions.row_edges.diff(dim=-1).flatten(), lengths])


@st.composite
def bounded_cases(draw):
    kind, num_frames = draw(st.sampled_from(["flow", "grid"])), draw(st.integers(1, 3))
    num_rows, columns = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    num_tokens = num_frames * num_rows * columns
    if kind == "flow":
        num_tokens = max(num_rows * num_frames, num_tokens - draw(st.integers(0, 7)))
    means = 1 / num_rows, num_frames * num_rows / num_tokens
    up, down = draw(st.floats(0, 1)), draw(st.floats(0, 0.999))
    most = min(1.0, max(means) + up * (1 - max(means)))
    least = min(means) * down or None
    bounds = draw(st.sampled_from([Bounds(least, most), Bounds(None, most), Bounds(least, None)]))
    shape = (2, num_frames, draw(st.integers(1, 30)), draw(st.integers(1, 30)))
    scores = make_scores(shape, draw(st.integers(0, 2**31)))
    options = {"num_tokens": num_tokens, "num_rows": num_rows, "kind": kind}
    return scores, options, bounds


@settings(max_examples=200)
@given(bounded_cases())
def test_no_region_is_larger_or_smaller_than_its_bounds(case):
    scores, options, bounds = case
    regions = partition(scores, **options, bounds=bounds)
    found = sides(regions)
    assert found.isfinite().all()
    assert found.max() <= (bounds.max_region or torch.inf) + SLACK
    assert found.min() >= (bounds.min_region or 0) - SLACK
    assert regions.strip_edges[0, -1] == regions.num_frames * regions.num_rows
    assert_close(regions.areas().sum(1), torch.ones(2).double(), rtol=0, atol=1e-12)


@settings(max_examples=60)
@given(bounded_cases(), st.integers(0, 2**31))
def test_bounds_that_no_score_reaches_change_nothing(case, seed):
    scores, options, _ = case
    generator = torch.Generator().manual_seed(seed)
    mild = torch.rand(scores.shape, generator=generator) + 1  # within 2 times their mean
    plain = partition(mild, **options)
    found = sides(plain)
    loose = Bounds(float(found.min()) / 4, min(1.0, 4 * float(found.max())))
    if loose.max_region < 2 * found.max():
        loose = Bounds(loose.min_region, None)
    bounded = partition(mild, **options, bounds=loose)
    assert_close(bounded.row_edges, plain.row_edges, rtol=0, atol=1e-12)
    assert_close(bounded.strip_edges, plain.strip_edges, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", ["flow", "grid"])
def test_the_tightest_bounds_give_the_even_grid(kind):
    scores = make_scores((2, 9, 7), 1)
    even = partition(torch.ones(2, 9, 7), num_tokens=36, num_rows=6, kind=kind)
    for bounds in (Bounds(None, 1 / 6), Bounds(1 / 6, None), Bounds(1 / 6, 1 / 6)):
        leaf = scores.clone().requires_grad_()
        tight = partition(leaf, num_tokens=36, num_rows=6, kind=kind, bounds=bounds)
        assert_close(tuple(tight)[:2], tuple(even)[:2], rtol=0, atol=1e-9)
        tight.strip_edges.square().sum().backward()
        assert leaf.grad.isfinite().all()


def test_nothing_larger_than_the_bound_lies_in_one_region():
    generator = torch.Generator().manual_seed(3)
    for seed in range(20):
        bounds = Bounds(max_region=0.22)
        regions = partition(
            make_scores((1, 14, 14), seed), num_tokens=40, num_rows=6, bounds=bounds
        )
        labels = regions.label_map((100, 100))[0, 0]
        for top, left in torch.randint(0, 75, (40, 2), generator=generator).tolist():
            assert labels[top, left : left + 24].unique().numel() > 1  # an object 24 px wide
            assert labels[top : top + 24, left].unique().numel() > 1  # and one 24 px high


def test_a_count_for_each_image_gives_the_regions_that_it_has_alone():
    scores = make_scores((3, 14, 14), 4)
    tokens, rows, bounds = torch.tensor([30, 49, 64]), torch.tensor([5, 7, 8]), Bounds(0.05, 0.25)
    together = partition(
        scores, num_tokens=64, num_rows=9, counts=Counts(tokens, rows), bounds=bounds
    )
    for i in range(3):
        count, height = int(tokens[i]), int(rows[i])
        alone = partition(scores[i : i + 1], num_tokens=count, num_rows=height, bounds=bounds)
        assert_close(together.strip_edges[i : i + 1, : count + 1], alone.strip_edges)
        assert_close(together.row_edges[i : i + 1, :, : height + 1], alone.row_edges)


@pytest.mark.parametrize(
    ("kind", "num_frames", "num_tokens"), [("flow", 1, 7), ("flow", 2, 9), ("grid", 2, 12)]
)
def test_gradients_through_bounds_are_exact(kind, num_frames, num_tokens):
    def edges(scores: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        regions = partition(
            scores, num_tokens=num_tokens, num_rows=2, kind=kind, bounds=Bounds(0.2, 0.6)
        )
        return regions.row_edges, regions.strip_edges

    scores = torch.rand(2, num_frames, 4, 3, dtype=torch.float64) ** 3 + 0.05
    bounded = sides(partition(scores, num_tokens=num_tokens, num_rows=2, kind=kind))
    assert bounded.max() > 0.6  # else the bounds would not be tried
    assert gradcheck(edges, scores.requires_grad_())


class Peaked(nn.Module):
    """Scores of four decades across the picture, whatever it shows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return (10 ** torch.linspace(-2, 2, 49)).view(1, 7, 7).expand(len(images), -1, -1)


def tokenizer(**options) -> Tokenizer:
    parts = {"scorer": Peaked(), "proj": nn.Conv2d(3, 6, 4, 4), "num_tokens": 49, **options}
    return Tokenizer(**parts)


@pytest.mark.parametrize("kind", ["flow", "grid"])
def test_bounds_hold_at_any_strength_and_under_any_steering(kind):
    module = tokenizer(max_region=0.2, min_region=0.09, partition=kind)
    images = torch.randn(2, 3, 60, 60)
    box = [torch.tensor([[0.1, 0.1, 0.2, 0.15]])] * 2
    for strength in (0.0, 0.5, 1.0):
        module.set_strength(strength)
        for weight in (-8.0, 0.0, 8.0):
            found = sides(module.regions(images, Steering(box, weight)))
            assert found.min() >= 0.09 - SLACK
            assert found.max() <= 0.2 + SLACK
    module.set_strength(0.0)
    assert_close(
        module.regions(images).strip_edges,
        tokenizer(strength=0.0, partition=kind).regions(images).strip_edges,
        rtol=0,
        atol=1e-12,
    )


def test_every_count_of_a_budget_keeps_the_bounds():
    module = tokenizer(max_region=0.35).eval()
    module.set_budget(AutoBudget(30, least=20, most=60, step=5))
    for mass in (0.001, 0.02, 0.05):
        module.budget.mass_per_token.fill_(mass)
        regions = module.regions(torch.randn(3, 3, 48, 64))
        assert sides(regions).max() <= 0.35 + SLACK


@pytest.mark.refuses
def test_a_budget_that_may_give_too_few_tokens_is_refused():
    module = tokenizer(max_region=0.25)
    module.set_budget(AutoBudget(49, least=9))
    message = r"^max_region must be at least 0.3334 for 9 regions in 3 rows, got 0.25; "
    with pytest.raises(ValueError, match=message):
        module.regions(torch.randn(1, 3, 48, 48))
