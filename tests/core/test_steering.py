"""Steering: tokens go where the user says, by a rule that a test can follow."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from dartok.core.partition import partition
from dartok.core.regions import Regions
from dartok.core.steering import Steering, priority_map, steer_scores
from dartok.core.tokenizer import Tokenizer


def share_inside(regions: Regions, box: tuple[float, float, float, float]) -> float:
    """Tokens in a box, where a region counts by the share of its area that is inside."""
    labels = regions.label_map((200, 200))[0, 0]
    y, x = torch.meshgrid(*[(torch.arange(200) + 0.5) / 200] * 2, indexing="ij")
    inside = (box[0] <= x) & (x < box[2]) & (box[1] <= y) & (y < box[3])
    sizes = torch.bincount(labels.flatten(), minlength=regions.num_tokens)
    within = torch.bincount(labels[inside], minlength=regions.num_tokens)
    return float((within / sizes.clamp_min(1)).sum() / regions.num_tokens)


@given(
    seed=st.integers(0, 1000),
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    corner=st.tuples(st.floats(0, 0.6), st.floats(0, 0.6)),
    num_tokens=st.integers(60, 300),
)
@settings(max_examples=25)
def test_the_share_of_tokens_in_a_box_rises_with_its_weight(
    seed, height, width, corner, num_tokens
):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(1, height, width, generator=generator, dtype=torch.float64) + 0.1
    box = (*corner, corner[0] + 0.35, corner[1] + 0.35)
    shares = []
    for weight in (-2.0, -1.0, 0.0, 1.0, 2.0, 3.0):
        steered = steer_scores(scores, Steering([torch.tensor([box])], weight))
        regions = partition(steered, num_tokens=num_tokens, num_rows=round(num_tokens**0.5))
        shares.append(share_inside(regions, box))
    steps = [after - before for before, after in pairwise(shares)]
    assert min(steps) > -0.01  # pixels of the label map, by which shares are counted
    assert shares[-1] > shares[2] > shares[0]


def test_the_mass_in_a_box_is_e_to_the_weight_of_that_beside_it():
    scores = torch.ones(1, 4, 4, dtype=torch.float64)
    box = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    steered = steer_scores(scores, Steering([box], 2.0))
    assert steered.shape == (1, 32, 32)
    ratio = steered[0, :16, :16] / steered[0, 16:, 16:]
    assert_close(ratio, torch.full((16, 16), 2.0, dtype=torch.float64).exp())


@pytest.mark.parametrize("weight", [800.0, -800.0])
def test_any_weight_and_any_range_of_a_map_leave_scores_finite_and_positive(weight):
    priority = (255 * torch.rand(1, 9, 9)).to(torch.uint8)
    steered = steer_scores(torch.ones(1, 4, 4, dtype=torch.float64), Steering(priority, weight))
    regions = partition(steered, num_tokens=30, num_rows=5)
    assert steered.min() > 0
    assert regions.strip_edges.isfinite().all()
    assert (regions.strip_edges.diff() >= 0).all()


def test_weight_0_returns_the_scores_themselves_and_none_too():
    scores = torch.rand(2, 5, 5)
    boxes = [torch.tensor([[0.0, 0.0, 1.0, 1.0]])] * 2
    assert steer_scores(scores, Steering(boxes, 0.0)) is scores
    assert steer_scores(scores, None) is scores


@pytest.mark.parametrize("size", [(1, 1), (14, 14), (28, 28), (5, 40)])
def test_finer_cells_change_no_region(size):
    scores = torch.rand(1, *size, dtype=torch.float64) + 0.05
    nothing = torch.zeros(1, 8, 8, dtype=torch.float64)
    before = partition(scores, num_tokens=37, num_rows=5)
    after = partition(steer_scores(scores, Steering(nothing, 3.0)), num_tokens=37, num_rows=5)
    assert_close(after.row_edges, before.row_edges, rtol=0, atol=1e-12)
    assert_close(after.strip_edges, before.strip_edges, rtol=0, atol=1e-10)


def test_maps_boxes_and_points_mark_what_they_should():
    like = torch.ones(2, 4, 6, dtype=torch.float64)
    ramp = torch.arange(24.0).view(1, 4, 6)
    assert_close(priority_map(ramp, like)[0], ramp[0].double())
    assert_close(priority_map(ramp, torch.ones(1, 2, 3)), nn.functional.avg_pool2d(ramp, 2))
    boxes = [torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 1.0, 0.375]]), torch.empty(0, 4)]
    marked = priority_map(boxes, like)
    assert (marked[0, :2, :3] == 1).all()
    assert marked[0, 1, 4] == 0.5
    assert marked[1].count_nonzero() == 0
    as_lists = [[[0.0, 0.0, 0.5, 0.5], [0.25, 0.25, 1.0, 0.375]], np.empty((0, 4))]
    assert torch.equal(priority_map(as_lists, like), marked)
    points = [torch.tensor([[0.25, 0.625]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])]
    bumps = priority_map(points, like)
    assert bumps[0].flatten().argmax() == 2 * 6 + 1
    assert bumps[0].max() == 1
    assert_close(bumps[1, 0, 0], bumps[1].max())
    assert_close(bumps[1], bumps[1].flip(0, 1))


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("priority", "message"),
    [
        (torch.rand(3, 5, 5), r"must be a map \(B, h, w\) with B = 2 or 1"),
        (torch.rand(4, 4), r"got a tensor \(4, 4\)"),
        (
            torch.rand(2, 3, 4),
            r"map of some cells, got \(2, 3, 4\); boxes and points come as a list",
        ),
        (torch.rand(2, 0, 5), r"map of some cells, got \(2, 0, 5\)"),
        (torch.full((2, 3, 3), float("nan")), "priority must be finite, got NaN"),
        ([torch.rand(1, 4)], "one tensor of boxes or points for each of 2 images, got 1"),
        ([torch.rand(1, 3)] * 2, r"boxes \(M, 4\) or points \(M, 2\), got \(1, 3\)"),
        ([[0.0, 0.0, 1.0, 1.0]] * 2, r"boxes \(M, 4\) or points \(M, 2\), got \(4,\)"),
        ([[[0, 0, 50, 50]]] * 2, r"must lie in \[0, 1\] of the picture, got 0 to 50; divide"),
        ([torch.tensor([[0.9, 0.0, 0.1, 1.0]])] * 2, "left, top, right, bottom in order"),
    ],
)
def test_a_priority_that_does_not_fit_is_refused(priority, message):
    with pytest.raises(ValueError, match=message):
        steer_scores(torch.ones(2, 4, 4), Steering(priority, 1.0))


@pytest.mark.refuses
def test_a_weight_must_be_finite():
    with pytest.raises(ValueError, match="priority weight must be finite, got inf"):
        steer_scores(torch.ones(1, 4, 4), Steering(torch.ones(1, 2, 2), float("inf")))


class Darkness(nn.Module):
    def forward(self, images):
        return (-images.mean(1)).exp()


def test_steering_reaches_a_tokenizer_only_while_it_lasts():
    tokenizer = Tokenizer(scorer=Darkness(), proj=nn.Conv2d(3, 4, 8, 8), num_tokens=20)
    images, box = torch.rand(1, 3, 64, 64), torch.tensor([[0.0, 0.0, 0.4, 0.4]])
    before = tokenizer(images)
    with tokenizer.steered(Steering([box], 2.0)):
        steered = tokenizer(images)
        with tokenizer.steered(None):
            assert torch.equal(tokenizer(images).tokens, steered.tokens)
    with tokenizer.steered(Steering([box], 0.0)):
        assert torch.equal(tokenizer(images).tokens, before.tokens)
    assert torch.equal(tokenizer(images).tokens, before.tokens)
    assert share_inside(steered.regions, (0, 0, 0.4, 0.4)) > share_inside(
        before.regions, (0, 0, 0.4, 0.4)
    )
