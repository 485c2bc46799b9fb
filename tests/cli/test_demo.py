"""`dartok demo`: two pictures and a table; a tiny one here, the real one among the slow tests."""

import re

import numpy as np
import pytest
from PIL import Image

ROW = re.compile(
    r"^(fixed grid|DART) +(\d+) +([\d.]+) M +([\d.]+) M +([\d.]+)% +(\d+) *$", re.MULTILINE
)


def table_of(printed):
    """Name to tokens, parameters in M, multiply-adds in M, accuracy in %, images per second."""
    return {name: tuple(map(float, rest)) for name, *rest in ROW.findall(printed)}


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_tiny_demo_writes_both_pictures_and_prints_one_table(dartok, tmp_path):
    out = tmp_path / "deep" / "demo"
    code, printed, _ = dartok("demo", "--out", out, "--quick", "--steps", 2, "--num-tokens", 16)
    assert code == 0
    table = table_of(printed)
    assert list(table) == ["fixed grid", "DART"]
    grid, adaptive = table["fixed grid"], table["DART"]
    assert grid[0] == adaptive[0] == 16
    assert grid[1] < adaptive[1] < 1.2 * grid[1]
    assert grid[2] < adaptive[2]
    assert all(0 <= row[3] <= 100 and row[4] > 0 for row in table.values())
    assert sorted(path.name for path in out.iterdir()) == ["digits.png", "photograph.png"]
    for name in ("digits.png", "photograph.png"):
        assert str(out / name) in printed
        assert min(picture(out / name).shape[:2]) > 500


def test_the_progress_is_not_in_the_way_of_the_table(dartok, tmp_path):
    _, printed, err = dartok("demo", "--out", tmp_path, "--quick", "--steps", 1, "--num-tokens", 4)
    assert "loss" not in printed
    assert "DART" in err


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-tokens", 35], "such as 16, 36 or 64, got 35"),
        (["--num-tokens", 25], "square of a divisor of 192"),
        (["--num-tokens", -4], "got -4"),
        (["--steps", 0], "steps must be >= 1, got 0"),
        (["--seed", -1], "seed must be >= 0, got -1"),
    ],
)
def test_a_demo_that_cannot_run_is_refused(refused, options, message):
    assert message in refused("demo", *options)


@pytest.mark.refuses
def test_a_file_in_the_place_of_the_folder_is_refused_before_anything_runs(refused, tmp_path):
    target = tmp_path / "demo"
    target.write_text("mine")
    assert "out must be a folder" in refused("demo", "--out", target)
    assert target.read_text() == "mine"


@pytest.mark.slow
def test_dart_is_ten_points_above_the_fixed_grid_after_the_same_steps(dartok, tmp_path):
    code, printed, _ = dartok("demo", "--out", tmp_path)
    assert code == 0
    accuracy = {name: row[3] for name, row in table_of(printed).items()}
    assert accuracy["fixed grid"] > 20, "the fixed grid must learn: chance is 10"
    assert accuracy["DART"] >= accuracy["fixed grid"] + 10
