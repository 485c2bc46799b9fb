"""Colours of classes."""

from dartok.data.label_maps.palette import voc_colours


def test_the_first_colours_are_those_of_voc():
    assert voc_colours(9) == (
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
        (128, 128, 0),
        (0, 0, 128),
        (128, 0, 128),
        (0, 128, 128),
        (128, 128, 128),
        (64, 0, 0),
    )


def test_no_two_colours_are_alike():
    assert len(set(voc_colours(300))) == 300
