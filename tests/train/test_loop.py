import copy
import itertools
import math
import re

import pytest
import torch
from torch import nn

from dartok.train.loop import Batch, TrainConfig, accuracy, learning_rate_at, train

PLAIN = TrainConfig(num_steps=40, learning_rate=0.05, warmup_steps=4, weight_decay=0.0)


def separable_batches(count, *, seed=0):
    """Two classes, told apart by the sign of the first pixel."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        images = torch.randn(16, 1, 2, 2, generator=generator)
        yield Batch(images, (images[:, 0, 0, 0] > 0).long())


def linear_model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))


def test_training_fits_what_can_be_fitted():
    model = linear_model()
    train(model, separable_batches(40), PLAIN)
    assert accuracy(model, separable_batches(20, seed=1)) > 0.9


def test_the_same_seed_trains_the_same_weights_and_leaves_the_global_state_alone():
    config = TrainConfig(num_steps=5, warmup_steps=1, seed=3)
    torch.manual_seed(0)
    first = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    second = copy.deepcopy(first)
    state = torch.get_rng_state()
    train(first, separable_batches(5), config)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(7)
    train(second, separable_batches(5), config)
    assert torch.equal(first[2].weight, second[2].weight)


def test_each_step_is_reported_with_the_loss_before_its_update():
    model, reports = linear_model(), []
    batches = list(separable_batches(3))
    expected = nn.functional.cross_entropy(model(batches[0].images), batches[0].labels).item()
    train(model, batches, TrainConfig(num_steps=3, warmup_steps=0), on_step=reports.append)
    assert [report.step for report in reports] == [1, 2, 3]
    assert reports[0].loss == pytest.approx(expected)


def test_no_more_batches_are_taken_than_there_are_steps():
    batches = separable_batches(5)
    train(linear_model(), batches, TrainConfig(num_steps=3, warmup_steps=0))
    assert len(list(batches)) == 2


def test_the_learning_rate_rises_in_a_line_and_falls_along_a_cosine():
    config = TrainConfig(num_steps=110, warmup_steps=10, learning_rate=2.0)
    rates = [learning_rate_at(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[35] == pytest.approx(1 + math.sqrt(0.5))
    assert all(a > b > 0 for a, b in itertools.pairwise(rates[10:]))


def test_weight_decay_spares_biases_and_what_the_model_names():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, 4))
            self.positions = nn.Parameter(torch.ones(2, 4))
            self.bias = nn.Parameter(torch.ones(2))

        def no_weight_decay(self):
            return {"positions"}

        def forward(self, images):
            zero = 0 * (self.positions.sum() + self.bias.sum() + self.weight.sum())
            return torch.zeros(len(images), 2) + zero  # no gradient: only the decay acts

    model = Model()
    config = TrainConfig(num_steps=1, warmup_steps=0, learning_rate=0.1, weight_decay=0.5)
    train(model, separable_batches(1), config)
    assert model.weight.tolist() == [[pytest.approx(0.95)] * 4] * 2
    assert torch.equal(model.positions, torch.ones(2, 4))
    assert torch.equal(model.bias, torch.ones(2))


def test_accuracy_is_measured_in_eval_mode_and_the_mode_is_kept():
    model = nn.Dropout(0.9999)
    images = torch.eye(2).repeat(50, 1)
    batch = Batch(images, images.argmax(1))
    assert accuracy(model, [batch]) == 1.0
    assert model.training


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 0}, "num_steps must be >= 1, got 0"),
        ({"num_steps": 5, "warmup_steps": 6}, "from 0 to num_steps = 5, got 6"),
        ({"num_steps": 200, "learning_rate": 0.0}, "learning_rate must be > 0 and finite, got 0.0"),
        ({"num_steps": 200, "max_grad_norm": math.nan}, "max_grad_norm must be > 0"),
        ({"num_steps": 200, "weight_decay": -0.1}, "weight_decay must be >= 0 and finite"),
    ],
)
def test_a_training_that_cannot_run_is_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        TrainConfig(**options)


@pytest.mark.refuses
def test_too_few_batches_are_refused_with_both_counts():
    with pytest.raises(ValueError, match="num_steps = 3 batches, got 2"):
        train(linear_model(), separable_batches(2), TrainConfig(num_steps=3, warmup_steps=0))


@pytest.mark.refuses
def test_a_loss_that_is_not_finite_stops_before_the_update():
    model = linear_model()
    before = copy.deepcopy(model.state_dict())
    broken = Batch(torch.full((2, 1, 2, 2), math.inf), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="loss must be finite, got nan at step 1"):
        train(model, [broken], TrainConfig(num_steps=1, warmup_steps=0))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.refuses
def test_accuracy_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        accuracy(nn.Identity(), [])
