"""The table of pictures: its rows add up to the tally, whatever the number of processes."""

import sys

import numpy as np
import pytest
import torch
from pyarrow import parquet
from refusals import refused

from dartok.data.samples import BadSample, Batch
from dartok.tasks.classification import Tally
from dartok.train.image_results import ImageResults
from dartok.train.world import World

NAMES = tuple("abcdefg")


def peer(rank, others=()):
    """A process among two; what the other one sends is given."""

    class Peer(World):
        def gather(self, value):
            return [value, *others]

    return Peer(rank=rank, size=2)


def random_batch(count, first=0, bad=()):
    names = tuple(f"{number:02}.png" for number in range(first, first + count))
    labels = torch.randint(len(NAMES), (count,))
    batch = Batch(torch.empty(count, 3, 1, 1), labels, tuple(bad), names)
    return batch, torch.randn(count, len(NAMES), dtype=torch.float64)


def written(results, path, world=None):
    results.write(World() if world is None else world)
    return parquet.read_table(path).to_pylist()


def test_the_rows_hold_what_numpy_finds_in_the_logits(tmp_path):
    path = tmp_path / "made" / "rows.parquet"
    results = ImageResults(path, NAMES)
    batch, logits = random_batch(6)
    results.add(batch, logits, num_tokens=9, protocol="ours")
    shares = np.exp(logits.numpy())
    shares /= shares.sum(1, keepdims=True)
    for row, label, share in zip(written(results, path), batch.labels, shares, strict=True):
        order = np.argsort(-share)
        assert row["label"] == NAMES[label]
        assert row["predicted"] == NAMES[order[0]]
        assert row["right"] == (order[0] == label)
        assert row["top5"] == [NAMES[index] for index in order[:5]]
        assert row["confidence"] == pytest.approx(share.max(), rel=1e-12)
        assert row["loss"] == pytest.approx(-np.log(share[label]), rel=1e-12)
        assert (row["num_tokens"], row["protocol"], row["error"]) == (9, "ours", None)


def test_rows_of_all_processes_add_up_to_the_tally_of_all(tmp_path):
    tally, parts = Tally(num_classes=len(NAMES)), []
    for rank in range(2):
        part = ImageResults(tmp_path / "rows.parquet", NAMES)
        for first in (0, 10):
            batch, logits = random_batch(5, first + 5 * rank)
            part.add(batch, logits, num_tokens=9, protocol="ours")
            tally.add(logits, batch.labels)
        parts.append(part)
    rows = written(parts[0], tmp_path / "rows.parquet", peer(0, [parts[1].rows]))
    measures = tally.measures()
    assert [row["name"] for row in rows] == [f"{number:02}.png" for number in range(20)]
    assert np.mean([row["right"] for row in rows]) == pytest.approx(measures["top1"])
    assert np.mean([row["label"] in row["top5"] for row in rows]) == pytest.approx(measures["top5"])
    assert np.mean([row["loss"] for row in rows]) == pytest.approx(measures["loss"])


def test_only_the_main_process_writes(tmp_path):
    results = ImageResults(tmp_path / "rows.parquet", NAMES)
    results.add(*random_batch(2), num_tokens=9, protocol="ours")
    results.write(peer(1))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_picture_is_a_row_with_the_reason_only(tmp_path):
    path = tmp_path / "rows.parquet"
    results = ImageResults(path, NAMES)
    batch, logits = random_batch(0, bad=[BadSample("x.png", "it is truncated")])
    results.add(batch, logits, num_tokens=9, protocol="paper")
    (row,) = written(results, path)
    expected = {"name": "x.png", "num_tokens": 9, "protocol": "paper", "error": "it is truncated"}
    assert {name: value for name, value in row.items() if value is not None} == expected


@pytest.mark.refuses
def test_a_folder_is_no_file_to_write(tmp_path):
    with refused(f"per-image {tmp_path} is a folder; name a file, such as {tmp_path}/a.parquet"):
        ImageResults(tmp_path, NAMES)


@pytest.mark.refuses
def test_missing_pyarrow_is_answered_by_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"per-image needs pyarrow: pip install 'dartok\[data\]'"):
        ImageResults(tmp_path / "rows.parquet", NAMES)
