import pytest
import torch
from torch import nn

from dartok.bench.cost import images_per_second, measure_cost


def test_parameters_and_multiply_adds_of_a_plain_net_are_counted_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, kernel_size=4, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 12 * 6, 5)
    )
    cost = measure_cost(model, (24, 12))
    assert cost.parameters == 3 * 8 * 16 + 8 + 8 * 12 * 6 * 5 + 5
    assert cost.multiply_adds == (12 * 6) * 8 * (3 * 16) + 8 * 12 * 6 * 5


def test_attention_counts():
    tokens, width = 10, 16

    class Attention(nn.Module):
        def forward(self, images):
            rows = images.flatten(2).expand(1, 4, -1).reshape(1, 1, tokens, width)
            return nn.functional.scaled_dot_product_attention(rows, rows, rows)

    cost = measure_cost(Attention(), (8, 5), num_channels=1)
    assert cost.multiply_adds == 2 * tokens**2 * width


def test_frozen_parameters_count_but_are_not_trainable():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 3, 1).requires_grad_(False))
    cost = measure_cost(model, (4, 4), num_channels=1)
    assert (cost.parameters, cost.trainable_parameters) == (4 + 9, 4)


def test_measuring_leaves_the_mode_of_the_model_alone():
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    before = model[1].running_mean.clone()
    measure_cost(model, (8, 8))
    images_per_second({"net": model}, torch.ones(2, 3, 8, 8), rounds=1)
    assert model.training
    assert torch.equal(model[1].running_mean, before)


def test_a_slower_model_has_fewer_images_per_second():
    class Repeated(nn.Module):
        def __init__(self, times):
            super().__init__()
            self.times = times

        def forward(self, images):
            for _ in range(self.times):
                images = images.cos()
            return images

    models = {"short": Repeated(1), "long": Repeated(100)}
    rates = images_per_second(models, torch.ones(4, 3, 64, 64), rounds=3)
    assert rates["short"] > 5 * rates["long"] > 0


@pytest.mark.refuses
def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match=r"image_size and num_channels must be >= 1, got \(0, 8\)"):
        measure_cost(nn.Identity(), (0, 8))
    with pytest.raises(ValueError, match="images must hold at least one image"):
        images_per_second({"none": nn.Identity()}, torch.ones(0, 3, 8, 8))
    with pytest.raises(ValueError, match="calls must name at least one call"):
        images_per_second({}, torch.ones(1, 3, 8, 8))
