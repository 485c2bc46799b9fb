"""Layout, compilation and memory of a model that is trained."""

import math

import pytest
import timm
import torch
from torch import nn

from dartok.models import adapt, set_num_tokens
from dartok.train.acceleration import accelerate, peak_memory_gb
from dartok.train.budgets import Budget
from dartok.train.loop_config import LoopConfig


def loop(tmp_path, **settings):
    return LoopConfig(out=tmp_path, **settings)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return adapt(timm.create_model("test_vit", num_classes=3), num_tokens=20, strength=1.0).eval()


def test_channels_last_changes_the_layout_and_nothing_else(model, tmp_path):
    images = torch.randn(2, 3, 96, 96)
    before = model(images)
    changed = accelerate(model, loop(tmp_path, channels_last=True), None)
    weight = changed.patch_embed.proj.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(changed(images), before, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [Budget(20, 20), Budget(12, 20)], ids=["whole", "blocks"])
def test_a_compiled_model_is_the_same_function_also_when_its_budget_changes(
    model, tmp_path, budget
):
    images = torch.randn(2, 3, 96, 96)
    numbers = range(budget.least, budget.most + 1, 4)
    expected = []
    for number in numbers:
        set_num_tokens(model, number)
        expected.append(model(images).detach())
    compiled = accelerate(model, loop(tmp_path, compile=True), budget)
    for number, before in zip(numbers, expected, strict=True):
        set_num_tokens(compiled, number)
        torch.testing.assert_close(compiled(images), before, rtol=1e-4, atol=1e-5)
    assert list(compiled.state_dict()) == list(model.state_dict()), "no prefix in a checkpoint"


@pytest.mark.refuses
def test_a_model_without_blocks_is_not_compiled_by_blocks(tmp_path):
    settings = loop(tmp_path, compile=True)
    with pytest.raises(ValueError, match="needs a model with blocks, got Linear; drop --compile"):
        accelerate(nn.Linear(2, 2), settings, Budget(1, 2))


def test_the_memory_in_use_is_at_least_that_of_a_large_tensor():
    if math.isnan(peak_memory_gb(torch.device("cpu"))):
        pytest.skip("the system does not tell")
    held = torch.ones(2**26)  # a quarter of a GiB
    assert held.sum() > 0
    assert 0.25 < peak_memory_gb(torch.device("cpu")) < 1000
