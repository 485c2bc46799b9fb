"""A count for each image: what decides it, how its mean is held, and what is refused."""

import pytest
import torch
from torch.testing import assert_close

from dartok.core.budget import AutoBudget
from dartok.core.counts import Counts, rows_for
from dartok.core.partition import default_num_rows, partition
from dartok.core.sampling import sample_regions


@pytest.mark.parametrize("mean", [1, 4, 100, 196])
def test_counts_stay_in_their_bounds_and_on_their_steps(mean):
    budget = AutoBudget(mean).eval()
    counts = budget(torch.linspace(0, 10, 500))
    assert counts.min() >= budget.least
    assert counts.max() == budget.most
    inner = counts[counts < budget.most] - budget.least
    assert (inner % budget.step == 0).all()
    assert (counts.diff() >= 0).all()


def test_a_score_of_1_everywhere_asks_for_about_the_mean_at_the_start():
    budget = AutoBudget(196).eval()
    assert abs(int(budget(torch.ones(1))) - 196) <= budget.step / 2


def test_in_eval_mode_counts_do_not_depend_on_the_batch_nor_move_anything():
    budget = AutoBudget(64).eval()
    masses = torch.rand(10) * 3
    before = budget.mass_per_token.clone()
    together = budget(masses)
    assert torch.equal(together, torch.cat([budget(mass[None]) for mass in masses]))
    assert torch.equal(budget.mass_per_token, before)


def test_training_holds_the_mean_whatever_the_scale_of_the_scores():
    budget = AutoBudget(64, step=1).train()
    for _ in range(100):
        counts = budget(5 + 10 * torch.rand(64))
    means = [float(budget(5 + 10 * torch.rand(64)).double().mean()) for _ in range(20)]
    assert counts.min() >= budget.least
    assert abs(sum(means) / len(means) / 64 - 1) < 0.02


def test_no_mass_is_too_large():
    budget = AutoBudget(100).eval()
    assert budget(torch.tensor([1e18, 1e30, 1e38])).tolist() == [200, 200, 200]


def test_a_budget_made_on_meta_can_be_filled():
    with torch.device("meta"):
        budget = AutoBudget(10)
    assert budget.to_empty(device="cpu").mass_per_token.device.type == "cpu"


def test_padding_has_an_empty_box_and_rows_beyond_the_strip_belong_to_none():
    counts = Counts(torch.tensor([4, 2]), torch.tensor([3, 1]))
    regions = partition(torch.rand(2, 4, 4), num_tokens=4, num_rows=3, counts=counts)
    boxes = regions.boxes()
    sides = boxes[..., 2:] - boxes[..., :2]
    assert (sides >= 0).all()
    assert (sides[1, 2:] == 0).all()
    assert boxes[1, 1, 0] > 0.1
    one = partition(
        torch.rand(3, 4, 4), num_tokens=3, num_rows=2, counts=Counts(*[torch.tensor([2])] * 2)
    )
    assert one.select(slice(1, 2)).is_region().tolist() == [[True, True, False]]


def test_a_seam_after_an_images_last_row_fades_to_zero_whatever_the_padding():
    scores, images = torch.rand(2, 5, 5), torch.rand(2, 3, 40, 40)
    counts = Counts(torch.tensor([12, 5]), torch.tensor([4, 2]))
    together = partition(scores, num_tokens=12, num_rows=4, counts=counts)
    alone = partition(scores[1:], num_tokens=5, num_rows=2)
    patches = sample_regions(images, together, (4, 4), sampling="corner")
    expected = sample_regions(images[1:], alone, (4, 4), sampling="corner")
    assert_close(patches[1:, :5], expected, rtol=0, atol=1e-5)


def test_the_mass_of_a_token_stays_in_float32_and_is_saved():
    budget = AutoBudget(64).half()
    assert budget.mass_per_token.dtype == torch.float32
    budget.mass_per_token.fill_(0.3)
    other = AutoBudget(64)
    other.load_state_dict(budget.state_dict())
    assert float(other.mass_per_token) == pytest.approx(0.3)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": 0}, "mean must be >= 1, got 0"),
        ({"mean": 10, "least": 11}, "needs least <= mean <= most, got 11, 10, 20"),
        ({"mean": 10, "most": 9}, "needs least <= mean <= most, got 2, 10, 9"),
        ({"mean": 10, "step": 0}, "step must be >= 1, got 0"),
        ({"mean": 2.5}, "mean must be a whole number, got 2.5"),
    ],
)
def test_a_budget_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        AutoBudget(**options)


@pytest.mark.parametrize(("height", "width"), [(14, 14), (7, 20), (30, 9), (1, 50)])
def test_rows_follow_the_rule_of_a_fixed_count(height, width):
    tokens = torch.arange(1, 400)
    rows = rows_for(tokens, height / width, most=400)
    expected = [default_num_rows(int(count), height, width) for count in tokens]
    assert rows.tolist() == expected


@pytest.mark.parametrize("style", ["random", "wide", "hot"])
def test_the_regions_of_an_image_are_those_it_has_alone(style):
    scores = torch.rand(4, 9, 7, dtype=torch.float64) + 0.01
    if style == "wide":
        scores = 10 ** (6 * torch.rand(4, 9, 7, dtype=torch.float64) - 3)
    if style == "hot":
        scores = torch.full((4, 9, 7), 1e-6, dtype=torch.float64)
        scores[:, 3, 2] = 1.0
    counts = Counts(torch.tensor([5, 40, 1, 23]), torch.tensor([2, 7, 1, 5]))
    together = partition(scores, num_tokens=40, num_rows=7, counts=counts)
    images = torch.rand(4, 3, 50, 40, dtype=torch.float64)
    patches = sample_regions(images, together, (4, 4))
    positions = torch.rand(1, 6, 5, 5, dtype=torch.float64)
    assert patches.isfinite().all()
    for image, (count, rows) in enumerate(zip(*(c.tolist() for c in counts), strict=True)):
        alone = partition(scores[image, None], num_tokens=count, num_rows=rows)
        here = together.select(slice(image, image + 1))
        assert_close(here.row_edges[:, :, : rows + 1], alone.row_edges, rtol=0, atol=1e-12)
        assert_close(here.strip_edges[:, : count + 1], alone.strip_edges, rtol=0, atol=1e-9)
        assert (here.row_edges[:, :, rows:] == 1).all()
        assert (here.strip_edges[:, count:] == rows).all()
        assert here.is_region().sum() == count
        assert_close(here.areas()[:, :count], alone.areas(), rtol=0, atol=1e-12)
        assert here.areas()[:, count:].abs().sum() < 1e-12
        tokens = torch.rand(1, count, 3, dtype=torch.float64)
        padding = torch.full((1, 40 - count, 3), 1e6, dtype=torch.float64)
        painted = here.to_map(torch.cat([tokens, padding], 1), (6, 5))
        assert_close(painted, alone.to_map(tokens, (6, 5)), rtol=0, atol=1e-8)
        assert_close(
            here.to_tokens(positions)[:, :count], alone.to_tokens(positions), rtol=0, atol=1e-8
        )
        expected = sample_regions(images[image, None], alone, (4, 4))
        assert_close(patches[image, None, :count], expected, rtol=0, atol=1e-8)
        assert torch.equal(here.label_map((20, 20)), alone.label_map((20, 20)))


@pytest.mark.refuses
def test_only_flow_gives_each_image_its_own_count():
    counts = Counts(torch.tensor([4]), torch.tensor([2]))
    for kind in ("grid", "authors"):
        with pytest.raises(ValueError, match=f"needs partition='flow', got '{kind}'"):
            partition(torch.ones(1, 4, 4), num_tokens=4, num_rows=2, kind=kind, counts=counts)
