"""Batches: the same whoever makes them and whenever, past damaged pictures, counting them."""

import random
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.digit_source import DigitSource
from dartok.data.digits import CanvasConfig
from dartok.data.folder import FolderSource
from dartok.data.loading import BadSamples, eval_batches, seeded, train_batches
from dartok.data.order import Draw, TrainOrder, share_of_rank
from dartok.data.samples import BadSample, Batch
from dartok.data.transforms import train_transform

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
"""Said by Python 3.12 and newer of the workers that PyTorch's loader forks."""

PIXELS = PixelConfig(size_px=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
VARIED = AugmentConfig(auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5)
WORKERS = pytest.mark.parametrize("workers", [0, 2])


def levels(image):
    """Pixels as they are, from 0 to 255."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def noisy(image):
    """Draws from each generator that libraries of augmentation draw from."""
    noise = torch.rand(()).item(), np.random.rand(), random.random()
    return levels(image) + torch.tensor(noise)[:, None, None]


def global_states():
    return torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()


def same(batch, other):
    return (
        torch.equal(batch.images, other.images)
        and torch.equal(batch.labels, other.labels)
        and batch[2:] == other[2:]
    )


def colours(batch):
    """Red and green of each picture: which it is, and how often its class came before it."""
    return batch.images[:, :2, 0, 0].tolist() if len(batch.images) else []


class Imagined:
    """A source without files, of which some pictures cannot be read."""

    class_names = ("even", "odd")

    def __init__(self, count, damaged=()):
        self.count, self.damaged = count, set(damaged)

    def __len__(self):
        return self.count

    def label(self, index):
        return index % 2

    def name(self, index):
        return f"p{index}"

    def load(self, index):
        if index in self.damaged:
            raise ValueError("torn")
        return Image.new("RGB", (4, 4), (index % 256, index // 256, 0))


def test_a_batch_holds_the_pictures_and_labels_that_are_drawn(make_folder):
    source = FolderSource(make_folder(4))
    draws = [[Draw(11, 0, 0), Draw(0, 0, 0)], [Draw(5, 1, 0), Draw(5, 1, 1), Draw(6, 1, 0)]]
    first, second = train_batches(source, levels, draws, seed=0)
    assert colours(first) == [[160, 3], [0, 0]]
    assert first.labels.tolist() == [2, 0]
    assert colours(second) == [[80, 1], [80, 1], [80, 2]]
    assert second.labels.tolist() == [1, 1, 1]
    assert first.bad == second.bad == ()


def test_batches_are_the_same_without_and_with_workers(make_folder, damage):
    root = make_folder(8, suffix=".jpg", size_px=20)
    damage(root / "bee" / "002.jpg")
    source = FolderSource(root)
    order = TrainOrder(num_samples=24, batch_size=8, seed=3, num_repeats=2, accumulate=2)
    runs = [
        train_batches(
            source, train_transform(VARIED, PIXELS), order.batches(2, 10), seed=3, workers=workers
        )
        for workers in (0, 2)
    ]
    batches = list(zip(*runs, strict=True))
    assert len(batches) == 16
    assert all(same(alone, with_workers) for alone, with_workers in batches)
    assert any(alone.bad for alone, _ in batches)


def test_drawn_digits_are_the_same_without_and_with_workers():
    source = DigitSource(CanvasConfig(size_px=96), split="train", num_canvases=8)
    alone, with_workers = (
        list(eval_batches(source, levels, range(8), 4, workers=workers)) for workers in (0, 2)
    )
    assert all(same(*pair) for pair in zip(alone, with_workers, strict=True))


def test_resuming_gives_the_batches_of_a_run_without_a_break():
    order = TrainOrder(num_samples=10, batch_size=4, seed=1, num_repeats=2)
    whole, rest = (
        list(train_batches(Imagined(10), noisy, order.batches(start, 9), seed=1))
        for start in (0, 4)
    )
    assert len(rest) == 5
    assert all(same(*pair) for pair in zip(whole[4:], rest, strict=True))


def test_augmentation_depends_on_seed_picture_epoch_and_copy_and_not_on_the_batch():
    draws = [Draw(3, 0, 0), Draw(3, 1, 0), Draw(3, 0, 1), Draw(4, 0, 0)]
    (together,) = train_batches(Imagined(9), noisy, [draws], seed=0)
    alone = [next(train_batches(Imagined(9), noisy, [[draw]], seed=0)) for draw in draws]
    assert torch.equal(together.images, torch.cat([batch.images for batch in alone]))
    (other_seed,) = train_batches(Imagined(9), noisy, [draws], seed=1)
    noise = torch.cat([together.images, other_seed.images]).frac()[:, :, 0, 0]
    for channel in range(3):  # one for each generator
        assert len(noise[:, channel].unique()) == 8


@WORKERS
def test_global_random_states_are_neither_touched_nor_used(workers):
    draws, batches = [[Draw(0, 0, 0)], [Draw(1, 0, 0)]], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        before = global_states()
        batches.append(list(train_batches(Imagined(9), noisy, draws, seed=0, workers=workers)))
        list(eval_batches(Imagined(9), levels, range(9), 4, workers=workers))
        assert global_states() == before
    assert all(same(*pair) for pair in zip(*batches, strict=True))


def test_states_come_back_after_an_error_too():
    def fail():
        with seeded(0, 1):
            noisy(Image.new("RGB", (2, 2)))
            raise KeyError

    before = global_states()
    with pytest.raises(KeyError):
        fail()
    assert global_states() == before


def test_each_integer_of_the_key_matters_and_where_it_stands():
    keys = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (2**40, 0, 0, 0)]
    drawn = []
    for key in keys:
        with seeded(*key):
            drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))
    for values in zip(*drawn, strict=True):
        assert len(set(values)) == len(keys)


@WORKERS
def test_for_a_damaged_picture_another_stands_in_with_its_own_label(make_folder, damage, workers):
    root = make_folder(4)
    damage(root / "bee" / "003.png")  # the next picture is of another class
    draws = [[Draw(index, 0, 0) for index in (6, 7, 8)]]
    (batch,) = train_batches(FolderSource(root), levels, draws, seed=0, workers=workers)
    assert len(batch.labels) == 3
    assert [red for red, _ in colours(batch)] == [80 * label for label in batch.labels.tolist()]
    assert [80, 3] not in colours(batch)
    (bad,) = batch.bad
    assert bad.name == "bee/003.png"
    assert "bee/003.png cannot be read" in bad.reason


def test_many_damaged_neighbours_do_not_stop_a_run():
    source = Imagined(400, damaged=range(100, 120))
    (batch,) = train_batches(source, levels, [[Draw(100, 0, 0), Draw(119, 0, 0)]], seed=0)
    assert len(batch.labels) == 2
    assert [bad.name for bad in batch.bad] == ["p100", "p119"]


def test_in_a_small_source_the_only_readable_picture_stands_in_for_all():
    source = Imagined(15, damaged=set(range(15)) - {4})
    (batch,) = train_batches(source, levels, [[Draw(i, 0, 0) for i in range(15)]], seed=0)
    assert colours(batch) == [[4, 0]] * 15
    assert {bad.name for bad in batch.bad} == {f"p{i}" for i in range(15)} - {"p4"}


@pytest.mark.refuses
@pytest.mark.parametrize(("count", "tried", "last"), [(40, 16, "p30"), (3, 3, "p2")])
@WORKERS
def test_damaged_pictures_without_a_stand_in_are_refused_in_one_line(count, tried, last, workers):
    source = Imagined(count, damaged=range(count))
    batches = train_batches(source, levels, [[Draw(0, 0, 0)]], seed=0, workers=workers)
    with refused(
        f"no picture stands in for a damaged one: of {count} pictures, {tried} were tried and all "
        f"are damaged, such as {last} (torn); mend or remove them"
    ):
        next(batches)


@WORKERS
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_sees_each_readable_picture_once(make_folder, damage, world_size, workers):
    root = make_folder(5)
    damaged = ["ant/000.png", "bee/003.png", "cat/004.png"]
    for name in damaged:
        damage(root / name)
    source = FolderSource(root)
    shares = [share_of_rank(len(source), rank, world_size) for rank in range(world_size)]
    batches = [
        batch
        for share in shares
        for batch in eval_batches(source, levels, share, 4, workers=workers)
    ]
    assert len(batches) == sum(-(-len(share) // 4) for share in shares)
    names = list(chain(*(batch.names for batch in batches)))
    everything = {source.name(index) for index in range(15)}
    assert sorted(names) == sorted(everything - set(damaged))
    assert sorted(bad.name for batch in batches for bad in batch.bad) == damaged
    for batch in batches:
        expected = [source.class_names.index(name.split("/")[0]) for name in batch.names]
        assert batch.labels.tolist() == expected
        numbers = [int(name[-7:-4]) for name in batch.names]
        assert colours(batch) == [[80 * c, n] for c, n in zip(expected, numbers, strict=True)]


def test_evaluation_keeps_the_order_of_the_indices():
    batches = list(eval_batches(Imagined(9), levels, range(9), 4))
    assert [batch.names for batch in batches] == [
        ("p0", "p1", "p2", "p3"),
        ("p4", "p5", "p6", "p7"),
        ("p8",),
    ]
    assert [batch.labels.tolist() for batch in batches] == [[0, 1, 0, 1], [0, 1, 0, 1], [0]]


def test_an_evaluated_batch_without_a_readable_picture_is_empty():
    (batch,) = eval_batches(Imagined(2, damaged=(0, 1)), levels, range(2), 4)
    assert batch.images.shape[:2] == (0, 3)
    assert batch.labels.shape == (0,)
    assert batch.labels.dtype == torch.int64
    assert batch.bad == (BadSample("p0", "torn"), BadSample("p1", "torn"))


def test_a_process_without_pictures_to_evaluate_has_no_batches():
    for workers in (0, 2):
        assert list(eval_batches(Imagined(2), levels, range(0), 4, workers=workers)) == []


def test_a_batch_moves_with_all_it_holds():
    batch = Batch(torch.ones(1, 3, 2, 2), torch.tensor([1]), (BadSample("a", "torn"),), ("b",))
    moved = batch.to(torch.device("meta"))
    assert moved.images.is_meta
    assert moved.labels.is_meta
    assert moved[2:] == batch[2:]


def test_damaged_pictures_are_counted_once_each():
    bad = BadSamples(num_samples=10, max_share=0.5)
    torn, empty = BadSample("a", "torn"), BadSample("b", "empty")
    assert bad.add([torn, torn, empty]) == ["a", "b"]
    assert bad.add([empty]) == []
    assert bad.add(iter([BadSample("c", "torn"), torn])) == ["c"]
    assert bad.reasons == {"a": "torn", "b": "empty", "c": "torn"}


@pytest.mark.parametrize(("share", "allowed"), [(0.29, 29), (0.07, 7), (0.0, 0), (1.0, 100)])
def test_exactly_the_allowed_share_may_be_damaged(share, allowed):
    bad = BadSamples(num_samples=100, max_share=share)
    assert len(bad.add(BadSample(f"p{i}", "torn") for i in range(allowed))) == allowed


@pytest.mark.refuses
def test_a_run_stops_above_the_allowed_share_and_names_the_last():
    bad = BadSamples(num_samples=100, max_share=0.02)
    bad.add([BadSample("a", "torn"), BadSample("b", "torn")])
    bad.add([BadSample("a", "torn")])
    with refused(
        "3 of 100 pictures are damaged, more than max-bad-share = 0.02; last d (not an image): "
        "mend or remove them, or raise --max-bad-share"
    ):
        bad.add([BadSample("d", "not an image"), BadSample("a", "torn")])
