"""The scorer whose scale tells busy pictures from flat ones."""

import pytest
import torch
from torch.testing import assert_close

from dartok.scorers import DetailScorer, create_scorer, list_scorers
from dartok.scorers.build import scorer_options


def test_detail_is_the_deviation_in_each_cell():
    images = torch.randn(2, 3, 24, 35, dtype=torch.float64)
    scores = DetailScorer(side_px=None)(images)
    assert scores.shape == (2, 3, 4)
    cell = images[1, :, 8:16, 24:32].flatten(1)
    assert_close(scores[1, 1, 3], cell.std(1, correction=0).mean() + 0.05)


def test_a_flat_picture_scores_least_however_bright_and_contrast_counts():
    flat = DetailScorer()(torch.full((1, 3, 64, 64), 1e4))
    assert_close(flat, torch.full((1, 28, 28), 0.05), rtol=0, atol=1e-3)
    noise = torch.randn(1, 3, 224, 224)
    faint, strong = DetailScorer()(0.1 * noise).mean(), DetailScorer()(noise).mean()
    assert_close(strong - 0.05, 10 * (faint - 0.05))


def test_an_image_is_scored_by_itself_and_has_gradients_even_where_it_is_flat():
    images = torch.randn(3, 3, 50, 80)
    images[0] = 0
    images.requires_grad_()
    scores = DetailScorer()(images)
    assert_close(DetailScorer()(images[1:2]), scores[1:2])
    scores.sum().backward()
    assert images.grad.isfinite().all()


def test_it_is_known_by_name_and_can_be_saved():
    assert "detail" in list_scorers()
    assert scorer_options(create_scorer("detail", side_px=320)) == {
        "name": "detail",
        "side_px": 320,
    }


@pytest.mark.refuses
def test_a_picture_smaller_than_a_cell_is_refused():
    with pytest.raises(ValueError, match="at least cell_px = 8 px a side to be scored, got 5 x 9"):
        DetailScorer(side_px=None)(torch.rand(1, 3, 5, 9))
