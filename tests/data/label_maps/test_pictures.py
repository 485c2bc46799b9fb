"""Pairs of a picture and its label map: what is read, and what is refused by the file's name."""

import pickle

import numpy as np
import pytest
from PIL import Image

from dartok.data.label_maps.pictures import IGNORE, MapClasses, PairedMaps, PathPair

CLASSES = MapClasses(("road", "sky"), ((1, 2, 3), (4, 5, 6)), {5: 0, 0: 1, 9: IGNORE})


@pytest.fixture
def source(tmp_path):
    return PairedMaps(tmp_path, [PathPair("a.png", "b.png")], CLASSES)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_numbers_become_classes_at_any_depth(source, write, picture, stored, dtype):
    write("a.png", picture)
    write("b.png", stored(5, 0, 9, 9, 0, 5, dtype=dtype))
    image, labels = source.load(0)
    assert (image.mode, labels.mode) == ("RGB", "L")
    assert np.asarray(labels).tolist() == [[0, 1, IGNORE], [IGNORE, 1, 0]]


def test_a_grey_picture_comes_in_colour(source, write, stored):
    write("a.png", stored(*[7] * 6))
    write("b.png", stored(*[5] * 6))
    assert source.load(0).image.getpixel((0, 0)) == (7, 7, 7)


@pytest.mark.parametrize("number", [1, 10, 255])
def test_a_number_of_no_class_is_refused(source, write, picture, stored, number):
    write("a.png", picture)
    write("b.png", stored(5, 0, 9, 9, 0, number))
    with pytest.raises(ValueError, match=rf"b\.png holds the number {number}, .* 2 classes"):
        source.load(0)


def test_sizes_that_differ_are_refused(source, write, picture, stored):
    write("a.png", picture)
    write("b.png", stored(*[5] * 6).T)
    with pytest.raises(ValueError, match=r"b\.png must be as large .* 3 x 2, got 2 x 3"):
        source.load(0)


def test_a_coloured_label_map_is_refused(source, write, picture):
    write("a.png", picture)
    write("b.png", picture)
    with pytest.raises(ValueError, match=r"b\.png must hold one number per pixel, got mode RGB"):
        source.load(0)


@pytest.mark.parametrize("broken", ["a.png", "b.png"])
def test_a_damaged_or_missing_file_is_named(source, write, picture, stored, tmp_path, broken):
    write("a.png", picture)
    write("b.png", stored(*[5] * 6))
    path = tmp_path / broken
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=rf"{broken} cannot be read"):
        source.load(0)
    path.unlink()
    with pytest.raises(ValueError, match=rf"{broken} does not exist"):
        source.load(0)


def test_a_source_can_be_sent_to_a_worker(source, write, picture, stored):
    write("a.png", picture)
    write("b.png", stored(*[5] * 6))
    copy = pickle.loads(pickle.dumps(source))
    assert isinstance(copy.load(0).labels, Image.Image)
    assert len(copy) == 1


@pytest.mark.parametrize("number", [-1, -6, 2**20])
def test_numbers_that_no_table_holds_are_refused_too(tmp_path, write, picture, stored, number):
    write("a.png", picture)
    write("b.tif", stored(5, 0, 9, 9, 0, number, dtype=np.int32))
    source = PairedMaps(tmp_path, [PathPair("a.png", "b.tif")], CLASSES)
    with pytest.raises(ValueError, match=rf"b\.tif holds the number {number}, "):
        source.load(0)
