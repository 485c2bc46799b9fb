"""Heat maps: equal steps look equal, and the same colour means the same density everywhere."""

import numpy as np
import pytest
import torch

from dartok.draw import draw_scores, heat_colours


def cielab(rgb):
    """CIE 1976 L*a*b* of sRGB in [0, 255], D65, from the definitions."""
    coded = np.asarray(rgb, dtype=float) / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375]]
    to_xyz += [[0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    xyz = linear @ np.transpose(to_xyz) / [0.95047, 1.0, 1.08883]
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def test_equal_steps_on_the_scale_are_about_equally_visible():
    steps = np.linalg.norm(np.diff(cielab(heat_colours(np.linspace(0, 1, 17))), axis=0), axis=1)
    assert steps.max() / steps.min() < 1.4


def test_lightness_rises_all_the_way():
    lightness = cielab(heat_colours(np.linspace(0, 1, 65)))[:, 0]
    assert (np.diff(lightness) > 0).all()
    assert np.ptp(lightness) > 90


def test_pure_heat_is_the_colour_of_the_ratio_to_the_mean():
    scores = torch.tensor([[[0.0, 1.0, 1.0, 2.0]]])
    picture = draw_scores(torch.zeros(1, 3, 400, 1600), scores, opacity=1.0)[0]
    seen = np.asarray(picture)[200, [100, 600, 1500]].astype(int)
    expected = heat_colours(np.array([0.0, 0.25, 0.5])).astype(int)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1)  # of 255


def test_scores_that_differ_by_a_factor_look_the_same():
    scores = torch.rand(1, 6, 6) + 0.1
    images = torch.rand(1, 3, 60, 60)
    first, second = draw_scores(images, scores)[0], draw_scores(images, 1000 * scores)[0]
    difference = np.asarray(first).astype(int) - np.asarray(second)
    assert abs(difference).max() <= 1  # of 255


@pytest.mark.parametrize("value", [0.0, 1e-20, 1.0, 1e20])
def test_a_constant_score_map_has_one_colour(value):
    picture = draw_scores(torch.zeros(1, 3, 400, 400), torch.full((1, 3, 5), value))[0]
    assert len(picture.getcolors()) == 1


def test_frames_of_clips_get_a_picture_each():
    pictures = draw_scores(torch.rand(2, 3, 3, 40, 50), torch.rand(2, 3, 4, 4))
    assert len(pictures) == 6


def test_frames_of_a_clip_are_compared_with_each_other():
    scores = torch.tensor([1.0, 3.0])[None, :, None, None].expand(-1, -1, 4, 4)
    pictures = draw_scores(torch.zeros(1, 2, 3, 400, 400), scores, opacity=1.0)
    seen = [np.asarray(picture)[200, 200].astype(int) for picture in pictures]
    expected = heat_colours(np.array([0.5, 1.5]) / 4).astype(int)
    np.testing.assert_allclose(seen, expected, rtol=0, atol=2)  # of 255


def test_images_of_a_batch_are_not_compared_with_each_other():
    scores = torch.tensor([1.0, 3.0])[:, None, None].expand(-1, 4, 4)
    first, second = draw_scores(torch.zeros(2, 3, 400, 400), scores)
    assert first.tobytes() == second.tobytes()


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("scores", "opacity", "message"),
    [
        (torch.rand(2, 4, 4), 0.5, "one map per image or frame, 1, got 2"),
        (torch.rand(4, 4), 0.5, r"scores must be \(B, h, w\)"),
        (torch.full((1, 2, 2), float("inf")), 0.5, "scores must be finite and >= 0"),
        (-torch.ones(1, 2, 2), 0.5, "scores must be finite and >= 0"),
        (torch.rand(1, 4, 4), 1.5, "opacity must be from 0 to 1, got 1.5"),
    ],
)
def test_scores_that_cannot_be_shown_are_refused(scores, opacity, message):
    with pytest.raises(ValueError, match=message):
        draw_scores(torch.rand(1, 3, 8, 8), scores, opacity=opacity)
