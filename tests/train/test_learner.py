"""One step of learning: gradients, limits, the moving average, and what stops it."""

import copy
import math
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from dartok.data.samples import Batch
from dartok.train.learner import Learner
from dartok.train.optim_config import OptimConfig

PLAIN = {"weight_decay": 0.0, "warmup_steps": 0, "schedule": "constant", "max_grad_norm": 0.0}
DESCENT = PLAIN | {"optimiser": "momentum", "learning_rate": 0.1}
"""Its first step is that of plain gradient descent."""


def batches(count, *, size=16, seed=0, dtype=torch.float32):
    """Two classes, told apart by the sign of the first pixel."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        images = torch.randn(size, 1, 2, 2, generator=generator, dtype=dtype)
        yield Batch(images, (images[:, 0, 0, 0] > 0).long())


def linear_model(*middle):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 6), *middle, nn.Linear(6, 2))


def entropy(seen):
    return {"ce": F.cross_entropy(seen.outputs, seen.labels)}


def learner_of(model, *, num_steps=100, **settings):
    known = {name: settings.pop(name) for name in OptimConfig.__annotations__ if name in settings}
    optim = OptimConfig(**PLAIN | known)
    return Learner(model, entropy, optim=optim, num_steps=num_steps, **settings)


def values_of(state):
    """Every tensor of a nested state, in order."""
    if isinstance(state, torch.Tensor):
        return [state.clone()]
    if isinstance(state, dict):
        return [value for key in state for value in values_of(state[key])]
    if isinstance(state, (list, tuple)):
        return [value for part in state for value in values_of(part)]
    return []


def all_equal(first, second):
    assert len(first) == len(second) > 0
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_what_can_be_fitted_is_fitted():
    learner = learner_of(linear_model(nn.ReLU()), learning_rate=0.05)
    losses = [learner.step([batch], step).loss for step, batch in enumerate(batches(60))]
    assert losses[-1] < 0.2 < losses[0]
    held_out = next(batches(1, size=200, seed=1))
    right = learner.evaluated(held_out.images).argmax(1) == held_out.labels
    assert right.float().mean() > 0.9


def test_the_same_seed_learns_the_same_and_leaves_the_global_generators_alone():
    def train(model):
        def mix(images, labels):
            noise = torch.randn_like(images) + np.random.rand() + random.random()
            return images + noise, labels

        learner = learner_of(model, seed=3, mix=mix)
        return [learner.step([batch], step).loss for step, batch in enumerate(batches(4))]

    first = linear_model(nn.Dropout(0.5))
    second = copy.deepcopy(first)
    states = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    losses = train(first)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[2], random.getstate())
    torch.rand(7), np.random.rand(7), random.random()
    assert train(second) == losses
    assert all_equal(values_of(first.state_dict()), values_of(second.state_dict()))


def test_steps_and_micro_batches_have_random_numbers_of_their_own():
    drawn = []

    def mix(images, labels):
        drawn.append(torch.rand(()).item())
        return images, labels

    for seed in (0, 1):
        learner = learner_of(linear_model(), seed=seed, mix=mix, accumulate=2)
        for step in range(2):
            learner.step(list(batches(2)), step)
    assert len(set(drawn)) == len(drawn) == 8


def test_a_step_reports_the_loss_before_its_update():
    model = linear_model()
    batch = next(batches(1))
    expected = F.cross_entropy(model(batch.images), batch.labels).item()
    report = learner_of(model, learning_rate=0.25).step([batch], 0)
    assert report.step == 1
    assert report.loss == pytest.approx(expected)
    assert report.learning_rate == 0.25


def test_micro_batches_give_the_step_of_the_whole_batch():
    """In float64, and with a limit on the norm, which is of the sum and not of a part."""
    whole = next(batches(1, size=24, dtype=torch.float64))
    parts = [
        Batch(images, labels)
        for images, labels in zip(whole.images.split(8), whole.labels.split(8), strict=True)
    ]
    models = [linear_model(nn.Tanh()).double() for _ in range(2)]
    reports = []
    for model, given in zip(models, ([whole], parts), strict=True):
        learner = learner_of(model, **DESCENT | {"max_grad_norm": 0.05}, accumulate=len(given))
        reports += [learner.step(given, step) for step in range(3)]
    for one, several in zip(reports[:3], reports[3:], strict=True):
        assert one[:4] == pytest.approx(several[:4], rel=1e-6)
    for one, several in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(one, several, rtol=1e-6, atol=0)


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_a_gradient_above_the_limit_is_scaled_down_to_it(share):
    model = linear_model().double()
    batch = next(batches(1, dtype=torch.float64))
    loss = F.cross_entropy(model(batch.images), batch.labels)
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients))
    before = values_of(list(model.parameters()))
    report = learner_of(model, **DESCENT | {"max_grad_norm": share * norm}).step([batch], 0)
    assert report.grad_norm == pytest.approx(norm, rel=1e-6), "as it was before"
    scale = share if share == 0.5 else 1.0
    for old, gradient, new in zip(before, gradients, model.parameters(), strict=True):
        torch.testing.assert_close(new, old - 0.1 * scale * gradient, rtol=1e-5, atol=1e-9)


def test_the_moving_average_follows_its_formula():
    """`e = w` for the first two steps, as timm starts it, then `e <- d e + (1 - d) w`."""
    model = linear_model()
    learner = learner_of(model, ema_decay=0.8, learning_rate=0.05)
    expected = []
    for step, batch in enumerate(batches(6)):
        learner.step([batch], step)
        weights = [value.double() for value in values_of(model.state_dict())]
        if step < 2:
            expected = weights
        expected = [0.8 * e + 0.2 * w for e, w in zip(expected, weights, strict=True)]
    averaged = values_of(learner.evaluated.state_dict())
    for actual, value in zip(averaged, expected, strict=True):
        torch.testing.assert_close(actual.double(), value, rtol=1e-6, atol=1e-7)
    assert not all_equal(averaged, values_of(model.state_dict()))
    assert not learner.evaluated.training


def test_without_an_average_the_model_itself_is_evaluated():
    model = linear_model()
    assert learner_of(model).evaluated is model


def test_the_dials_are_set_before_each_step_on_the_model_and_its_average():
    seen = []
    learner = learner_of(
        linear_model(), ema_decay=0.5, prepare=lambda model, step: seen.append((model, step))
    )
    for step in range(2):
        learner.step(list(batches(1)), step)
    both = (learner.model, learner.evaluated)
    assert seen == [(model, step) for step in range(2) for model in both]


def test_a_model_in_eval_mode_learns_in_train_mode():
    learner = learner_of(linear_model(nn.Dropout(0.5)).eval())
    learner.step(list(batches(1)), 0)
    assert learner.model.training


def test_bfloat16_is_the_arithmetic_but_not_the_weights():
    dtypes = []

    def objective(seen):
        dtypes.append(seen.outputs.dtype)
        return {"ce": F.cross_entropy(seen.outputs.float(), seen.labels)}

    model = linear_model()
    optim = OptimConfig(**PLAIN)
    learner = Learner(model, objective, optim=optim, num_steps=5, precision=torch.bfloat16)
    report = learner.step(list(batches(1)), 0)
    assert dtypes == [torch.bfloat16]
    assert math.isfinite(report.loss)
    assert all(value.dtype == torch.float32 for value in values_of(learner.state()))


def test_what_is_frozen_stays_while_the_rest_learns():
    model = linear_model()
    model[1].requires_grad_(False)
    before = values_of(model.state_dict())
    learner_of(model, weight_decay=0.5).step(list(batches(1)), 0)
    after = values_of(model.state_dict())
    assert all_equal(before[:2], after[:2])
    assert not torch.equal(before[2], after[2])


@pytest.mark.parametrize("optimiser", ["adamw", "lamb", "momentum"])
def test_a_state_continues_exactly(optimiser):
    given = list(batches(6))
    settings = {"optimiser": optimiser, "ema_decay": 0.9, "schedule": "cosine", "num_steps": 6}
    whole = learner_of(linear_model(nn.Dropout(0.2)), **settings)
    for step in range(6):
        whole.step([given[step]], step)
    first = learner_of(linear_model(nn.Dropout(0.2)), **settings)
    for step in range(3):
        first.step([given[step]], step)
    saved = copy.deepcopy(first.state())
    torch.manual_seed(9)
    second = learner_of(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.Dropout(0.2), nn.Linear(6, 2)), **settings
    )
    second.load(saved)
    for step in range(3, 6):
        second.step([given[step]], step)
    assert all_equal(values_of(whole.state()), values_of(second.state()))


class Spoil(nn.Module):
    """The identity, or infinite where the first value is 7: forward or backward."""

    def __init__(self, where):
        super().__init__()
        self.where = where

    def forward(self, values):
        if self.where == "forward" or not values.requires_grad:
            return values
        return values + 0 * (values - values.detach()).abs().sqrt()  # 0 times infinity


def spoilt(batch):
    """Pictures that no loss can be finite for."""
    return batch._replace(images=torch.full_like(batch.images, math.inf))


@pytest.mark.refuses
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize("place", ["only", "first", "second"])
def test_a_loss_that_is_not_finite_stops_before_the_update(place, ema_decay):
    model = linear_model()
    learner = learner_of(model, ema_decay=ema_decay, learning_rate=0.1, accumulate=2)
    good = list(batches(2))
    learner.step(good, 0)
    before = values_of(learner.state())
    bad = {
        "only": [spoilt(good[0])],
        "first": [spoilt(good[0]), good[1]],
        "second": [good[0], spoilt(good[1])],
    }[place]
    with pytest.raises(ValueError, match="got loss nan at step 2, first in the output of 0") as e:
        learner.step(bad, 1)
    assert "\n" not in str(e.value)
    assert "lower --learning-rate" in str(e.value)
    assert all_equal(before, values_of(learner.state()))
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.refuses
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_gradient_that_is_not_finite_stops_before_the_update(accumulate):
    model = linear_model(nn.Tanh(), Spoil("backward"))
    before = values_of(model.state_dict())
    learner = learner_of(model, max_grad_norm=1.0, accumulate=accumulate)
    with pytest.raises(
        ValueError, match="got gradient norm nan at step 1, first in the gradient at 3"
    ):
        learner.step(list(batches(accumulate)), 0)
    assert all_equal(before, values_of(model.state_dict()))


@pytest.mark.refuses
def test_a_norm_too_large_for_float32_stops_though_no_module_is_to_blame():
    model = linear_model()
    learner = learner_of(model)
    batch = next(batches(1))
    learner.objective = lambda seen: {"ce": entropy(seen)["ce"] * 1e30}
    with pytest.raises(ValueError, match="got gradient norm inf at step 1, first in no single"):
        learner.step([batch], 0)


@pytest.mark.refuses
def test_the_state_of_another_model_is_refused_in_one_line():
    state = learner_of(linear_model()).state()
    other = learner_of(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match="the run to resume has another model") as raised:
        other.load(state)
    assert "\n" not in str(raised.value)


@pytest.mark.refuses
def test_a_state_without_the_average_is_refused():
    state = learner_of(linear_model()).state()
    with pytest.raises(ValueError, match="another model or optimiser .*'ema'"):
        learner_of(linear_model(), ema_decay=0.9).load(state)
