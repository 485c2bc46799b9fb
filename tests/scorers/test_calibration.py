"""Calibration freezes the statistics at those of a set of pictures."""

import pytest
import torch
from torch.testing import assert_close

from dartok.scorers import RegionTokenizer, calibrate, create_scorer


def test_calibration_uses_the_moments_of_all_pictures_however_batched():
    scorer = create_scorer("pixels", statistics="batch").train()
    pictures = torch.randn(7, 3, 40, 40)
    logits = scorer.logits(pictures)
    calibrate(scorer, [(pictures[:4], torch.zeros(4)), (pictures[4:], torch.zeros(3))])
    assert_close(scorer.statistics.mean, logits.mean(), rtol=1e-5, atol=1e-6)
    assert_close(scorer.statistics.var, logits.var(), rtol=1e-4, atol=1e-6)
    assert scorer.training


def test_after_calibration_results_do_not_depend_on_the_batch():
    scorer = create_scorer("pixels", statistics="batch").eval()
    pictures = torch.randn(5, 3, 40, 40)
    assert not torch.allclose(scorer(pictures)[:1], scorer(pictures[:1]), atol=1e-3)
    calibrate(scorer, pictures)
    assert_close(scorer(pictures)[:1], scorer(pictures[:1]), rtol=0, atol=1e-6)


@pytest.mark.refuses
def test_no_pictures_are_refused():
    with pytest.raises(ValueError, match="at least one batch of pictures, got none"):
        calibrate(create_scorer("pixels"), [])


@pytest.mark.refuses
def test_broken_pictures_are_refused_and_change_nothing():
    scorer = create_scorer("pixels", statistics="batch").train()
    for pictures, message in [
        (torch.full((2, 3, 20, 20), torch.nan), "images must be finite"),
        (torch.zeros(2, 3, 20, 20, dtype=torch.uint8), "images must be floating point"),
    ]:
        with pytest.raises(ValueError, match=message):
            calibrate(scorer, [torch.rand(2, 3, 20, 20), pictures])
    assert scorer.training
    assert not scorer.statistics.frozen


def test_a_tokenizer_without_statistics_is_left_as_it_is():
    calibrate(RegionTokenizer(embed_dim=4, num_tokens=4, scorer="conv"), [])


@pytest.mark.refuses
def test_a_model_without_regions_is_refused():
    with pytest.raises(ValueError, match="must hold a dartok tokenizer or scorer, got Linear"):
        calibrate(torch.nn.Linear(1, 1), [])
