import re
import sys

import pytest
import torch

from dartok.data.digits import CanvasConfig, DigitCanvases, load_digit_pictures

SMALL = CanvasConfig(size_px=64)


def as_rows(pictures):
    return {tuple(row) for row in pictures.flatten(1).tolist()}


def test_no_handwritten_digit_is_in_both_splits():
    train, _ = load_digit_pictures("train")
    test, _ = load_digit_pictures("test")
    assert len(train) + len(test) == 1797
    assert not as_rows(train) & as_rows(test)


def test_each_split_holds_every_digit_about_equally_often():
    for split in ("train", "test"):
        counts = load_digit_pictures(split)[1].bincount(minlength=10)
        assert counts.min() > 0.07 * counts.sum()


def test_the_same_seed_makes_the_same_canvases():
    first, again = (DigitCanvases(SMALL, split="train").batch(3, seed=5) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)


def test_another_seed_or_split_makes_other_canvases():
    canvases = DigitCanvases(SMALL, split="train").batch(3, seed=5).images
    assert not torch.equal(canvases, DigitCanvases(SMALL, split="train").batch(3, seed=6).images)
    assert not torch.equal(canvases, DigitCanvases(SMALL, split="test").batch(3, seed=5).images)


def test_making_canvases_leaves_the_global_random_state_alone():
    source = DigitCanvases(SMALL, split="train")
    state = torch.get_rng_state()
    source.batch(2, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_batches_differ_from_each_other_and_repeat_for_the_same_seed():
    source = DigitCanvases(SMALL, split="train")
    first, second = (batch for batch, _ in zip(source.batches(2, seed=0), range(2), strict=False))
    again = next(source.batches(2, seed=0))
    assert not torch.equal(first.images, second.images)
    assert torch.equal(first.images, again.images)


def test_pixels_are_grey_in_the_unit_range_and_labels_are_digits():
    canvases = DigitCanvases(SMALL, split="train").batch(200, seed=0)
    assert canvases.images.shape == (200, 1, 64, 64)
    assert canvases.images.min() >= 0
    assert canvases.images.max() <= 1
    assert canvases.labels.unique().tolist() == list(range(10))


def test_all_the_ink_of_an_uncluttered_canvas_lies_in_the_digits_boxes():
    config = CanvasConfig(
        size_px=80, num_digits=2, num_strokes=0, num_fragments=0, blob_contrast=0, noise=0
    )
    canvases = DigitCanvases(config, split="train").batch(20, seed=0)
    pixel = (torch.arange(80) + 0.5) / 80
    left, top, right, bottom = canvases.boxes_xyxy.unsqueeze(-1).unbind(2)
    blur = config.max_digit_px / 16 / 80  # half a pixel of the digit, from its enlargement
    lean = 0.1 * config.max_digit_px / 80  # of a slanted digit, at its top and foot
    in_x = (pixel > left - blur - lean) & (pixel < right + blur + lean)
    in_y = (pixel > top - blur) & (pixel < bottom + blur)
    inside = (in_y.unsqueeze(-1) & in_x.unsqueeze(-2)).any(1)
    ink = (canvases.images[:, 0] - 0.2).abs() > 0.05
    assert ink.flatten(1).any(1).all()
    assert not (ink & ~inside).any()


def test_boxes_are_as_large_as_the_config_says():
    config = CanvasConfig(size_px=100, min_digit_px=10, max_digit_px=20, num_digits=3)
    boxes = DigitCanvases(config, split="train").batch(40, seed=0).boxes_xyxy * 100
    assert boxes.shape == (40, 3, 4)
    sides = boxes[..., 2:] - boxes[..., :2]
    assert sides.min() >= 10 - 1e-4
    assert sides.max() <= 20 + 1e-4
    assert boxes.min() >= -1e-4
    assert boxes.max() <= 100 + 1e-4


def test_all_digits_of_a_canvas_are_of_its_label():
    config = CanvasConfig(num_digits=5)
    source = DigitCanvases(config, split="train")
    pictures, labels = load_digit_pictures("train")
    members = {n: as_rows(pictures[labels == n]) for n in range(10)}
    wanted = torch.arange(10)
    picked = source._pick(wanted, torch.Generator().manual_seed(0)).view(10, 5, 8, 8)
    assert all(as_rows(picked[n]) <= members[n] for n in range(10))


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_digit_px": 7}, "min_digit_px must be >= 8, got 7"),
        ({"max_digit_px": 300}, "to size_px = 192, got 300"),
        ({"max_digit_px": 10}, "from min_digit_px = 20"),
        ({"num_digits": 0}, "num_digits must be >= 1, got 0"),
        ({"num_strokes": -1}, "num_strokes must be >= 0 and finite, got -1"),
        ({"noise": float("nan")}, "noise must be >= 0 and finite, got nan"),
    ],
)
def test_a_canvas_that_cannot_be_made_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CanvasConfig(**options)


@pytest.mark.refuses
def test_an_unknown_split_and_an_empty_batch_are_refused():
    with pytest.raises(ValueError, match="split must be one of train, test, got 'val'"):
        DigitCanvases(SMALL, split="val")
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        DigitCanvases(SMALL, split="test").batch(0, seed=0)


@pytest.mark.refuses
def test_a_missing_package_is_answered_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'dartok[demo]'")):
        load_digit_pictures("train")
