"""The ceiling against every labelling there is, on pictures small enough to try them all."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from dartok.core.partition import partition
from dartok.tasks.segmentation.ceiling import (
    attained_iou,
    ceiling,
    count_regions,
    highest_iou,
    join_counts,
    majority_class,
)

IGNORE = 255
ROUNDING = 1e-12


@st.composite
def small_cases(draw):
    """Labels of some pixels, and the region of each: at most 6 regions and 3 classes."""
    num_pixels = draw(st.integers(4, 14))
    num_regions = draw(st.integers(1, 6))
    pixels = st.lists(st.sampled_from([0, 1, 2, IGNORE]), min_size=num_pixels, max_size=num_pixels)
    labels = draw(pixels.filter(lambda found: set(found) != {IGNORE}))
    regions = st.lists(st.integers(0, num_regions - 1), min_size=num_pixels, max_size=num_pixels)
    return np.array(labels), np.array(draw(regions)), num_regions


def iou_of(labels, predicted, num_classes=3):
    """The definition, pixel by pixel; NaN for a class that no pixel has."""
    known = labels != IGNORE
    labels, predicted = labels[known], predicted[known]
    found = []
    for c in range(num_classes):
        either = np.sum((labels == c) | (predicted == c))
        both = np.sum((labels == c) & (predicted == c))
        found.append(both / either if np.any(labels == c) else np.nan)
    return np.array(found)


def counts_of(labels, regions, num_regions):
    return count_regions(torch.tensor(labels)[None], torch.tensor(regions)[None], num_regions)


def every_iou(labels, regions, num_regions, num_classes=3):
    """IoU of every labelling of the regions."""
    labellings = itertools.product(range(num_classes), repeat=num_regions)
    return np.array([iou_of(labels, np.array(given)[regions]) for given in labellings])


@given(small_cases())
@settings(max_examples=60, deadline=None)
def test_no_labelling_exceeds_the_ceiling_and_each_class_alone_attains_it(case):
    labels, regions, num_regions = case
    counts = counts_of(*case)
    every = every_iou(labels, regions, num_regions)
    best_of_each = every.max(0)
    highest = highest_iou(counts, 3).numpy()
    np.testing.assert_allclose(highest, best_of_each, rtol=0, atol=ROUNDING)
    assert np.nanmean(every, axis=1).max() <= ceiling(counts, 3).miou + ROUNDING


@given(small_cases())
@settings(max_examples=60, deadline=None)
def test_what_is_attained_is_a_labelling_as_good_as_the_majority_at_least(case):
    labels, regions, num_regions = case
    counts = counts_of(*case)
    attained = attained_iou(counts, 3).numpy()
    every = every_iou(labels, regions, num_regions)
    distance = np.nan_to_num(np.abs(every - attained)).max(1)
    assert distance.min() < ROUNDING
    majority = majority_class(counts).clamp(0).numpy()[regions]
    assert np.nanmean(attained) >= np.nanmean(iou_of(labels, majority)) - ROUNDING


@given(small_cases(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_region_cut_in_two_never_lowers_the_ceiling(case, data):
    labels, regions, num_regions = case
    halves = data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    finer = regions + num_regions * np.array(halves)
    before = highest_iou(counts_of(*case), 3)
    after = highest_iou(counts_of(labels, finer, 2 * num_regions), 3)
    assert bool((before.isnan() | (after >= before - ROUNDING)).all())


def test_what_is_attained_favours_a_rare_class_that_has_no_majority():
    labels = np.array([0] * 90 + [0] * 6 + [1] * 4)
    regions = np.array([0] * 90 + [1] * 10)
    counts = counts_of(labels, regions, 2)
    assert majority_class(counts).tolist() == [0, 0]
    expected = torch.tensor([90 / 96, 4 / 10], dtype=torch.float64)
    assert_close(attained_iou(counts, 2), expected)


def test_a_gain_is_weighed_by_how_much_of_the_class_there_is():
    labels = np.array([0] * 1000 + [1] * 20 + [0] * 50 + [1] * 30)
    regions = np.array([0] * 1000 + [1] * 20 + [2] * 80)
    expected = torch.tensor([1000 / 1050, 50 / 100], dtype=torch.float64)
    assert_close(attained_iou(counts_of(labels, regions, 3), 2), expected)


@pytest.mark.parametrize("seed", range(5))
def test_what_any_labels_of_real_regions_reach_is_below_the_ceiling(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(4, (24, 31), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = IGNORE
    scores = torch.rand(1, 6, 6, generator=generator) + 0.05
    regions = partition(scores, num_tokens=20, num_rows=4)
    region_map = regions.label_map((24, 31))[0, 0]
    highest = ceiling(count_regions(labels, region_map, 20), 4)
    assert highest.attained_miou <= highest.miou
    for _ in range(50):
        given_classes = torch.randint(4, (20,), generator=generator)
        reached = iou_of(labels.numpy(), given_classes[region_map].numpy(), 4)
        assert bool((torch.from_numpy(reached) <= highest.highest + ROUNDING).all())
        assert reached.mean() <= highest.miou + ROUNDING


def test_pictures_are_counted_together_not_one_by_one():
    first = (np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]), 2)
    second = (np.array([1, 1, 2, IGNORE, 1]), np.array([0, 2, 2, 1, 1]), 3)
    joined = join_counts([counts_of(*first), counts_of(*second)])
    whole = counts_of(
        np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1] + 2]), 5
    )
    for part, expected in zip(joined, whole, strict=True):
        assert_close(part, expected)


def test_regions_of_one_pixel_have_no_ceiling_below_one():
    labels = torch.randint(3, (5, 7))
    reached = ceiling(count_regions(labels, torch.arange(35).view(5, 7), 35), 3)
    assert reached.miou == reached.attained_miou == 1


def test_a_class_without_pixels_is_left_out_of_the_mean():
    reached = ceiling(count_regions(torch.tensor([[0, 2]]), torch.tensor([[0, 1]]), 2), 4)
    assert reached.highest.isnan().tolist() == [False, True, False, True]
    assert reached.attained.isnan().tolist() == [False, True, False, True]
    assert reached.miou == 1


def test_ignored_pixels_count_nowhere():
    labels, regions = torch.tensor([[0, 0, IGNORE, 1]]), torch.tensor([[0, 0, 0, 1]])
    counts = count_regions(labels, regions, 3)
    assert counts.valid.tolist() == [2, 1, 0]
    assert ceiling(counts, 2).miou == 1
    assert majority_class(counts).tolist() == [0, 1, -1]
    other = count_regions(torch.tensor([[0, 0, 7, 1]]), regions, 3, ignore=7)
    assert_close(other.pixels, counts.pixels)


def test_labels_of_eight_bits_count_as_those_of_64():
    labels, regions = torch.randint(200, (9, 9)), torch.arange(81).view(9, 9) // 4
    small, large = (count_regions(labels.to(t), regions, 21) for t in (torch.uint8, torch.int64))
    assert_close(small.pixels, large.pixels)
    assert_close(small.label, large.label)
