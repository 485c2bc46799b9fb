"""Parts of a stream: together all of it, nothing twice, for any numbers of shards and parts."""

from itertools import chain, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from dartok.data.parts import read_epoch, read_part, slices_of_part
from dartok.data.samples import RawSample


class Numbers:
    """Shards of so many numbers each, numbered through; notes which are opened."""

    class_names = ("even", "odd")

    def __init__(self, sizes):
        self.sizes, self.opened = list(sizes), []
        self.num_shards = len(self.sizes)

    def __len__(self):
        return sum(self.sizes)

    def read_shard(self, shard):
        self.opened.append(shard)
        first = sum(self.sizes[:shard])
        for number in range(first, first + self.sizes[shard]):
            yield RawSample(str(number), number % 2, b"")


def numbers(samples):
    return [int(sample.name) for sample in samples]


def epoch(sizes, part=0, num_parts=1, *, length=None, **settings):
    settings = {"seed": 0, "epoch": 0, "buffer": 4} | settings
    stream = read_epoch(Numbers(sizes), part, num_parts, **settings)
    return numbers(islice(stream, sum(sizes) if length is None else length))


@given(sizes=st.lists(st.integers(0, 5), min_size=1, max_size=9), num_parts=st.integers(1, 12))
def test_all_parts_read_each_picture_once_together(sizes, num_parts):
    order = list(reversed(range(len(sizes))))
    parts = [numbers(read_part(Numbers(sizes), order, p, num_parts)) for p in range(num_parts)]
    assert sorted(chain(*parts)) == list(range(sum(sizes)))


@given(num_shards=st.integers(1, 40), num_parts=st.integers(1, 12))
def test_no_part_opens_more_shards_than_its_share_and_one(num_shards, num_parts):
    for part in range(num_parts):
        slices = slices_of_part(num_shards, part, num_parts)
        assert len(slices) <= num_shards // num_parts + 1
        whole = sum(1 / each.step for each in slices)
        assert abs(whole - num_shards / num_parts) <= 1


def test_an_epoch_holds_each_picture_once_mixed_and_then_begins_again():
    sizes = [5, 5, 5]
    seen = epoch(sizes, length=30)
    assert sorted(seen[:15]) == sorted(seen[15:]) == list(range(15))
    assert seen[:15] != seen[15:]
    assert seen[:15] not in (list(range(15)), sorted(seen))


def test_epochs_seeds_and_parts_differ_and_each_is_the_same_again():
    sizes = [4] * 6
    assert epoch(sizes) == epoch(sizes)
    assert len({tuple(epoch(sizes, epoch=number)) for number in range(5)}) == 5
    assert epoch(sizes, seed=1) != epoch(sizes)
    assert set(epoch(sizes, 0, 2, length=12)).isdisjoint(epoch(sizes, 1, 2, length=12))


@pytest.mark.parametrize("buffer", [1, 3, 100])
def test_a_picture_waits_for_no_longer_than_the_buffer_lets_it(buffer):
    """The k-th picture out is among the first k + buffer ones in."""
    seen = epoch([50], buffer=buffer)
    assert sorted(seen) == list(range(50))
    assert all(number < place + buffer for place, number in enumerate(seen, 1))
    assert (seen == sorted(seen)) == (buffer == 1)


@pytest.mark.refuses
def test_a_part_without_a_picture_is_refused():
    with refused(
        "the stream must hold a picture for each of the 3 processes times workers, got none for "
        "number 3; lower --workers"
    ):
        epoch([2], 2, 3)
