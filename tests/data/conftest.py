"""Small folders, tar shards and Parquet files of pictures, and ways to damage one."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

CLASSES = ("ant", "bee", "cat")


@pytest.fixture
def make_folder(tmp_path):
    """Function that fills a folder: so many pictures per class, each of a colour of its own.

    Red tells the class (0, 80, 160), green the number within it.
    """

    def make(per_class, *, suffix=".png", size_px=12, name="train"):
        for label, folder in enumerate(CLASSES):
            (tmp_path / name / folder).mkdir(parents=True)
            for number in range(per_class):
                picture = np.full((size_px, size_px, 3), (80 * label, number, 7), dtype=np.uint8)
                Image.fromarray(picture).save(tmp_path / name / folder / f"{number:03}{suffix}")
        return tmp_path / name

    return make


@pytest.fixture(params=["truncated", "empty", "text"])
def damage(request):
    """Function that damages a file, in each of the ways that happen."""

    def spoil(path):
        content = path.read_bytes()
        spoilt = {"truncated": content[: len(content) * 2 // 3], "empty": b"", "text": b"<html>"}
        path.write_bytes(spoilt[request.param])

    return spoil


def png(number):
    """A picture whose red is its number."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(file, "png")
    return file.getvalue()


def add_member(tar, name, data):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def make_shards(tmp_path):
    """Function that writes tar files of so many pictures each, numbered through, and their classes.

    The class is the number modulo 3. The pictures of `damaged` are empty.
    """

    def make(sizes, *, damaged=(), name="train", classes=CLASSES, label=str):
        folder, first = tmp_path / name, 0
        folder.mkdir()
        if classes:
            (folder / "classes.txt").write_text("\n".join(classes) + "\n")
        for shard, size in enumerate(sizes):
            with tarfile.open(folder / f"{shard:03}.tar", "w") as tar:
                for number in range(first, first + size):
                    data = b"" if number in damaged else png(number)
                    add_member(tar, f"{number:03}.png", data)
                    add_member(tar, f"{number:03}.cls", label(number % 3).encode())
            first += size
        return folder

    return make


@pytest.fixture
def make_parquet(tmp_path):
    """Function that writes a Parquet file: pictures as in `make_shards`, in groups of rows."""

    def make(count, *, group=2, damaged=(), name="train.parquet", noted=True, label=int):
        datasets = pytest.importorskip("datasets")
        cells = [{"bytes": b"" if n in damaged else png(n), "path": None} for n in range(count)]
        labels = [label(number % 3) for number in range(count)]
        kind = datasets.ClassLabel(names=list(CLASSES)) if noted else None
        features = {"image": datasets.Image(), "label": kind or datasets.Value("int64")}
        if isinstance(labels[0], str):
            features["label"] = datasets.Value("string")
        table = datasets.Dataset.from_dict(
            {"image": cells, "label": labels}, features=datasets.Features(features)
        )
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        schema = table.features.arrow_schema
        import pyarrow.parquet as pq

        pq.write_table(table.data.table.cast(schema), tmp_path / name, row_group_size=group)
        return tmp_path / name

    return make


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """Hugging Face's cache in a folder of the test."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
