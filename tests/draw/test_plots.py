"""Plots of a run: something is drawn where it should be, and files are whole or absent."""

import numpy as np
import pytest
from PIL import Image

from dartok.draw.plots import plot_confusion, plot_curves


@pytest.fixture
def records():
    steps = [{"step": step, "loss": 2 / step} for step in range(1, 300)]
    results = [
        {"step": step, "eval/loss": 2 / step, "eval/top1": 0.9, "eval/mean_class_top1": 0.8}
        for step in (100, 200, 299)
    ]
    return steps + results


def colours(path):
    with Image.open(path) as picture:
        return {tuple(pixel) for row in np.asarray(picture) for pixel in row}


def test_curves_of_training_and_evaluation_are_drawn(tmp_path, records):
    plot_curves(records, tmp_path / "curves.png")
    assert {(31, 119, 180), (255, 127, 14)} <= colours(tmp_path / "curves.png")
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_a_run_without_an_evaluation_is_drawn_too(tmp_path, records):
    plot_curves(records[:5], tmp_path / "curves.png")
    assert (31, 119, 180) in colours(tmp_path / "curves.png")


def test_a_perfect_model_has_a_dark_diagonal_and_nothing_else(tmp_path):
    plot_confusion(np.diag([5.0, 1.0, 3.0]), ["a", "b", "c"], tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        pixels = np.asarray(picture).astype(int)
    dark, light = (8, 48, 107), (247, 251, 255)
    rows, columns = np.nonzero((pixels == dark).all(-1))
    inside = columns < pixels.shape[1] // 2 + pixels.shape[1] // 4  # not the colour bar
    rows, columns = rows[inside], columns[inside]
    assert np.corrcoef(rows, columns)[0, 1] > 0.85  # three blocks on it: 8 / 9
    shares = [(pixels == colour).all(-1).sum() for colour in (dark, light)]
    assert shares[0] / shares[1] == pytest.approx(3 / 6, rel=0.15)


def test_a_class_without_pictures_and_many_classes_can_be_drawn(tmp_path):
    plot_confusion(np.zeros((60, 60)), [str(n) for n in range(60)], tmp_path / "confusion.png")
    with Image.open(tmp_path / "confusion.png") as picture:
        assert min(picture.size) > 300


@pytest.mark.refuses
def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(ValueError, match="^records must hold at least one step, got none$"):
        plot_curves([], tmp_path / "curves.png")
