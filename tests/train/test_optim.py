"""Optimiser and schedule: timm's, as their docstrings say."""

import itertools
import math

import pytest
import torch
from torch import nn

from dartok.train.optim import Schedule, create_optimiser, warmup_steps
from dartok.train.optim_config import OptimConfig


class Model(nn.Module):
    """A matrix, one that the model excludes from the decay, and a bias."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 4))
        self.positions = nn.Parameter(torch.ones(2, 4))
        self.bias = nn.Parameter(torch.ones(2))

    def no_weight_decay(self):
        return {"positions"}


def rates(num_steps, **settings):
    optimiser = create_optimiser(Model(), OptimConfig(**settings))
    schedule = Schedule(optimiser, OptimConfig(**settings), num_steps)
    found = []
    for step in range(num_steps):
        schedule.apply(step)
        assert len({group["lr"] for group in optimiser.param_groups}) == 1
        found.append(optimiser.param_groups[0]["lr"])
    return found


def test_weight_decay_spares_biases_and_what_the_model_names():
    model = Model()
    config = OptimConfig(learning_rate=0.1, weight_decay=0.5)
    optimiser = create_optimiser(model, config)
    sum(parameter.sum() * 0 for parameter in model.parameters()).backward()  # only the decay acts
    optimiser.step()
    assert model.weight.tolist() == [[pytest.approx(0.95)] * 4] * 2
    assert torch.equal(model.positions, torch.ones(2, 4))
    assert torch.equal(model.bias, torch.ones(2))


@pytest.mark.parametrize(("num_steps", "warmup"), [(40, 5), (40, 0), (6, 6), (1, 0)])
def test_the_cosine_is_the_documented_formula(num_steps, warmup):
    least, most = 0.01, 0.3
    expected = [
        most * (step + 1) / (warmup + 1)
        if step < warmup
        else least + (most - least) * (1 + math.cos(math.pi * step / num_steps)) / 2
        for step in range(num_steps)
    ]
    actual = rates(num_steps, learning_rate=most, min_learning_rate=least, warmup_steps=warmup)
    assert actual == pytest.approx(expected, rel=1e-12)


def test_the_cosine_falls_all_the_way():
    found = rates(100, warmup_steps=10, learning_rate=2.0, min_learning_rate=0.0)
    assert all(a < b for a, b in itertools.pairwise(found[:10]))
    assert all(a > b > 0 for a, b in itertools.pairwise(found[10:]))
    assert found[50] == pytest.approx(1.0)


def test_the_constant_rises_and_stays():
    found = rates(200, warmup_steps=3, learning_rate=0.4, schedule="constant")
    assert found[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert found[3:] == [0.4] * 197


def test_a_rate_depends_on_the_step_alone():
    config = OptimConfig(warmup_steps=3)
    optimiser = create_optimiser(Model(), config)
    schedule = Schedule(optimiser, config, 20)
    for step in (15, 2, 7):
        schedule.apply(step)
        assert optimiser.param_groups[0]["lr"] == rates(20, warmup_steps=3)[step]


def test_the_warm_up_is_a_twentieth_unless_it_is_given():
    assert warmup_steps(OptimConfig(), 199) == 9
    assert warmup_steps(OptimConfig(warmup_steps=0), 199) == 0


@pytest.mark.parametrize("name", ["adamw", "lamb", "lion", "nadamw", "lookahead_adamw"])
def test_the_betas_reach_every_optimiser_that_has_two(name):
    config = OptimConfig(optimiser=name, beta1=0.7, beta2=0.8)
    groups = create_optimiser(Model(), config).param_groups
    assert all(tuple(group["betas"]) == (0.7, 0.8) for group in groups)


@pytest.mark.parametrize("name", ["sgd", "lamb", "adan", "adafactor", "lookahead_adamw"])
def test_optimisers_with_other_options_take_a_step(name):
    model = Model()
    optimiser = create_optimiser(model, OptimConfig(optimiser=name, learning_rate=0.1))
    (model.weight.square().sum() + model.bias.sum()).backward()
    optimiser.step()
    assert (model.weight < 1).all()


def test_what_is_frozen_is_not_in_the_optimiser():
    model = Model()
    model.weight.requires_grad_(False)
    groups = create_optimiser(model, OptimConfig()).param_groups
    assert sum(len(group["params"]) for group in groups) == 2


@pytest.mark.refuses
def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="optimiser must be one of timm's, .* got 'adamm'"):
        create_optimiser(Model(), OptimConfig(optimiser="adamm"))


@pytest.mark.refuses
def test_a_model_in_which_nothing_learns_is_refused():
    with pytest.raises(ValueError, match="nothing learns: .* choose other --parts"):
        create_optimiser(Model().requires_grad_(False), OptimConfig())


@pytest.mark.refuses
def test_a_warm_up_longer_than_the_epochs_is_refused():
    with pytest.raises(ValueError, match="warmup-steps must be at most the 9 of the run, got 10"):
        warmup_steps(OptimConfig(warmup_steps=10), 9)
