"""Which objects are told apart, and the size from which on most are."""

import pytest
import torch

from dartok.tasks.segmentation.ceiling import count_regions
from dartok.tasks.segmentation.components import connected_components
from dartok.tasks.segmentation.resolution import (
    Objects,
    join_objects,
    objects_in,
    resolved_by_class,
    smallest_resolved_px,
)


def objects_of(labels, regions):
    counts = count_regions(labels, regions, int(regions.max()) + 1)
    return objects_in(labels, connected_components(labels), regions, counts)


def sized(*groups):
    """Objects of a side, so many of them, so many of those resolved."""
    parts = []
    for side_px, number, resolved in groups:
        pixels = torch.full((number,), side_px**2)
        covered = pixels * (torch.arange(number) < resolved)
        parts.append(Objects(torch.zeros(number, dtype=torch.long), pixels, covered))
    return join_objects(parts)


def test_an_object_is_resolved_by_half_of_its_pixels():
    labels = torch.zeros(6, 8, dtype=torch.long)
    labels[1:3, 1:5] = 1  # 8 pixels
    labels[4:6, 6:8] = 2
    regions = torch.zeros_like(labels)
    regions[1:3, 1:3] = 1  # 4 of the 8, all of class 1
    regions[4, 6] = 2  # 1 of 4
    objects = objects_of(labels, regions)
    assert objects.label.tolist() == [0, 1, 2]
    assert objects.pixels.tolist() == [36, 8, 4]
    assert objects.covered.tolist() == [36, 4, 1]
    assert objects.resolved.tolist() == [True, True, False]


def test_a_region_of_another_majority_resolves_nothing():
    labels, regions = torch.tensor([[1, 1, 0, 0, 0]]), torch.tensor([[0, 0, 0, 0, 0]])
    assert objects_of(labels, regions).resolved.tolist() == [False, True]


def test_pieces_of_no_class_are_no_objects():
    labels = torch.tensor([[255, 0, 255, 1]])
    objects = objects_of(labels, torch.tensor([[0, 1, 2, 3]]))
    assert objects.label.tolist() == [0, 1]
    assert objects.resolved.all()


def test_regions_of_a_pixel_resolve_every_object():
    labels = torch.randint(4, (20, 20))
    assert objects_of(labels, torch.arange(400).view(20, 20)).resolved.all()


@pytest.mark.parametrize(("share", "expected_px"), [(0.5, 8), (0.9, 32)])
def test_the_smallest_side_is_that_above_the_first_failing_size(share, expected_px):
    objects = sized((2, 20, 20), (4, 20, 9), (8, 20, 10), (16, 20, 17), (32, 20, 18), (64, 10, 10))
    assert smallest_resolved_px(objects, share) == pytest.approx(expected_px)


def test_few_objects_of_a_size_are_taken_with_smaller_ones():
    assert smallest_resolved_px(sized((8, 19, 19), (64, 1, 0)), 0.9) == 8
    assert smallest_resolved_px(sized((8, 10, 10), (64, 10, 0)), 0.9) is None


def test_the_few_smallest_ones_count_by_themselves():
    assert smallest_resolved_px(sized((1, 2, 2), (8, 10, 10)), 0.9) == 1
    assert smallest_resolved_px(sized((1, 2, 0), (8, 10, 10)), 0.9) == 8


def test_sides_fall_into_two_bins_for_each_doubling():
    assert smallest_resolved_px(sized((8, 10, 0), (12, 10, 10)), 0.5) == pytest.approx(8 * 2**0.5)


def test_without_objects_there_is_no_size():
    empty = torch.zeros(0, dtype=torch.long)
    assert smallest_resolved_px(Objects(empty, empty, empty), 0.5) is None


def test_shares_are_told_by_class():
    objects = Objects(*(torch.tensor(v) for v in ([0, 0, 2, 2], [4] * 4, [4, 0, 2, 2])))
    shares = resolved_by_class(objects, 3)
    assert shares[[0, 2]].tolist() == [0.5, 1]
    assert shares[1].isnan()
