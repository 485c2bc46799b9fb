"""Batches of clips: reproducible, past damage that shows only in decoding, which is named."""

import tarfile
from itertools import chain

import av
import numpy as np
import pytest
import torch
from clip_files import write_video
from refusals import refused

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.clips.sources import ClipFolder, ClipList, clip_shards
from dartok.data.clips.transforms import eval_clip_transform, train_clip_transform
from dartok.data.feed import eval_feed, train_feed
from dartok.data.order import TrainOrder
from dartok.data.samples import DamagedError

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
"""Said by Python 3.12 and newer of the workers that PyTorch's loader forks."""

PIXELS = PixelConfig(size_px=16, mean=(0.5,) * 3, std=(0.5,) * 3)
CLIP = ClipConfig(num_frames=4, num_clips=2)
EVAL = eval_clip_transform(PIXELS, CLIP)
SOURCES = pytest.mark.parametrize("kind", ["folder", "list", "shards"])
CLASSES = ("a", "b")


def spoil(path):
    """Zeros instead of the frames from the second key frame on: only decoding them tells."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets][14:16]
    data = bytearray(path.read_bytes())
    for place, size in places:
        data[place + 8 : place + size] = bytes(size - 8)
    path.write_bytes(data)


@pytest.fixture
def make_source(tmp_path):
    """Function that makes a source of so many videos of each class; some are damaged within."""

    def make(kind, per_class=3, within=(), cut=()):
        names = [f"{name}/{number}.mp4" for name in CLASSES for number in range(per_class)]
        for place, name in enumerate(names):
            path = write_video(tmp_path / "train" / name, num_frames=30, first=20 * place)
            if name in within:
                spoil(path)
            if name in cut:
                path.write_bytes(path.read_bytes()[:3000])
        if kind == "folder":
            return ClipFolder(tmp_path / "train")
        if kind == "list":
            lines = [f"{name},{name[0]}\n" for name in names]
            (tmp_path / "train.csv").write_text("".join(lines))
            return ClipList(tmp_path / "train.csv", tmp_path / "train")
        with tarfile.open(tmp_path / "0.tar", "w") as tar:
            for place, name in enumerate(names):
                tar.add(tmp_path / "train" / name, f"{place:03}.mp4")
                (tmp_path / "label").write_text(name[0])
                tar.add(tmp_path / "label", f"{place:03}.cls")
        return clip_shards([str(tmp_path / "0.tar")], CLASSES)

    return make


def train(source, workers=0, stop=3):
    transform = train_clip_transform(AugmentConfig(random_erasing=0.5), PIXELS, CLIP)
    order = TrainOrder(num_samples=len(source), batch_size=2, seed=3)
    return list(train_feed(source, transform, order, 0, stop, shuffle_buffer=4, workers=workers))


@SOURCES
def test_clips_come_in_batches_with_their_labels(make_source, kind):
    source = make_source(kind)
    batches = train(source)
    assert [batch.images.shape for batch in batches] == [(2, 4, 3, 16, 16)] * 3
    assert sorted(chain(*(batch.labels.tolist() for batch in batches))) == [0, 0, 0, 1, 1, 1]
    views = list(eval_feed(source, EVAL, 4))
    assert [batch.images.shape for batch in views] == [(4, 2, 4, 3, 16, 16), (2, 2, 4, 3, 16, 16)]
    assert list(chain(*(batch.labels.tolist() for batch in views))) == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("kind", ["folder", "list"])
def test_batches_are_the_same_with_workers_and_again(make_source, kind):
    source = make_source(kind, within=["a/1.mp4"])
    alone, again, with_workers = train(source), train(source), train(source, workers=2)
    for first, *others in zip(alone, again, with_workers, strict=True):
        for other in others:
            assert torch.equal(first.images, other.images)
            assert torch.equal(first.labels, other.labels)
            assert first.bad == other.bad


@SOURCES
@pytest.mark.parametrize("workers", [0, 2])
def test_damage_of_either_sort_is_left_out_of_an_evaluation_and_named(make_source, kind, workers):
    source = make_source(kind, within=["a/1.mp4"], cut=["b/2.mp4"])
    batches = list(eval_feed(source, EVAL, 6, workers=workers))
    bad = list(chain(*(batch.bad for batch in batches)))
    names = list(chain(*(batch.names for batch in batches)))
    labels = list(chain(*(batch.labels.tolist() for batch in batches)))
    expected = ["0.tar/001", "0.tar/005"] if kind == "shards" else ["a/1.mp4", "b/2.mp4"]
    assert sorted(sample.name for sample in bad) == expected
    assert all(f"{sample.name} cannot be read (" in sample.reason for sample in bad)
    assert sorted(labels) == [0, 0, 1, 1]
    assert len(names) == 4
    assert set(names).isdisjoint(expected)


@SOURCES
def test_another_video_stands_in_for_one_of_either_sort_of_damage(make_source, kind):
    source = make_source(kind, within=["a/1.mp4"], cut=["b/2.mp4"])
    batches = train(source)
    assert [len(batch.labels) for batch in batches] == [2, 2, 2]
    bad = {sample.name for batch in batches for sample in batch.bad}
    expected = {"0.tar/001", "0.tar/005"} if kind == "shards" else {"a/1.mp4", "b/2.mp4"}
    assert bad == expected


@pytest.mark.parametrize("kind", ["folder", "shards"])
def test_a_batch_of_none_has_the_dimensions_of_the_others(make_source, kind):
    source = make_source(kind, per_class=1, cut=["a/0.mp4", "b/0.mp4"])
    (batch,) = eval_feed(source, EVAL, 4)
    assert batch.images.shape == (0, 2, 4, 3, 16, 16)
    assert batch.labels.shape == (0,)
    assert len(batch.bad) == 2


def failing(kind):
    def transform(video):
        raise kind("of the transform")

    return transform


@SOURCES
@pytest.mark.refuses
def test_what_a_transform_raises_of_its_own_is_not_passed_over(make_source, kind):
    source = make_source(kind, per_class=1)
    with refused("of the transform"):
        list(eval_feed(source, failing(ValueError), 4))
    order = TrainOrder(num_samples=2, batch_size=2, seed=3)
    with refused("of the transform"):
        list(train_feed(source, failing(ValueError), order, 0, 1))


@SOURCES
@pytest.mark.refuses
def test_damage_of_all_videos_is_refused_in_one_line(make_source, kind):
    source = make_source(kind, per_class=1)
    order = TrainOrder(num_samples=2, batch_size=2, seed=3)
    with pytest.raises(ValueError, match=r"^no picture stands in .*\(of the transform\)") as error:
        list(train_feed(source, failing(DamagedError), order, 0, 1))
    assert "\n" not in str(error.value)


@pytest.mark.refuses
def test_missing_files_of_a_list_are_named(tmp_path):
    write_video(tmp_path / "1.mp4", num_frames=4)
    (tmp_path / "a.csv").write_text("1.mp4 0\n2.mp4 1\n")
    (batch,) = eval_feed(ClipList(tmp_path / "a.csv"), EVAL, 4)
    assert batch.names == ("1.mp4",)
    (bad,) = batch.bad
    assert bad == ("2.mp4", f"video {tmp_path}/2.mp4 does not exist; check the path")


def test_frames_of_a_batch_are_those_of_the_file(tmp_path):
    path = write_video(tmp_path / "1.mp4", num_frames=30, size=(16, 16))
    (tmp_path / "a.csv").write_text("1.mp4 0\n1.mp4 1\n")
    whole = PixelConfig(size_px=16, mean=(0.0,) * 3, std=(1.0,) * 3, crop_share=1.0)
    transform = eval_clip_transform(whole, ClipConfig(num_frames=3))
    (batch,) = eval_feed(ClipList(tmp_path / "a.csv"), transform, 4)
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    expected = np.stack([frames[index] for index in (5, 15, 25)]).transpose(0, 3, 1, 2)
    shown = (batch.images[1, 0] * 255).round().byte().numpy()
    assert np.array_equal(shown, expected)
