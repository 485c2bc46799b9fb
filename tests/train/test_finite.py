"""The module where a value first ceases to be finite is named."""

import pytest
import torch
from torch import nn

from dartok.train.finite import first_not_finite


class Spoil(nn.Module):
    """The identity, or infinite in the forward or the backward pass."""

    def __init__(self, where="nowhere"):
        super().__init__()
        self.where = where
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, values):
        if self.where == "parameter":
            return values + self.shift.sqrt()  # its slope at 0 is infinite, that of values is 1
        if self.where == "backward":
            return values + 0 * (values - values.detach()).abs().sqrt()  # 0 times infinity
        return values * (torch.inf if self.where == "forward" else 1)


def model_with(spoilt):
    parts = {"first": Spoil(), "middle": nn.Sequential(nn.Linear(3, 3), spoilt), "last": Spoil()}
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return model


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("nowhere", None),
        ("forward", "the output of middle.1"),
        ("backward", "the gradient at middle.1"),
        ("parameter", "the gradient of middle.1.shift"),
    ],
)
def test_the_first_module_is_named(where, named):
    model, images = model_with(Spoil(where)), torch.ones(2, 3)
    assert first_not_finite(model, lambda: model(images).sum()) == named


def test_a_loss_that_is_not_finite_though_the_outputs_are_is_named():
    model, images = model_with(Spoil()), torch.ones(2, 3)
    assert first_not_finite(model, lambda: model(images).sum() / 0) == "the loss"


def test_images_that_are_not_finite_are_seen_at_the_first_module():
    model, images = model_with(Spoil()), torch.full((2, 3), torch.nan)
    assert first_not_finite(model, lambda: model(images).sum()) == "the output of first"


def test_several_outputs_and_integers_among_them_are_looked_at():
    class Pair(nn.Module):
        def forward(self, values):
            return {"a": 1}, [values.argmax(-1), (values, values * torch.nan)]

    class Model(nn.Sequential):
        def forward(self, values):
            return self[0](values)[1][1][0].sum()

    model, images = Model(Pair()), torch.ones(2, 3, requires_grad=True)
    assert first_not_finite(model, lambda: model(images)) == "the output of 0"


def test_gradients_from_before_are_not_mistaken_and_no_hook_stays():
    model, images = model_with(Spoil()), torch.ones(2, 3)
    model.middle[0].weight.grad = torch.full((3, 3), torch.nan)
    assert first_not_finite(model, lambda: model(images).sum()) is None
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())


def test_a_large_model_with_a_frozen_scorer_can_be_watched():
    import timm

    import dartok

    model = dartok.adapt(timm.create_model("test_vit"), num_tokens=9, scorer="squeezenet")
    dartok.set_strength(model, 1.0)
    images = torch.randn(2, 3, 64, 64)
    assert first_not_finite(model, lambda: model(images).sum()) is None
    with torch.no_grad():
        model.blocks[2].mlp.fc2.weight[0, 0] = torch.nan
    named = first_not_finite(model, lambda: model(images).sum())
    assert named == "the output of blocks.2.mlp.fc2"
