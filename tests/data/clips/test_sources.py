"""Folders, lists and shards of videos, and how a command names them."""

import sys
import tarfile
from pathlib import Path

import pytest
from clip_files import write_video
from PIL import Image
from refusals import refused

from dartok.data.clips.opening import clips_beside, open_clips
from dartok.data.clips.sources import ClipFolder, ClipList, clip_shards
from dartok.data.samples import ShardedSource, Source, SourceError
from dartok.data.shards import ShardSource

NAMES = ("cat/1.mp4", "cat/deep/2.webm", "dog/3.GIF", "dog/4.avi")
KINDS = {".mp4": "h264", ".webm": "vp9", ".gif": "gif", ".avi": "mjpeg"}


def put(path):
    return write_video(path, KINDS[path.suffix.lower()], num_frames=3, size=(16, 16))


@pytest.fixture
def folder(tmp_path):
    """Two classes of two videos."""
    for name in NAMES:
        put(tmp_path / "train" / name)
    return tmp_path / "train"


def listing(source):
    return [(source.name(index), source.label(index)) for index in range(len(source))]


def frame_counts(source):
    return [source.load(index).num_frames for index in range(len(source))]


def write_list(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def shard(tmp_path):
    """Two videos and their labels in a tar file."""
    with tarfile.open(tmp_path / "000.tar", "w") as tar:
        for number, suffix in enumerate((".mp4", ".webm")):
            tar.add(put(tmp_path / f"{number}{suffix}"), f"{number}{suffix}")
            label = tmp_path / f"{number}.cls"
            label.write_text(str(number))
            tar.add(label, label.name)
    return str(tmp_path / "000.tar")


def test_videos_of_class_folders_are_found_at_any_depth(folder):
    (folder / "cat" / "notes.txt").write_text("words")
    (folder / "cat" / "thumbs").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "cat" / "thumbs" / "1.png")
    source = ClipFolder(folder)
    assert isinstance(source, Source)
    assert source.class_names == ("cat", "dog")
    assert listing(source) == list(zip(NAMES, (0, 0, 1, 1), strict=True))
    assert frame_counts(source) == [3] * 4


def test_expected_classes_give_the_labels_of_a_folder(folder):
    source = ClipFolder(folder, ("dog", "emu", "cat"))
    assert [label for _, label in listing(source)] == [0, 0, 2, 2]


def test_folders_of_frames_are_videos_where_there_are_no_files(tmp_path):
    for name in ("up/17/1.jpg", "up/17/2.jpg", "up/9/1.jpg", "down/a/5/001.png", "down/stray.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    source = ClipFolder(tmp_path)
    assert listing(source) == [("down/a/5", 0), ("up/17", 1), ("up/9", 1)]
    assert frame_counts(source) == [1, 2, 1]


@pytest.mark.refuses
def test_a_class_without_videos_is_refused(folder):
    (folder / "emu").mkdir()
    with refused(f"folder {folder}/emu holds no video; remove it or fill its class"):
        ClipFolder(folder)
    with refused(
        f"folder {folder}/dog must hold a folder of videos for each of at least two classes, got "
        "none; see dartok train --help"
    ):
        ClipFolder(folder / "dog")


def test_paths_of_a_list_start_from_its_folder_or_another(folder, tmp_path):
    lines = [f"{name} {label}" for name, label in zip(NAMES, (0, 0, 1, 1), strict=True)]
    beside = ClipList(write_list(folder / "train.csv", *lines))
    assert isinstance(beside, Source)
    elsewhere = ClipList(write_list(tmp_path / "train.txt", *lines), folder)
    for source in (beside, elsewhere):
        assert source.class_names == ("0", "1")
        assert listing(source) == list(zip(NAMES, (0, 0, 1, 1), strict=True))
        assert frame_counts(source) == [3] * 4


def test_an_absolute_path_is_that_file_and_a_folder_of_a_list_its_frames(folder, tmp_path):
    (tmp_path / "17").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "17" / "00001.jpg")
    path = write_list(tmp_path / "a.csv", f"{folder}/{NAMES[0]},9", "17,1,10")
    source = ClipList(path, folder / "cat")
    assert source.load(0).num_frames == 3
    with pytest.raises(ValueError, match=r"video .*cat/17 does not exist"):
        source.load(1)
    assert ClipList(path).load(1).num_frames == 1


def test_numbers_of_a_list_are_named_by_a_file_or_the_model_or_themselves(tmp_path):
    path = write_list(tmp_path / "a.csv", "1.mp4 10", "2.mp4 2", "3.mp4 10")
    assert ClipList(path).class_names == ("2", "10")
    assert [label for _, label in listing(ClipList(path))] == [1, 0, 1]
    names = tuple(f"class {number}" for number in range(11))
    for source in (ClipList(path, own=names), ClipList(path, class_names=names)):
        assert source.class_names == names
        assert [label for _, label in listing(source)] == [10, 2, 10]
    turned = ClipList(path, class_names=names[::-1], own=names)
    assert [label for _, label in listing(turned)] == [0, 8, 0]
    numbered = ClipList(path, class_names=("10", "7", "2"))
    assert [label for _, label in listing(numbered)] == [0, 2, 0]


def test_names_of_a_list_are_sorted(tmp_path):
    source = ClipList(write_list(tmp_path / "a.csv", "1.mp4,dog", "2.mp4,cat"))
    assert source.class_names == ("cat", "dog")
    assert [label for _, label in listing(source)] == [1, 0]


@pytest.mark.refuses
def test_labels_of_a_list_that_are_no_class_are_refused(tmp_path):
    path = write_list(tmp_path / "a.csv", "1.mp4 0", "2.mp4 5")
    with refused(
        "label of 2.mp4 must be one of the 2 classes, x, y, or the number of one, got 5; mend or "
        "remove it"
    ):
        ClipList(path, class_names=("x", "y"))
    with pytest.raises(ValueError, match="must be all whole numbers or all names"):
        ClipList(write_list(tmp_path / "b.csv", "1.mp4 0", "2.mp4 dog"))
    with pytest.raises(ValueError, match="must hold at least two classes, got 1"):
        ClipList(write_list(tmp_path / "c.csv", "1.mp4 0"))


def test_shards_hold_videos_and_labels(shard):
    source = clip_shards([shard], ("x", "y"))
    assert isinstance(source, ShardedSource)
    assert len(source) == 2
    samples = list(source.read_shard(0))
    assert [(sample.name, sample.label) for sample in samples] == [
        ("000.tar/0", 0),
        ("000.tar/1", 1),
    ]
    assert [sample.decode(sample.data, sample.name).num_frames for sample in samples] == [3, 3]


@pytest.mark.refuses
def test_shards_of_pictures_are_none_of_videos_and_the_other_way_round(shard):
    with refused(
        "000.tar/0 must be a picture and a label, got no picture (.jpg, .jpeg, .png, .webp); add "
        "it or remove the other"
    ):
        list(ShardSource([shard], ("x", "y")).read_shard(0))
    with tarfile.open(shard, "w") as tar:
        tar.add(Path(__file__), "1.jpg")
        tar.add(Path(__file__), "1.cls")
    with pytest.raises(SourceError, match=r"must be a video and a label, got no video \(\.avi, "):
        list(clip_shards([shard], ("x", "y")).read_shard(0))


def test_a_command_tells_folders_lists_and_shards_apart(folder, shard, tmp_path):
    assert isinstance(open_clips(str(folder)), ClipFolder)
    for name in ("a.csv", "a.tsv", "a.txt"):
        path = write_list(tmp_path / name, "cat/1.mp4 0", "dog/4.avi 1")
        source = open_clips(str(path), root=folder)
        assert isinstance(source, ClipList)
        assert frame_counts(source) == [3, 3]
    shards = write_list(tmp_path / "shards.txt", "# two", "000.tar", "000.tar")
    for data in (shard, str(shards), str(tmp_path / "0*.tar")):
        source = open_clips(data, ("x", "y"))
        assert isinstance(source, ShardSource)
    assert len(open_clips(str(shards), ("x", "y"), num_samples=7)) == 7


def test_classes_are_named_by_a_file(shard, tmp_path):
    classes = write_list(tmp_path / "names", "walk", "run")
    path = write_list(tmp_path / "a.csv", "1.mp4 1", "2.mp4 0")
    for data in (shard, str(path)):
        assert open_clips(data, classes=classes).class_names == ("walk", "run")
    source = open_clips(str(path), ("run", "walk"), classes=classes)
    assert [label for _, label in listing(source)] == [0, 1]


@pytest.mark.refuses
def test_a_setting_that_would_be_passed_over_is_refused(folder, shard, tmp_path):
    path = write_list(tmp_path / "a.csv", "1.mp4 1", "2.mp4 0")
    with refused(
        f"classes are named by the folders of {folder}, got the file x.txt; leave out --classes"
    ):
        open_clips(str(folder), classes=Path("x.txt"))
    with refused(f"root is for a list of videos, got x for {shard}; leave it out"):
        open_clips(shard, root=Path("x"))
    with refused(
        f"num-samples is for shards, got 3 for {path}, whose videos are counted; leave out "
        "--num-samples"
    ):
        open_clips(str(path), num_samples=3)
    with refused(
        f"list {tmp_path}/b.csv cannot be read (No such file or directory); check the path"
    ):
        open_clips(str(tmp_path / "b.csv"))


def test_what_to_evaluate_on_lies_beside(folder, tmp_path):
    (tmp_path / "valid").mkdir()
    assert clips_beside(str(folder)) == str(tmp_path / "valid")
    (tmp_path / "val").mkdir()
    assert clips_beside(str(folder)) == str(tmp_path / "val")
    write_list(tmp_path / "train_list.csv", "a 1")
    write_list(tmp_path / "test_list.csv", "a 1")
    assert clips_beside(str(tmp_path / "train_list.csv")) == str(tmp_path / "test_list.csv")
    for name in ("train", "test"):
        (tmp_path / "shards" / name).mkdir(parents=True)
        (tmp_path / "shards" / name / "0.tar").write_bytes(b"")
    found = clips_beside(str(tmp_path / "shards" / "train" / "0.tar"))
    assert found == str(tmp_path / "shards" / "test" / "0.tar")


@pytest.mark.refuses
def test_nothing_beside_is_refused(folder):
    with refused(
        "val must name what to evaluate on: none of val, valid, validation, test is beside "
        f"{folder}; give --val"
    ):
        clips_beside(str(folder))


@pytest.mark.refuses
def test_without_pyav_no_source_is_opened(folder, shard, tmp_path, monkeypatch):
    path = write_list(tmp_path / "a.csv", "1.mp4 1", "2.mp4 0")
    monkeypatch.setitem(sys.modules, "av", None)
    for data in (str(folder), str(path), shard):
        with pytest.raises(ImportError, match=r"^videos need PyAV: pip install 'dartok\[video\]'$"):
            open_clips(data, ("cat", "dog"))


@pytest.mark.refuses
@pytest.mark.parametrize("data", ["digits", "hf:kinetics:train", "clips/train.parquet"])
def test_sources_of_pictures_are_refused_with_what_videos_are(data):
    with pytest.raises(
        ValueError, match=rf"^videos are a folder of class fol.*, got {data}; write"
    ):
        open_clips(data)
