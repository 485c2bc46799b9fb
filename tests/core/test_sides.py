"""Which bounds are refused, and that the remedies named work."""

import re

import pytest
import torch

from dartok.core.partition import partition
from dartok.core.sides import Bounds, bounds_of, check_bounded_kind, check_bounds


def test_without_a_bound_there_are_none():
    assert bounds_of(None, None) is None
    assert bounds_of(0.1, None) == Bounds(0.1, None)
    check_bounds(None, 1, 1)


@pytest.mark.parametrize(("num_tokens", "num_rows"), [(196, 14), (49, 7), (81, 9), (12, 3), (7, 1)])
def test_the_even_grid_is_always_possible(num_tokens, num_rows):
    means = 1 / num_rows, num_rows / num_tokens
    check_bounds(Bounds(min(means), max(means)), num_tokens, num_rows)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((0, None), r"^min_region must be above 0 and at most 1, a share of .*, got 0$"),
        ((None, 1.5), r"^max_region must be above 0 and at most 1, a share of .*, got 1.5$"),
        ((None, float("nan")), r"^max_region must be above 0 .* got nan$"),
        ((0.5, 0.2), r"^min_region must be at most max_region = 0.2, got 0.5; swap them$"),
    ],
)
def test_bounds_that_are_no_shares_or_exclude_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bounds_of(*options)


@pytest.mark.refuses
@pytest.mark.parametrize(("num_tokens", "num_rows", "num_frames"), [(196, 14, 1), (50, 3, 1)])
@pytest.mark.parametrize("name", ["min_region", "max_region"])
def test_bounds_that_cannot_be_kept_are_refused_with_the_nearest_that_can(
    name, num_tokens, num_rows, num_frames
):
    impossible = {"min_region": 0.5, "max_region": 0.02}
    options = {"num_tokens": num_tokens, "num_rows": num_rows}
    scores = torch.rand(2, num_frames, 6, 6) + 0.1
    with pytest.raises(ValueError, match=rf"^{name} must be at (most|least) 0\.") as refusal:
        partition(scores, **options, bounds=Bounds(**{name: impossible[name]}))
    nearest = float(re.search(r"at (?:most|least) ([\d.]+) for", str(refusal.value))[1])
    partition(scores, **options, bounds=Bounds(**{name: nearest}))
    beyond = nearest * (1.01 if name == "min_region" else 0.99)  # nothing nearer is possible
    with pytest.raises(ValueError, match=name):
        partition(scores, **options, bounds=Bounds(**{name: beyond}))


@pytest.mark.refuses
def test_rows_that_would_keep_a_bound_are_named():
    message = r"got 0.12; raise it, give num_rows from 9 to 11, or ask for more regions$"
    with pytest.raises(ValueError, match=message):
        check_bounds(Bounds(max_region=0.12), 98, 7)
    for num_rows in (9, 11):
        check_bounds(Bounds(max_region=0.12), 98, num_rows)
    with pytest.raises(ValueError, match=r"give num_rows from 5 to 10, or ask for fewer regions$"):
        check_bounds(Bounds(min_region=0.1), 50, 2)


@pytest.mark.refuses
def test_a_clip_of_too_few_regions_has_no_largest():
    message = r"^max_region needs a region for each of 8 rows, got 5; ask for more regions or fewer"
    with pytest.raises(ValueError, match=message):
        check_bounds(Bounds(max_region=1.0), 5, 2, num_frames=4)


@pytest.mark.refuses
def test_the_authors_partition_keeps_no_bounds():
    check_bounded_kind(None, "authors")
    message = r"^min_region and max_region need partition='flow' or 'grid', got 'authors'$"
    with pytest.raises(ValueError, match=message):
        partition(torch.ones(1, 4, 4), num_tokens=4, num_rows=2, kind="authors", bounds=Bounds(0.1))
