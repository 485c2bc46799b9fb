"""Image files of every kind become the tensor one expects, or are refused by name."""

import struct
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from dartok.data.images import load_image, open_image

DESCRIPTION, ORIENTATION, RESOLUTION = 0x010E, 0x0112, 0x011A
TEXT, RATIONAL, RAW, DOUBLE = 2, 5, 7, 12
"""Tags and types of EXIF."""
DIRECT = ("CMYK", "YCbCr")
"""Modes that TIFF holds and PNG does not."""
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def saved(image, path, **options):
    image.save(path, **options)
    return path


def as_array(path):
    return load_image(path).permute(1, 2, 0).numpy()


def test_colours_come_back_between_0_and_1(tmp_path):
    image = load_image(saved(Image.fromarray(COLOURS), tmp_path / "a.png"))
    assert image.shape == (3, 6, 5)
    assert image.dtype == torch.float32
    assert image.is_contiguous()
    np.testing.assert_allclose(image.permute(1, 2, 0), COLOURS / 255, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_and_palettes_become_three_channels(tmp_path, mode):
    image = Image.fromarray(COLOURS).convert(mode)
    expected = np.asarray(image.convert("RGB")) / 255
    np.testing.assert_allclose(as_array(saved(image, tmp_path / "a.png")), expected, atol=1e-6)


def test_cmyk_becomes_colours(tmp_path):
    blue = Image.new("RGB", (8, 8), (0, 0, 255)).convert("CMYK")
    image = as_array(saved(blue, tmp_path / "a.tiff"))
    np.testing.assert_allclose(image[4, 4], [0, 0, 1], atol=0.01)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_show_white(tmp_path, mode):
    image = Image.new(mode, (2, 1), (0, 0) if mode == "LA" else (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 255) if mode == "LA" else (0, 0, 0, 255))
    seen = as_array(saved(image, tmp_path / "a.png"))
    np.testing.assert_array_equal(seen[0], [[1, 1, 1], [0, 0, 0]])


def test_a_transparent_colour_of_a_palette_shows_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 0), 1)
    seen = as_array(saved(image, tmp_path / "a.gif", transparency=0))
    np.testing.assert_allclose(seen[0] * 255, [[255, 255, 255], [0, 200, 0]], atol=0.01)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_16_bits_keep_their_depth(tmp_path, suffix):
    values = np.array([[0, 1, 256, 65535]], dtype=np.uint16)
    seen = as_array(saved(Image.fromarray(values), tmp_path / f"a{suffix}"))
    np.testing.assert_allclose(seen[..., 1], values / 65535, atol=1e-7)


def test_floating_point_between_0_and_1_is_taken_as_it_is(tmp_path):
    values = np.array([[0.0, 0.25, 1.0]], dtype=np.float32)
    seen = as_array(saved(Image.fromarray(values), tmp_path / "a.tiff"))
    np.testing.assert_array_equal(seen[..., 0], values)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (8, 1), (3, 2), (6, 3)])
def test_the_orientation_of_the_camera_is_applied(tmp_path, orientation, turns):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = saved(Image.fromarray(COLOURS), tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(as_array(path), np.rot90(COLOURS, turns) / 255, atol=1e-6)


def test_of_an_animation_the_first_picture_is_taken(tmp_path):
    red, blue = (Image.new("RGB", (4, 4), colour) for colour in ("red", "blue"))
    path = saved(red, tmp_path / "a.gif", save_all=True, append_images=[blue])
    np.testing.assert_array_equal(as_array(path)[0, 0], [1, 0, 0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_opened_as_a_picture_it_shows_what_is_loaded_as_a_tensor(tmp_path, mode):
    image = Image.fromarray(COLOURS)
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray(COLOURS[..., 0]))
    path = saved(image.convert(mode), tmp_path / ("a.tiff" if mode in DIRECT else "a.png"))
    picture = open_image(path)
    assert (picture.mode, picture.size) == ("RGB", (5, 6))
    np.testing.assert_array_equal(np.asarray(picture), np.round(as_array(path) * 255))


def test_opened_as_a_picture_deep_grey_is_rounded_to_8_bits(tmp_path):
    values = np.array([[0, 128, 129, 256, 65406, 65407, 65535]], dtype=np.uint16)
    picture = np.asarray(open_image(saved(Image.fromarray(values), tmp_path / "a.png")))
    assert picture.dtype == np.uint8
    assert picture.shape == (1, 7, 3)
    for channel in range(3):
        assert picture[0, :, channel].tolist() == [0, 0, 1, 1, 254, 255, 255]


def test_opened_as_a_picture_floating_point_is_rounded_to_8_bits(tmp_path):
    values = np.array([[0.0, 0.25, 1.0]], dtype=np.float32)
    picture = open_image(saved(Image.fromarray(values), tmp_path / "a.tiff"))
    assert np.asarray(picture)[0].tolist() == [[0] * 3, [64] * 3, [255] * 3]


def test_opened_as_a_picture_it_is_upright_once_and_needs_its_file_no_more(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(Image.fromarray(COLOURS), tmp_path / "a.png", exif=exif)
    picture = open_image(str(path))
    path.unlink()
    np.testing.assert_array_equal(np.asarray(picture), np.rot90(COLOURS, 3))
    assert ORIENTATION not in picture.getexif()


def refusal(path):
    messages = set()
    for read in (load_image, open_image):
        with pytest.raises(ValueError, match="image") as error:
            read(path)
        messages.add(str(error.value))
    (message,) = messages
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.refuses
def test_a_missing_file_is_refused(tmp_path):
    assert "does not exist; check the path" in refusal(tmp_path / "missing.png")


@pytest.mark.refuses
def test_a_folder_is_refused(tmp_path):
    assert "is a folder; name the files in it" in refusal(tmp_path)


@pytest.mark.refuses
@pytest.mark.parametrize("content", [b"", b"some words", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    assert "cannot be read" in refusal(path)


@pytest.mark.refuses
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".gif", ".bmp", ".tiff"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused_never_completed(tmp_path, suffix, share):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(Image.fromarray(noise), tmp_path / f"a{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cannot be read" in refusal(path)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("good", "broken"),
    [
        ((DESCRIPTION, TEXT, 9), (DESCRIPTION, RATIONAL, 1)),
        ((DESCRIPTION, TEXT, 9), (DESCRIPTION, DOUBLE, 1)),
        ((RESOLUTION, RATIONAL, 1), (RESOLUTION, RAW, 8)),
    ],
)
def test_broken_camera_data_never_stops_a_run_but_by_a_refusal(tmp_path, good, broken):
    exif = Image.Exif()
    exif[ORIENTATION], exif[DESCRIPTION], exif[RESOLUTION] = 6, "8 signs.", 72.0
    path = saved(Image.fromarray(COLOURS), tmp_path / "a.jpg", exif=exif)
    content = path.read_bytes()
    good, broken = (struct.pack(">HHL", *entry) for entry in (good, broken))
    assert content.count(good) == 1
    path.write_bytes(content.replace(good, broken))
    with suppress(ValueError):  # whether Pillow minds depends on its version
        assert open_image(path).size == (6, 5)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("values", "range_"),
    [
        (np.array([[0.0, 300.0]], dtype=np.float32), r"[0, 1], got [0, 300]"),
        (np.array([[0.0, np.nan]], dtype=np.float32), r"[0, 1], got [nan, nan]"),
        (np.array([[-5, 7]], dtype=np.int32), r"[0, 65535], got [-5, 7]"),
    ],
)
def test_values_of_unknown_range_are_refused(tmp_path, values, range_):
    assert range_ in refusal(saved(Image.fromarray(values), tmp_path / "a.tiff"))


@pytest.mark.refuses
def test_an_image_too_large_to_be_decoded_safely_is_refused(tmp_path, monkeypatch):
    path = saved(Image.fromarray(COLOURS), tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert "cannot be read" in refusal(path)
