"""Settings of the loss: what is refused, and that the defaults are those of the authors."""

import math
from pathlib import Path

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


def test_by_default_there_is_no_teacher_and_no_term_of_the_scores():
    config = LossConfig()
    assert (config.distill, config.teacher, config.teacher_checkpoint) == ("none", None, None)
    assert (config.score_entropy, config.token_cost) == (0, 0)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distill": "firm"}, "distill must be none, soft or hard, got 'firm'"),
        ({"distill": "soft"}, "distill soft needs --teacher, the name of a timm model"),
        ({"teacher": "resnet18"}, "teacher needs --distill soft or hard, got none"),
        (
            {"teacher_checkpoint": Path("a.pth")},
            "teacher-checkpoint needs --teacher, the model that it is of",
        ),
    ],
)
def test_a_teacher_and_a_way_to_learn_from_it_come_together(settings, message):
    with refused(message):
        LossConfig(**settings)


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["distill_weight", "score_entropy_target"])
@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan])
def test_a_share_outside_zero_to_one_is_refused(name, share):
    with refused(f"{name.replace('_', '-')} must be from 0 to 1, got {share}"):
        LossConfig(**{name: share})


@pytest.mark.refuses
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_leaves_no_softmax_is_refused(temperature):
    with refused(f"distill-temperature must be > 0 and finite, got {temperature}"):
        LossConfig(distill_temperature=temperature)


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["score_entropy", "token_cost", "token_target"])
@pytest.mark.parametrize("weight", [-0.1, math.inf, math.nan])
def test_a_weight_below_zero_or_without_end_is_refused(name, weight):
    with refused(f"{name.replace('_', '-')} must be >= 0 and finite, got {weight}"):
        LossConfig(**{name: weight})


def test_the_ends_of_each_range_are_taken():
    LossConfig(distill_weight=0.0, score_entropy_target=0.0, token_target=0.0)
    LossConfig(distill_weight=1.0, score_entropy_target=1.0, distill_temperature=0.1)
    LossConfig(distill="hard", teacher="resnet18", teacher_checkpoint=Path("a.pth"))
