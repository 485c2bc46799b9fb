"""Lines run exactly between the regions, at any size, on any ground."""

import numpy as np
import pytest
import torch

import dartok
import dartok.draw
from dartok.core.partition import partition
from dartok.core.regions import Regions
from dartok.draw import draw

WHITE = (255, 255, 255)


def lines(picture, colour=WHITE):
    return (np.asarray(picture) == colour).all(axis=-1)


def halves(axis):
    """Two regions: left and right of the middle, or above and below it."""
    if axis == "x":
        return Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]]))
    return Regions(torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([[0.0, 1.0, 2.0]]))


@pytest.mark.parametrize("line_px", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_a_line_has_the_width_asked_for_and_lies_on_the_border(axis, line_px):
    picture = draw(torch.zeros(1, 3, 400, 600), halves(axis), line_px=line_px)[0]
    drawn = lines(picture).any(axis=0 if axis == "x" else 1)
    at = np.flatnonzero(drawn)
    middle_px = {"x": 300, "y": 200}[axis]
    assert len(at) == line_px
    assert abs((at[0] + at[-1] + 1) / 2 - middle_px) <= 0.5


def test_lines_are_where_the_oracle_sees_two_regions_meet():
    scores = torch.rand(1, 7, 9) + 0.05
    regions = partition(scores, num_tokens=23, num_rows=5)
    picture = draw(torch.zeros(1, 3, 330, 410), regions, line_px=1)[0]
    labels = np.full((331, 411), -1)
    for (left, top, right, bottom), region in zip(
        regions.pieces().boxes_xyxy[0].tolist(), regions.pieces().region[0].tolist(), strict=True
    ):
        x, y = (np.arange(410) + 0.5) / 410, (np.arange(330) + 0.5) / 330
        inside = ((x >= left) & (x < right))[None] & ((y >= top) & (y < bottom))[:, None]
        labels[:330, :410][inside] = region
    labels[330], labels[:, 410] = labels[329], labels[:, 409]
    own = labels[:330, :410]
    expected = (labels[:330, 1:] != own) | (labels[1:, :410] != own)
    np.testing.assert_array_equal(lines(picture), expected)


def test_one_region_has_no_outline():
    whole = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 1.0]]))
    images = torch.rand(1, 3, 330, 400)
    expected = (images[0].permute(1, 2, 0) * 255).round().byte().numpy()
    np.testing.assert_array_equal(np.asarray(draw(images, whole)[0]), expected)


def test_a_region_across_a_seam_is_not_cut_where_it_touches_itself():
    # The middle region takes the right half of the first row and the whole second row.
    regions = Regions(torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([[0.0, 0.5, 2.0]]))
    drawn = lines(draw(torch.zeros(1, 3, 400, 400), regions, line_px=1)[0])
    assert not drawn[:, 205:].any()
    assert drawn[199, :199].all()


@pytest.mark.parametrize("ground", [0.0, 0.5, 1.0])
def test_lines_show_on_dark_and_on_light_ground(ground):
    picture = draw(torch.full((1, 3, 400, 400), ground), halves("x"))[0]
    row = np.asarray(picture.convert("L"))[200].astype(int)
    assert np.ptp(row[190:210]) >= 0.5 * 255  # of the line, its casing and the ground


def test_a_batch_gives_a_picture_each_and_a_clip_one_per_frame():
    regions = partition(torch.rand(2, 3, 4, 4) + 0.1, num_tokens=24, num_rows=3)
    pictures = draw(torch.rand(2, 3, 3, 40, 50), regions)
    assert len(pictures) == 6
    assert len({picture.size for picture in pictures}) == 1


@pytest.mark.parametrize("size_px", [(1, 1), (17, 400), (3, 700), (700, 3)])
def test_any_image_size_can_be_drawn(size_px):
    regions = partition(torch.rand(1, 4, 4) + 0.1, num_tokens=30, num_rows=3)
    picture = draw(torch.rand(1, 3, *size_px), regions)[0]
    assert picture.height * size_px[1] == picture.width * size_px[0]


def test_the_name_is_the_function_whoever_imported_the_package_first():
    images = torch.rand(1, 3, 320, 320)
    assert dartok.draw(images, halves("x"))[0].size == (320, 320)
    assert dartok.draw.contact_sheet is not None


@pytest.mark.refuses
def test_images_of_another_batch_are_refused():
    with pytest.raises(ValueError, match="as many as the regions describe, 1, got 2"):
        draw(torch.rand(2, 3, 40, 40), halves("x"))


@pytest.mark.refuses
def test_a_line_without_width_is_refused():
    with pytest.raises(ValueError, match="line_px must be >= 1, got 0"):
        draw(torch.rand(1, 3, 40, 40), halves("x"), line_px=0)
