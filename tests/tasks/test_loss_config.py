"""Settings of the loss: what is refused, and that the defaults are those of the authors."""

import math

import pytest
from refusals import refused

from dartok.tasks.loss_config import LossConfig


def test_by_default_it_is_cross_entropy_with_a_tenth_of_the_label_spread():
    assert LossConfig() == LossConfig(loss="ce", label_smoothing=0.1)


@pytest.mark.refuses
def test_an_unknown_loss_is_refused():
    with refused("loss must be ce or bce, got 'mse'"):
        LossConfig(loss="mse")


@pytest.mark.refuses
@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0, math.nan])
def test_a_smoothing_that_leaves_no_label_is_refused(smoothing):
    with refused(f"label-smoothing must be from 0 to below 1, got {smoothing}"):
        LossConfig(label_smoothing=smoothing)
