"""Batches of streams: all of it once, the same over a break, and past damaged pictures."""

from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch
from refusals import refused

from dartok.data.columns import Columns
from dartok.data.feed import eval_feed, train_feed
from dartok.data.order import TrainOrder
from dartok.data.parquet import ParquetStream
from dartok.data.samples import RawSample, SourceError
from dartok.data.shards import ShardSource

from .conftest import png

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
"""Said by Python 3.12 and newer of the workers that PyTorch's loader forks."""


class Painted:
    """Shards of pictures whose red is their number; some are damaged, one shard may be broken."""

    class_names = ("even", "odd")

    def __init__(self, sizes, damaged=(), broken=None):
        self.sizes, self.damaged, self.broken = list(sizes), set(damaged), broken
        self.num_shards = len(self.sizes)

    def __len__(self):
        return sum(self.sizes)

    def read_shard(self, shard):
        first = sum(self.sizes[:shard])
        for number in range(first, first + self.sizes[shard]):
            if shard == self.broken:
                raise SourceError(f"shard {shard} is torn")
            data = b"" if number in self.damaged else png(number)
            yield RawSample(f"p{number}", number % 2, data)


def red(image):
    """The number of a picture, and noise."""
    level = torch.tensor(float(np.array(image)[0, 0, 0]))
    return torch.stack([level, torch.rand(()), torch.rand(())])[:, None, None]


def numbers(batches):
    return [int(level) for batch in batches for level in batch.images[:, 0].flatten().tolist()]


def same(batch, other):
    return (
        torch.equal(batch.images, other.images)
        and torch.equal(batch.labels, other.labels)
        and batch[2:] == other[2:]
    )


def train(source, start=0, stop=6, *, workers=0, buffer=3, **order):
    order = TrainOrder(**{"num_samples": len(source), "batch_size": 4, "seed": 5} | order)
    return list(train_feed(source, red, order, start, stop, shuffle_buffer=buffer, workers=workers))


@pytest.fixture(params=["parquet", "shards"])
def make_source(request, make_shards, make_parquet):
    """Function that makes a source of 14 pictures in so many shards."""

    def make(num_shards, **settings):
        if request.param == "parquet":
            path = make_parquet(14, group=-(-14 // num_shards), **settings)
            return ParquetStream([path], Columns())
        sizes = [len(part) for part in np.array_split(range(14), num_shards)]
        folder = make_shards(sizes, **settings)
        return ShardSource([str(path) for path in sorted(folder.glob("*.tar"))])

    return make


@pytest.mark.parametrize("num_shards", [1, 2, 7])
def test_processes_evaluate_each_picture_once_with_its_label(make_source, num_shards):
    source = make_source(num_shards)
    assert (len(source), source.num_shards) == (14, num_shards)
    for size in (1, 2, 3):
        shares = [list(eval_feed(source, red, 4, rank=r, world_size=size)) for r in range(size)]
        batches = list(chain(*shares))
        assert sorted(numbers(batches)) == list(range(14))
        assert len(set(chain(*(batch.names for batch in batches)))) == 14
        labels = [label for batch in batches for label in batch.labels.tolist()]
        assert labels == [number % 3 for number in numbers(batches)]


@pytest.mark.parametrize("num_shards", [1, 7])
def test_workers_evaluate_each_picture_once(make_source, num_shards):
    source = make_source(num_shards)
    shares = [eval_feed(source, red, 4, rank=r, world_size=2, workers=2) for r in range(2)]
    assert sorted(numbers(chain(*shares))) == list(range(14))


def test_damaged_pictures_are_left_out_of_an_evaluation_and_named(make_source):
    batches = list(eval_feed(make_source(2, damaged=(3, 9)), red, 4))
    assert sorted(numbers(batches)) == [n for n in range(14) if n not in (3, 9)]
    bad = [sample for batch in batches for sample in batch.bad]
    assert len(bad) == 2
    assert all(f"image {sample.name} cannot be read" in sample.reason for sample in bad)
    assert {sample.name for sample in bad}.isdisjoint(chain(*(b.names for b in batches)))


@pytest.mark.parametrize("settings", [{}, {"accumulate": 2}, {"num_repeats": 2}, {"world_size": 2}])
def test_resuming_gives_the_batches_of_a_run_without_a_break(settings):
    source = Painted([5, 6, 7], damaged=(2, 11))  # 4 steps an epoch
    whole = train(source, 0, 10, **settings)
    assert any(batch.bad for batch in whole)
    for start in (1, 4, 6):
        rest = train(source, start, 10, **settings)
        skipped = start * settings.get("accumulate", 1)
        assert len(rest) == len(whole) - skipped
        assert all(same(*pair) for pair in zip(whole[skipped:], rest, strict=True))


def test_resuming_with_workers_gives_the_batches_of_a_run_without_a_break():
    source = Painted([5, 6, 9], damaged=(2, 11))  # 5 steps an epoch: workers change places
    whole = train(source, 0, 13, workers=2)
    assert {len(batch.labels) for batch in whole} == {4}
    for start in (2, 7):
        rest = train(source, start, 13, workers=2)
        assert all(same(*pair) for pair in zip(whole[start:], rest, strict=True))


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_training_epoch_shows_each_picture_once(world_size):
    source = Painted([4] * 6)
    ranks = [train(source, 6, 12, rank=r, world_size=world_size) for r in range(world_size)]
    assert sorted(numbers(chain(*ranks))) == list(range(24))
    labels = [label for batch in chain(*ranks) for label in batch.labels.tolist()]
    assert labels == [number % 2 for number in numbers(chain(*ranks))]


def test_workers_show_each_picture_once_in_a_training_epoch():
    assert sorted(numbers(train(Painted([4] * 6), workers=2))) == list(range(24))


def test_epochs_and_seeds_differ():
    source = Painted([4] * 6)
    runs = [train(source, 0, 6), train(source, 6, 12), train(source, 0, 6, seed=6)]
    assert len({tuple(numbers(run)) for run in runs}) == 3


def test_the_copies_of_a_picture_follow_each_other_and_are_augmented_anew():
    batches = train(Painted([4] * 6), num_repeats=2)
    seen = numbers(batches)
    assert seen[::2] == seen[1::2]
    assert Counter(seen).most_common(1)[0][1] == 2
    noise = torch.cat([batch.images[:, 1] for batch in batches]).flatten()
    assert len(noise.unique()) == 24


def test_with_copies_the_epochs_show_other_pictures_of_the_same_long_shard():
    """Two copies of half of the pictures, then of the other half."""
    source = Painted([16])
    epochs = train(source, stop=8, num_repeats=2, buffer=1)
    seen = [set(numbers(epochs[:4])), set(numbers(epochs[4:]))]
    assert [len(found) for found in seen] == [8, 8]
    assert seen[0] | seen[1] == set(range(16))


def test_for_a_damaged_picture_the_next_one_stands_in():
    whole = train(Painted([24]), buffer=1)
    batches = train(Painted([24], damaged=(5, 6)), buffer=1)
    assert numbers(batches) == [7 if n in (5, 6) else n for n in numbers(whole)]
    assert [b.name for batch in batches for b in batch.bad] == ["p5", "p6", "p6"]
    assert batches[1].labels.tolist() == [0, 1, 1, 1]


def test_global_random_states_are_neither_touched_nor_used():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(Painted([9]), stop=2)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(same(*pair) for pair in zip(first, train(Painted([9]), stop=2), strict=True))


@pytest.mark.refuses
@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_shard_is_refused_in_one_line(workers):
    source = Painted([6, 6], broken=1)
    with refused("shard 1 is torn"):
        train(source, workers=workers)
    with refused("shard 1 is torn"):
        list(eval_feed(source, red, 4, workers=workers))


@pytest.mark.refuses
def test_many_damaged_pictures_in_a_row_are_refused():
    with refused(
        "no picture stands in for a damaged one: 16 in a row are damaged, such as p19 (image p19 "
        "cannot be read (not an image format that Pillow knows); it may be damaged or not an "
        "image: open it in a viewer and save it again); mend or remove them"
    ):
        train(Painted([24], damaged=range(4, 20)), buffer=1)
