"""`dartok audit`: what label maps allow, in a table, in JSON, and in a sentence."""

import json
import math

import numpy as np
import pytest
import torch
from packages import write_adapted
from PIL import Image

from dartok.cli.audit import verdict
from dartok.core.partition import partition
from dartok.tasks.segmentation.ceiling import ceiling, count_regions, join_counts


def write_data(root, split="train", count=3, side_px=5):
    for name in ("images", "labels"):
        (root / name / split).mkdir(parents=True)
    for index in range(count):
        labels = np.zeros((48, 64), dtype=np.uint8)
        labels[7 + 4 * index :, :][:side_px, 9 + 11 * index :][:, :side_px] = 1
        labels[:2] = 255
        Image.fromarray(np.uint8(labels == 1) * 200).save(root / "images" / split / f"{index}.png")
        Image.fromarray(labels).save(root / "labels" / split / f"{index}.png")
    (root / "classes.txt").write_text("ground\nsquare\nnever\n")
    return root


@pytest.fixture
def data(tmp_path):
    return write_data(tmp_path / "data")


def test_the_table_has_a_row_for_each_kind_at_each_budget(dartok, data):
    code, out, _ = dartok("audit", "--task", "segmentation", data, "--num-tokens", "6,24")
    assert code == 0
    first, header, *lines = out.rstrip("\n").split("\n")
    assert first == "3 of 3 pictures of train; 3 classes"
    assert header.split()[:4] == ["tokens", "regions", "ceiling", "mIoU"]
    assert [line.split()[0] for line in lines[:6]] == ["6"] * 3 + ["24"] * 3
    assert [line.split()[1] for line in lines[:3]] == ["fixed", "edge", "oracle"]
    assert lines[6] == ""
    assert lines[7].startswith("Adaptive regions can help here: ")


def test_json_holds_what_a_count_by_hand_gives(dartok, data):
    code, out, _ = dartok("audit", data, "--num-tokens", "12", "--json")
    assert code == 0
    fixed, edge, oracle = json.loads(out)
    regions = partition(torch.ones(1, 1, 1), num_tokens=12, num_rows=3)
    region_map = regions.label_map((48, 64))[0, 0]
    maps = [np.array(Image.open(path)) for path in sorted((data / "labels/train").iterdir())]
    counts = [count_regions(torch.from_numpy(labels), region_map, 12) for labels in maps]
    expected = ceiling(join_counts(counts), 3)
    assert (fixed["num_tokens"], fixed["regions"], fixed["setting"]) == (12, "fixed grid", "")
    assert fixed["ceiling_miou"] == pytest.approx(expected.miou)
    assert fixed["attained_miou"] == pytest.approx(expected.attained_miou)
    assert fixed["classes"]["square"]["ceiling"] == pytest.approx(float(expected.highest[1]))
    assert fixed["classes"]["never"]["ceiling"] is None
    assert (edge["regions"], oracle["regions"]) == ("edge", "oracle")
    assert (oracle["pictures"], oracle["objects"]) == (3, 6)


def test_each_class_gets_a_line_when_asked_for(dartok, data):
    _, out, _ = dartok("audit", data, "--num-tokens", "12", "--per-class")
    lines = out.split("\n")
    place = lines.index("12 tokens")
    assert lines[place + 1].split()[:3] == ["class", "objects", "fixed"]
    assert [line.split()[0] for line in lines[place + 2 : place + 5]] == [
        "ground",
        "square",
        "never",
    ]
    assert lines[place + 4].split()[1:] == ["0", *["-"] * 6]


def test_the_limit_is_told(dartok, tmp_path):
    data = write_data(tmp_path / "data", split="val", count=4)
    _, out, _ = dartok("audit", data, "--split", "val", "--limit", "2", "--num-tokens", "4")
    assert out.startswith("2 of 4 pictures of val, evenly spread; 3 classes\n")


def test_a_trained_models_regions_are_a_row(dartok, tmp_path, data):
    write_adapted(tmp_path / "best")
    options = ("--num-tokens", "6,20", "--model", tmp_path / "best", "--json")
    code, out, _ = dartok("audit", data, *options)
    assert code == 0
    rows = json.loads(out)
    assert [row["regions"] for row in rows] == ["fixed grid", "edge", "oracle", "model"] * 2


class Row:
    def __init__(self, num_tokens, kind, miou):
        self.num_tokens, self.kind = num_tokens, kind
        self.ceiling = self
        self.miou = miou


def test_the_sentence_says_whether_and_by_how_much():
    rows = [
        Row(n, k, m)
        for n, m in ((9, 0.5), (16, 0.6))
        for k, m in (("fixed grid", m), ("edge", m - 0.01), ("oracle", m + n / 100))
    ]
    assert verdict(rows).startswith("Adaptive regions can help here")
    assert "+9.0 to +16.0 points of mIoU" in verdict(rows)
    assert verdict(rows).endswith(", those of edge by -1.0.")
    small = [Row(9, "fixed grid", 0.5), Row(9, "edge", 0.5), Row(9, "oracle", 0.505)]
    assert verdict(small).startswith("Adaptive regions can hardly help here")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (("--task", "depth"), "segmentation"),
        (("--num-tokens", "49,many"), "num-tokens must be numbers from 1"),
        (("--num-tokens", "0"), "num-tokens must be numbers from 1"),
        (("--limit", "0"), "limit must be >= 1"),
        (("--split", "test"), "test is missing"),
        (("--scorer", "edges"), "did you mean edge"),
        (("--model", "nowhere"), "nowhere must hold config.json"),
    ],
)
def test_a_mistake_is_answered_in_one_line(refused, data, options, match):
    assert match in refused("audit", data, *options)


def test_other_folders_are_refused_with_the_known_layouts(refused, tmp_path):
    assert "Cityscapes" in refused("audit", tmp_path)
    assert "does not exist" in refused("audit", tmp_path / "no")


def test_a_damaged_label_map_is_named(refused, data):
    path = data / "labels" / "train" / "1.png"
    path.write_bytes(path.read_bytes()[:50])
    assert "1.png cannot be read" in refused("audit", data, "--num-tokens", "4")


def test_no_number_is_printed_where_there_is_none(dartok, data):
    _, out, _ = dartok("audit", data, "--num-tokens", "1", "--json")
    assert not any(isinstance(v, float) and math.isnan(v) for v in json.loads(out)[0].values())
