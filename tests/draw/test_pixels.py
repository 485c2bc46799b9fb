"""Tensors become the pixels that they came from, at a size at which regions can be seen."""

import numpy as np
import pytest
import torch

from dartok.draw.pixels import display_size, enlarge, to_pixels

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def test_normalised_images_come_back_as_the_pixels_they_were():
    pixels = torch.randint(0, 256, (2, 3, 5, 7), dtype=torch.uint8)
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    normalised = (pixels.double() / 255 - mean) / std
    expected = pixels.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(to_pixels(normalised, MEAN, STD), expected)


def test_images_in_the_unit_range_and_bytes_give_the_same_pixels():
    pixels = torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    np.testing.assert_array_equal(to_pixels(pixels), to_pixels(pixels / 255))


def test_grey_images_become_three_equal_channels():
    pixels = to_pixels(torch.rand(1, 1, 4, 5))
    assert pixels.shape == (1, 4, 5, 3)
    np.testing.assert_array_equal(pixels[..., 0], pixels[..., 2])


def test_frames_of_clips_follow_each_other_clip_after_clip():
    clips = torch.rand(2, 3, 3, 4, 5)
    np.testing.assert_array_equal(to_pixels(clips)[4], to_pixels(clips[1, 1:2])[0])


@pytest.mark.parametrize(
    ("shape_px", "num_regions", "expected_px"),
    [
        ((480, 640), 196, (480, 640)),  # large enough
        ((100, 150), 4, (300, 450)),  # to 320 px
        ((400, 400), 1024, (800, 800)),  # regions of 12.5 px to 25 px
        ((1, 1), 1, (320, 320)),
        ((20, 10000), 196, (20, 10000)),
        ((2500, 2500), 65536, (2500, 2500)),  # twice that would be too large
    ],
)
def test_pictures_are_enlarged_by_the_smallest_factor_that_shows_regions(
    shape_px, num_regions, expected_px
):
    assert display_size(*shape_px, num_regions) == expected_px


def test_enlarged_pixels_stay_squares():
    pixels = np.array([[[0, 0, 0], [255, 128, 0]]], dtype=np.uint8)
    picture = np.asarray(enlarge(pixels, (3, 6)))
    np.testing.assert_array_equal(picture, pixels.repeat(3, axis=0).repeat(3, axis=1))


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (torch.rand(3, 4, 4), {}, r"images must be \(B, C, H, W\).*got \(3, 4, 4\)"),
        (torch.rand(1, 4, 4, 4), {}, r"C = 1 or 3, got \(1, 4, 4, 4\)"),
        (torch.rand(0, 3, 4, 4), {}, r"got \(0, 3, 4, 4\)"),
        (torch.full((1, 3, 2, 2), float("nan")), {}, "images must be finite"),
        (torch.full((1, 3, 2, 2), -2.1), {}, r"in \[0, 1\] without mean and std, got \[-2.1, -2.1"),
        (torch.rand(1, 3, 2, 2), {"mean": MEAN}, "mean and std must be given together"),
        (torch.rand(1, 3, 2, 2), {"mean": [0.5], "std": [0.5]}, "each of 3 channels, got 1"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(images, options, message):
    with pytest.raises(ValueError, match=message) as error:
        to_pixels(images, **options)
    assert "\n" not in str(error.value)
