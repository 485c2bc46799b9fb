"""Parquet files and Hugging Face datasets, by index and as a stream."""

import sys

import numpy as np
import pytest
from refusals import refused
from torchvision.transforms.functional import pil_to_tensor

from dartok.data.columns import Columns
from dartok.data.feed import eval_feed
from dartok.data.hub import HubName, HubStream, TableSource, eval_split, open_hub, open_parquet
from dartok.data.parquet import ParquetStream, list_parquet
from dartok.data.samples import SourceError

pytestmark = pytest.mark.usefixtures("hub_cache")


def indexed(path, class_names=None, own=None, columns=Columns()):  # noqa: B008
    return TableSource(open_parquet([path]), columns, path.name, class_names, own)


def streamed(path, class_names=None, own=None, columns=Columns()):  # noqa: B008
    return ParquetStream([path], columns, class_names, own)


def labels(source):
    if isinstance(source, TableSource):
        return [source.label(index) for index in range(len(source))]
    return [
        sample.label for shard in range(source.num_shards) for sample in source.read_shard(shard)
    ]


READERS = pytest.mark.parametrize("read", [indexed, streamed])


def test_a_table_is_read_by_index(make_parquet):
    source = indexed(make_parquet(7, damaged=(4,)))
    assert source.class_names == ("ant", "bee", "cat")
    assert [np.asarray(source.load(n))[0, 0].tolist() for n in (6, 0)] == [[6, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match=r"image train\.parquet row 4 cannot be read"):
        source.load(4)


def test_the_shards_of_parquet_files_are_their_row_groups(make_parquet):
    paths = [make_parquet(3, name="a.parquet"), make_parquet(5, group=4, name="b.parquet")]
    source = ParquetStream(paths, Columns())
    assert (len(source), source.num_shards) == (8, 4)
    shards = [[sample.name for sample in source.read_shard(shard)] for shard in range(4)]
    assert shards[:2] == [["a.parquet row 0", "a.parquet row 1"], ["a.parquet row 2"]]
    assert shards[3] == ["b.parquet row 4"]


@READERS
def test_classes_are_noted_in_the_file_given_or_found(make_parquet, read):
    noted = make_parquet(6)
    assert labels(read(noted, ("cat", "bee", "ant"))) == [2, 1, 0] * 2
    plain = make_parquet(6, name="plain.parquet", noted=False)
    assert read(plain).class_names == ("0", "1", "2")
    given = read(plain, own=("x", "y", "z"))
    assert (given.class_names, labels(given)) == (("x", "y", "z"), [0, 1, 2] * 2)
    names = make_parquet(6, name="names.parquet", noted=False, label=lambda n: "zyx"[n])
    found = read(names)
    assert (found.class_names, labels(found)) == (("x", "y", "z"), [2, 1, 0] * 2)


def test_files_are_named_by_path_pattern_and_folder(make_parquet, tmp_path):
    paths = [make_parquet(3, name=f"set/{part}.parquet") for part in "ab"]
    (tmp_path / "set" / "notes.txt").write_text("words")
    for data in (f"{tmp_path}/set", f"{tmp_path}/set/*.parquet", f"{tmp_path}/set/[ab].parquet"):
        assert list_parquet(data) == paths
    assert list_parquet(str(paths[0])) == paths[:1]
    with refused(f"data must name Parquet files, got {tmp_path}/no*, which matches none"):
        list_parquet(f"{tmp_path}/no*")


def test_a_dataset_is_read_by_index_and_as_a_stream(make_parquet, tmp_path):
    for part in (0, 1):
        make_parquet(6, name=f"set/data/train-{part}-of-2.parquet")
    make_parquet(3, name="set/data/test-0-of-1.parquet")
    name = str(tmp_path / "set")
    whole = TableSource(open_hub(name, "train", stream=False), Columns(), name)
    stream = HubStream(open_hub(name, "train", stream=True), Columns(), name, num_samples=12)
    assert labels(whole) == labels(stream) == [0, 1, 2] * 4
    assert (len(whole), len(stream), stream.num_shards) == (12, 12, 2)
    assert stream.class_names == whole.class_names == ("ant", "bee", "cat")
    assert len({s.name for n in range(2) for s in stream.read_shard(n)}) == 12
    assert eval_split(name) == "test"
    with pytest.raises(ValueError, match=r"hf:.*:nope cannot be opened \(.+\); check the name"):
        open_hub(name, "nope", stream=False)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_workers_read_each_picture_of_a_dataset_stream_once(make_parquet, tmp_path):
    make_parquet(7, name="set/train.parquet")
    table = open_hub(str(tmp_path / "set"), "train", stream=True)
    source = HubStream(table, Columns(), "here", num_samples=7)
    assert source.num_shards == 1, "fewer than workers, of which the library would stop one"
    batches = list(eval_feed(source, pil_to_tensor, 2, workers=2))
    reds = [red for batch in batches for red in batch.images[:, 0, 0, 0].tolist()]
    assert sorted(reds) == list(range(7))


@pytest.mark.refuses
def test_a_dataset_stream_that_does_not_note_its_number_is_refused(make_parquet, tmp_path):
    make_parquet(3, name="set/train.parquet")
    table = open_hub(str(tmp_path / "set"), "train", stream=True)
    with refused(
        "num-samples must be given for here, which does not note its number of pictures; give "
        "--num-samples, or --val-num-samples for what a run evaluates on, or leave out --stream"
    ):
        HubStream(table, Columns(), "here")


@pytest.mark.refuses
def test_a_dataset_stream_that_does_not_note_its_classes_is_refused(make_parquet, tmp_path):
    make_parquet(3, name="set/train.parquet", noted=False)
    table = open_hub(str(tmp_path / "set"), "train", stream=True)
    with pytest.raises(ValueError, match="classes of here are not noted in it; name them"):
        HubStream(table, Columns(), "here", num_samples=3)


@pytest.mark.refuses
def test_a_dataset_without_a_split_to_evaluate_on_is_refused(make_parquet, tmp_path):
    make_parquet(3, name="set/train.parquet")
    name = str(tmp_path / "set")
    with refused(
        f"val must name a split to evaluate on: hf:{name} has train and none of validation, valid, "
        f"val, test; give --val hf:{name}:SPLIT"
    ):
        eval_split(name)
    with refused("data must be hf:NAME or hf:NAME:SPLIT, got 'hf:'"):
        HubName.parse("hf:")


@READERS
@pytest.mark.refuses
def test_a_missing_column_is_refused_with_those_that_are_there(make_parquet, read):
    path = make_parquet(3)
    where = str(path) if read is streamed else path.name
    with refused(f"image-column must be a column of {where}, got 'img'; there are image, label"):
        read(path, columns=Columns("img", "label"))
    with refused(f"label-column must be a column of {where}, got 'y'; there are image, label"):
        read(path, columns=Columns("image", "y"))


@READERS
@pytest.mark.refuses
def test_an_unlabelled_row_is_refused(make_parquet, read):
    path = make_parquet(3, label=lambda number: -1)
    with pytest.raises(SourceError, match=r"row 0 must be one of the 3 classes, .*, got -1"):
        labels(read(path))


@READERS
@pytest.mark.refuses
def test_what_is_no_parquet_file_is_refused(tmp_path, read):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + b"x" * 50)
    with pytest.raises(ValueError, match=r"a\.parquet cannot be (read|opened)") as error:
        read(path)
    assert "\n" not in str(error.value)


@READERS
@pytest.mark.refuses
def test_without_the_packages_the_extra_is_named(make_parquet, monkeypatch, read):
    path = make_parquet(3)
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'dartok\[data\]'"):
        read(path)


@pytest.mark.refuses
def test_a_row_group_that_is_damaged_is_refused(make_parquet):
    path = make_parquet(40, group=20)
    content = bytearray(path.read_bytes())
    content[4:400] = b"\xff" * 396
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"row group 0 of .* cannot be read \(.+\); write"):
        labels(streamed(path, ("ant", "bee", "cat")))
