"""Which source a configuration names, what lies beside it to evaluate on, and what is refused."""

import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from dartok.data.digit_source import DigitSource
from dartok.data.folder import FolderSource
from dartok.data.hub import HubStream, TableSource
from dartok.data.parquet import ParquetStream
from dartok.data.shards import ShardSource
from dartok.data.source_config import DataConfig
from dartok.train.run import Run
from dartok.train.sources import eval_source, source_to_evaluate, train_source
from dartok.train.world import World


@pytest.fixture
def sets(tmp_path, monkeypatch):
    """The same 12 and 4 pictures as folders, Parquet files and shards in `tmp_path`."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for number in range(count):
            path = tmp_path / "folder" / split / ("a", "b")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
        write_table(datasets, tmp_path, split)
        write_shard(tmp_path, split)
    return tmp_path


def write_table(datasets, root, split):
    paths = sorted((root / "folder" / split).rglob("*.png"))
    table = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": path.read_bytes(), "path": path.name} for path in paths],
            "label": ["ab".index(path.parent.name) for path in paths],
        },
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])}
        ),
    )
    (root / "table").mkdir(exist_ok=True)
    table.to_parquet(root / "table" / f"{split}.parquet")


def write_shard(root, split):
    (root / "shards" / split).mkdir(parents=True)
    (root / "shards" / split / "classes.txt").write_text("a\nb\n")
    with tarfile.open(root / "shards" / split / "000.tar", "w") as tar:
        for path in sorted((root / "folder" / split).rglob("*.png")):
            label = path.with_suffix(".cls")
            label.write_text(path.parent.name)
            for each in (path, label):
                tar.add(each, each.name)
            label.unlink()


@pytest.mark.parametrize(
    ("data", "stream", "kind"),
    [
        ("folder/train", False, FolderSource),
        ("table/train.parquet", False, TableSource),
        ("table/train.parquet", True, ParquetStream),
        ("table/tra*.parquet", True, ParquetStream),
        ("shards/train/000.tar", False, ShardSource),
        ("shards/train/{000..000}.tar", True, ShardSource),
    ],
)
def test_the_words_of_a_command_name_a_source_and_what_is_beside_it(sets, data, stream, kind):
    if "*" in data:
        shutil.copy(sets / "table" / "train.parquet", sets / "table" / "traffic.parquet")
        config = DataConfig(
            data=str(sets / data), val=str(sets / "table/val.parquet"), stream=stream
        )
    else:
        config = DataConfig(data=str(sets / data), stream=stream)
    training = train_source(config)
    evaluation = eval_source(config, training.class_names)
    assert (type(training), type(evaluation)) == (kind, kind)
    assert (len(training), len(evaluation)) == (24 if "*" in data else 12, 4)
    assert training.class_names == evaluation.class_names == ("a", "b")


def test_a_folder_of_parquet_files_and_a_dataset_are_tables(sets):
    assert len(source_to_evaluate(DataConfig(data=str(sets / "table")), ("a", "b"))) == 16
    name = f"hf:{sets / 'table'}"
    training = train_source(DataConfig(data=name))
    assert isinstance(training, TableSource)
    assert len(training) == 12
    stream = DataConfig(data=name, stream=True, num_samples=12)
    assert isinstance(train_source(stream), HubStream)
    assert len(eval_source(DataConfig(data=name), ("a", "b"))) == 4
    assert len(source_to_evaluate(DataConfig(data=f"{name}:train"), ("b", "a"))) == 12


def test_classes_come_from_a_file(sets):
    (sets / "names.txt").write_text("x\ny\n")
    for data in ("table/train.parquet", "shards/train/000.tar"):
        config = DataConfig(data=str(sets / data), classes=sets / "names.txt")
        assert train_source(config).class_names == ("x", "y")


def test_the_digits_are_evaluated_on_their_test_split():
    source = source_to_evaluate(DataConfig(data="digits"), ())
    assert isinstance(source, DigitSource)
    assert source.name(0) == "digits/test/0"


@pytest.mark.parametrize("data", ["table/train.parquet", "shards/train/000.tar"])
def test_a_run_learns_from_a_stream_the_same_over_a_break(config_of, sets, data):
    def run(out, **settings):
        config = config_of(
            data=str(sets / data),
            stream=True,
            out=out,
            steps=5,
            save_every=3,
            image_px=32,
            batch_size=4,
            **settings,
        )
        run = Run(config=config, world=World(), on_result=results.append)
        run.train()
        return run

    results = []
    whole = run(sets / "whole")
    shutil.copytree(sets / "whole", sets / "part")
    last = sorted((sets / "part" / "checkpoints").iterdir())[-1]
    shutil.rmtree(last) if last.is_dir() else last.unlink()
    rest = run(sets / "part", resume=True)
    assert (whole.start, rest.start) == (0, 3)
    assert [result.measures["images"] for result in results] == [4] * len(results)
    weights = zip(whole.learner.model.parameters(), rest.learner.model.parameters(), strict=True)
    assert all((one == other).all() for one, other in weights)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 0}, "num-samples must be >= 1, got 0"),
        ({"shuffle_buffer": 0}, "shuffle-buffer must be >= 1, got 0"),
        ({"image_column": "x", "label_column": "x"}, "image-column and label-column must differ"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(data="digits", **settings)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"stream": True},
            "stream needs Parquet files or a Hugging Face dataset, got pictures; leave out "
            "--stream",
        ),
        (
            {"classes": "names.txt"},
            "classes are named by the folders or digits of pictures, got the file names.txt; "
            "leave out --classes",
        ),
        (
            {"num_samples": 3},
            "num-samples is for shards and Hugging Face streams, got 3 for pictures, whose "
            "pictures are counted; leave out --num-samples",
        ),
    ],
)
def test_settings_that_would_be_passed_over_are_refused(settings, message):
    with refused(message):
        train_source(DataConfig(data="pictures", **settings))


@pytest.mark.refuses
def test_files_without_others_beside_them_are_refused(sets):
    (sets / "table" / "val.parquet").unlink()
    data = str(sets / "table" / "train.parquet")
    with refused(
        "val must name what to evaluate on: none of val, valid, validation, test is beside "
        f"{data}; give --val"
    ):
        eval_source(DataConfig(data=data), ("a", "b"))
