"""Calibration freezes the statistics at those of a set of pictures."""

import pytest
import torch
from torch.testing import assert_close

from dartok.scorers import calibrate, create_scorer


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
