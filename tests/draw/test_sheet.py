"""Contact sheets: no picture is changed, no letter is lost."""

import numpy as np
import pytest
from PIL import Image

from dartok.draw import contact_sheet

RED, BLUE = (200, 0, 0), (0, 0, 200)


def extent(sheet, colour):
    """Left, top, right, bottom of the pixels of one colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def blank_border(sheet):
    pixels = np.asarray(sheet)
    edges = [pixels[:3], pixels[-3:], pixels[:, :3], pixels[:, -3:]]
    return all((edge == 255).all() for edge in edges)


def test_pictures_keep_their_size_and_share_a_base_line():
    small, large = Image.new("RGB", (200, 100), RED), Image.new("RGB", (300, 250), BLUE)
    sheet = contact_sheet([[small, large]])
    left, top, right, bottom = extent(sheet, RED)
    assert (right - left, bottom - top) == (200, 100)
    other = extent(sheet, BLUE)
    assert (other[2] - other[0], other[3] - other[1]) == (300, 250)
    assert other[3] == bottom
    assert right < other[0]


@pytest.mark.parametrize("width_px", [1, 30, 200, 2000])
@pytest.mark.parametrize(
    "caption", ["short", "a caption of quite a few words, as they are", "x" * 300]
)
def test_captions_of_any_length_stay_on_the_paper(width_px, caption):
    sheet = contact_sheet([[Image.new("RGB", (width_px, 40), RED)]], [[caption]], title=caption)
    assert blank_border(sheet)
    ink = (np.asarray(sheet) != 255).any(axis=-1)
    below = ink[extent(sheet, RED)[3] :]
    assert below.any()


def test_no_letter_of_a_long_caption_is_lost():
    picture = Image.new("RGB", (220, 40), RED)
    once, twice = (contact_sheet([[picture]], [["W" * count]]) for count in (40, 80))
    ink = [(np.asarray(sheet)[..., 1] < 128).sum() - 220 * 40 for sheet in (once, twice)]
    assert ink[1] == pytest.approx(2 * ink[0], rel=0.05)


def test_rows_may_differ_in_length():
    picture = Image.new("RGB", (200, 100), RED)
    assert contact_sheet([[picture] * 3, [picture]]).size == (668, 251)


def test_letters_grow_with_the_pictures():
    heights = []
    for side_px in (300, 1200):
        sheet = contact_sheet([[Image.new("RGB", (side_px, side_px), RED)]], [["caption"]])
        ink = (np.asarray(sheet)[extent(sheet, RED)[3] :] < 128).any(axis=(1, 2))
        heights.append(ink.sum())
    assert heights[1] > 2.5 * heights[0]


@pytest.mark.refuses
@pytest.mark.parametrize("rows", [[], [[]]])
def test_a_sheet_without_pictures_is_refused(rows):
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet(rows)


@pytest.mark.refuses
def test_captions_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match=r"captions must be \[1\] per row .* got \[2\]"):
        contact_sheet([[Image.new("RGB", (9, 9))]], [["a", "b"]])
