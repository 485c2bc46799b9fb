"""The digits in clutter as a source: the same pictures whenever and in whichever order."""

import numpy as np
import pytest
from refusals import refused

from dartok.data.digit_source import DigitSource
from dartok.data.digits import CanvasConfig, DigitCanvases

SMALL = CanvasConfig(size_px=64)


def pixels(source, index):
    return np.asarray(source.load(index))


@pytest.mark.parametrize(("split", "first_seed"), [("train", 0), ("test", 1_000_000_000)])
def test_a_picture_is_the_canvas_of_its_own_seed(split, first_seed):
    source = DigitSource(SMALL, split=split, num_canvases=4)
    for index in (3, 0, 2):
        canvas = DigitCanvases(SMALL, split=split).batch(1, seed=first_seed + index)
        assert source.label(index) == int(canvas.labels)
        picture = pixels(source, index)
        assert picture.shape == (64, 64, 3)
        half_a_level = 0.5 / 255 + 1e-6
        grey = canvas.images[0, 0, :, :, None].numpy()
        np.testing.assert_allclose(picture / 255, grey.repeat(3, axis=2), atol=half_a_level)


def test_pictures_do_not_depend_on_what_was_read_before():
    source, again = (DigitSource(SMALL, split="train", num_canvases=5) for _ in range(2))
    forth = [(pixels(source, index).tobytes(), source.label(index)) for index in range(5)]
    back = [(pixels(again, index).tobytes(), again.label(index)) for index in (4, 3, 2, 1, 0)]
    assert forth == back[::-1]
    assert len(set(forth)) == 5


def test_a_longer_source_begins_with_the_pictures_of_a_shorter_one():
    short, long = (DigitSource(SMALL, split="train", num_canvases=n) for n in (2, 200))
    assert (len(short), len(long)) == (2, 200)
    np.testing.assert_array_equal(pixels(short, 1), pixels(long, 1))


def test_every_digit_occurs_and_the_names_tell_split_and_number():
    source = DigitSource(SMALL, split="test", num_canvases=60)
    assert {source.label(index) for index in range(60)} == set(range(10))
    assert source.class_names == tuple("0123456789")
    assert source.name(7) == "digits/test/7"


def test_a_picture_and_its_label_are_drawn_once(monkeypatch):
    seeds, batch = [], DigitCanvases.batch

    def counted(self, batch_size, *, seed):
        seeds.append(seed)
        return batch(self, batch_size, seed=seed)

    monkeypatch.setattr(DigitCanvases, "batch", counted)
    source = DigitSource(SMALL, split="train", num_canvases=9)
    for index in (4, 8):
        source.load(index)
        source.label(index)
    assert seeds == [4, 8]


@pytest.mark.refuses
def test_an_empty_source_is_refused():
    with refused("num_canvases must be >= 1, got 0"):
        DigitSource(SMALL, split="train", num_canvases=0)


@pytest.mark.refuses
def test_an_unknown_split_is_refused():
    with refused("split must be one of train, test, got 'val'"):
        DigitSource(SMALL, split="val", num_canvases=1)


@pytest.mark.parametrize(("split", "first_seed"), [("train", 0), ("test", 1_000_000_000)])
def test_a_box_is_that_of_the_digit_on_the_canvas_of_its_seed(split, first_seed):
    source = DigitSource(SMALL, split=split, num_canvases=4)
    for index in (3, 0):
        canvas = DigitCanvases(SMALL, split=split).batch(1, seed=first_seed + index)
        assert source.box(index) == tuple(canvas.boxes_xyxy[0, 0].tolist())


def test_a_box_holds_the_brightest_ink():
    clean = CanvasConfig(size_px=64, num_strokes=0, num_fragments=0, noise=0.0)
    source = DigitSource(clean, split="train", num_canvases=5)
    for index in range(5):
        row, column = np.unravel_index(pixels(source, index)[..., 0].argmax(), (64, 64))
        left, top, right, bottom = (side * 64 for side in source.box(index))
        assert left < column + 0.5 < right
        assert top < row + 0.5 < bottom
