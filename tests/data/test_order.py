"""Which picture comes when: properties that hold for every seed, world and place to resume at."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from dartok.data.order import Draw, TrainOrder, share_of_rank

SEEDS = st.integers(0, 2**63)


def steps(order, start, stop):
    """The draws of each step, its micro-batches joined."""
    batches = list(order.batches(start, stop))
    return [
        list(chain(*batches[first : first + order.accumulate]))
        for first in range(0, len(batches), order.accumulate)
    ]


@given(
    seed=SEEDS,
    num_samples=st.integers(8, 40),
    num_repeats=st.integers(1, 3),
    start=st.integers(0, 30),
    length=st.integers(0, 8),
)
def test_resuming_at_any_step_gives_the_draws_of_a_run_without_a_break(
    seed, num_samples, num_repeats, start, length
):
    order = TrainOrder(
        num_samples=num_samples, batch_size=8, seed=seed, num_repeats=num_repeats, accumulate=2
    )
    whole = list(order.batches(0, start + length))
    assert list(order.batches(start, start + length)) == whole[2 * start :]


@given(
    seed=SEEDS,
    num_samples=st.integers(72, 150),
    num_repeats=st.integers(1, 3),
    world_size=st.integers(1, 4),
    accumulate=st.integers(1, 3),
)
def test_all_processes_and_micro_batches_see_together_what_one_process_would(
    seed, num_samples, num_repeats, world_size, accumulate
):
    common = {"num_samples": num_samples, "batch_size": 72, "num_repeats": num_repeats}
    alone = steps(TrainOrder(seed=seed, **common), 1, 4)
    split = {"world_size": world_size, "accumulate": accumulate}
    ranks = [TrainOrder(seed=seed, rank=rank, **split, **common) for rank in range(world_size)]
    shares = [steps(order, 1, 4) for order in ranks]
    for number, step in enumerate(alone):
        dealt = zip(*(share[number] for share in shares), strict=True)
        assert list(chain(*dealt)) == step


@pytest.mark.parametrize(("world_size", "accumulate"), [(1, 1), (2, 1), (1, 3), (2, 3)])
def test_micro_batches_are_of_equal_size(world_size, accumulate):
    order = TrainOrder(
        num_samples=40, batch_size=12, seed=0, world_size=world_size, accumulate=accumulate
    )
    batches = list(order.batches(0, 5))
    assert len(batches) == 5 * accumulate
    assert {len(batch) for batch in batches} == {12 // world_size // accumulate}


@given(seed=SEEDS, num_samples=st.integers(4, 40), epoch=st.integers(0, 3))
def test_each_picture_comes_once_an_epoch_but_for_the_remainder(seed, num_samples, epoch):
    order = TrainOrder(num_samples=num_samples, batch_size=4, seed=seed)
    length = order.steps_per_epoch
    assert length == num_samples // 4
    draws = list(chain(*order.batches(epoch * length, (epoch + 1) * length)))
    assert {(draw.epoch, draw.repeat) for draw in draws} == {(epoch, 0)}
    samples = {draw.sample for draw in draws}
    assert len(samples) == len(draws) == num_samples - num_samples % 4
    assert samples <= set(range(num_samples))


@given(seed=SEEDS, num_samples=st.integers(6, 30), num_repeats=st.integers(2, 3))
def test_the_copies_of_a_picture_share_a_step_and_the_epoch_keeps_its_length(
    seed, num_samples, num_repeats
):
    order = TrainOrder(num_samples=num_samples, batch_size=6, seed=seed, num_repeats=num_repeats)
    assert order.steps_per_epoch == num_samples // 6
    seen = Counter()
    for step in steps(order, 0, order.steps_per_epoch):
        copies = Counter(draw.sample for draw in step)
        assert set(copies.values()) == {num_repeats}
        assert len(set(step)) == len(step)
        assert {draw.repeat for draw in step} == set(range(num_repeats))
        seen += copies
    assert set(seen.values()) == {num_repeats}
    assert len(seen) == 6 * order.steps_per_epoch // num_repeats


def test_epochs_that_repeat_pictures_get_round_to_all_of_them():
    order = TrainOrder(num_samples=12, batch_size=6, seed=0, num_repeats=3)
    epochs = [{d.sample for d in chain(*order.batches(e, e + 2))} for e in range(0, 24, 2)]
    assert {len(epoch) for epoch in epochs} == {4}
    assert set().union(*epochs) == set(range(12))


def test_where_a_step_ends_between_copies_the_next_one_goes_on_with_them():
    order = TrainOrder(num_samples=12, batch_size=4, seed=0, num_repeats=3)
    draws = list(chain(*order.batches(0, 3)))
    assert [draw.repeat for draw in draws] == [0, 1, 2] * 4
    assert [draw.sample for draw in draws[::3]] == [draw.sample for draw in draws[2::3]]


def test_epochs_and_seeds_differ_and_each_epoch_drops_others():
    order = TrainOrder(num_samples=23, batch_size=4, seed=5)
    epochs = [tuple(d.sample for b in order.batches(5 * e, 5 * e + 5) for d in b) for e in range(9)]
    assert len(set(epochs)) == 9
    assert len({frozenset(epoch) for epoch in epochs}) > 1
    other = TrainOrder(num_samples=23, batch_size=4, seed=6)
    assert list(other.batches(0, 5)) != list(order.batches(0, 5))


def test_the_order_is_no_function_of_global_random_states_and_leaves_them_alone():
    order = TrainOrder(num_samples=23, batch_size=4, seed=5)
    first = list(order.batches(0, 9))
    np.random.seed(7)
    torch.manual_seed(7)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()
    assert list(order.batches(0, 9)) == first
    np.testing.assert_array_equal(np.random.get_state()[1], states[0])
    assert torch.equal(torch.get_rng_state(), states[1])


def test_two_passes_at_once_do_not_disturb_each_other():
    order = TrainOrder(num_samples=9, batch_size=4, seed=5)
    both = list(zip(order.batches(0, 8), order.batches(0, 8), strict=True))
    assert all(one == other for one, other in both)
    assert [one for one, _ in both] == list(order.batches(0, 8))


def test_draws_are_plain_integers_that_travel_to_workers():
    (draw,) = next(TrainOrder(num_samples=3, batch_size=1, seed=0).batches(2, 3))
    assert isinstance(draw, Draw)
    assert [type(part) for part in draw] == [int, int, int]


@given(num_samples=st.integers(0, 50), world_size=st.integers(1, 7))
def test_the_ranks_evaluate_each_picture_once_and_equally_many(num_samples, world_size):
    shares = [list(share_of_rank(num_samples, rank, world_size)) for rank in range(world_size)]
    assert sorted(chain(*shares)) == list(range(num_samples))
    sizes = [len(share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.refuses
@pytest.mark.parametrize(("world_size", "accumulate"), [(3, 1), (1, 3), (2, 4)])
def test_a_batch_that_cannot_be_dealt_out_is_refused(world_size, accumulate):
    with refused(
        f"batch-size must be a multiple of the {world_size} processes times "
        f"--accumulate {accumulate}, got 10; change --batch-size"
    ):
        TrainOrder(
            num_samples=99, batch_size=10, seed=0, world_size=world_size, accumulate=accumulate
        )


@pytest.mark.refuses
@pytest.mark.parametrize("num_repeats", [1, 3])
def test_a_batch_larger_than_an_epoch_is_refused(num_repeats):
    TrainOrder(num_samples=7, batch_size=7, seed=0, num_repeats=num_repeats)
    with refused(
        "batch-size must be at most the 7 training pictures of an epoch, got 8; lower --batch-size"
    ):
        TrainOrder(num_samples=7, batch_size=8, seed=0, num_repeats=num_repeats)
