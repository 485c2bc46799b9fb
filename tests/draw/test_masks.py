"""Label maps as pictures."""

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from dartok.draw import draw_mask, mask_image, save_image

COLOURS = ((0, 0, 0), (200, 0, 0), (0, 100, 0))
CLASSES = np.array([[0, 1, 2], [2, 255, 0]], dtype=np.uint8)


def test_a_mask_keeps_its_numbers_and_shows_their_colours(tmp_path):
    path = tmp_path / "a.mask.png"
    save_image(mask_image(CLASSES, COLOURS), path)
    with Image.open(path) as read:
        assert read.mode == "P"
        assert np.array_equal(np.array(read), CLASSES)
        shown = np.array(read.convert("RGB"))
    assert shown[0, 1].tolist() == [200, 0, 0]
    assert shown[1, 1].tolist() == [255, 255, 255]


def test_a_mask_as_jpeg_is_in_its_colours(tmp_path):
    path = tmp_path / "a.jpg"
    save_image(mask_image(np.ones((16, 16), dtype=np.uint8), COLOURS), path)
    with Image.open(path) as read:
        assert np.abs(np.array(read)[8, 8].astype(int) - (200, 0, 0)).max() < 8


def test_an_overlay_lies_between_picture_and_mask():
    picture = Image.new("RGB", (3, 2), (100, 100, 100))
    shown = np.array(draw_mask(picture, CLASSES, COLOURS)).astype(int)
    assert 100 < shown[0, 1, 0] < 200
    assert 0 < shown[0, 0, 0] < 100


@pytest.mark.refuses
def test_other_sizes_and_too_many_colours_are_refused():
    with refused("classes must be as large as the picture, 2 x 2, got 2 x 3"):
        draw_mask(Image.new("RGB", (2, 2)), CLASSES, COLOURS)
    with refused("colours must be fewer than 256, got 256"):
        mask_image(CLASSES, [(0, 0, 0)] * 256)
