"""torchvision's `VisionTransformer` on regions."""

import copy

import pytest
import torch
from deterministic import spread
from torch import nn
from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

import dartok
from dartok.models.torchvision_vit import RegionTorchvisionViT


def built(**options: object) -> VisionTransformer:
    size = {"image_size": 64, "patch_size": 16, "num_layers": 2, "num_heads": 2}
    width = {"hidden_dim": 48, "mlp_dim": 96, "num_classes": 10}
    host = spread(VisionTransformer(**size | width | options))
    nn.init.normal_(host.heads.head.weight)  # zero at birth
    return host


@pytest.fixture
def host():
    return built()


@pytest.fixture
def model(host):
    return dartok.adapt(host, num_tokens=20, strength=1.0).eval()


def relative_difference(actual, expected):
    return float(((actual - expected).norm() / expected.norm()).detach())


@pytest.mark.parametrize("options", [{}, {"representation_size": 12}, {"patch_size": 8}])
@torch.no_grad()
def test_an_adapted_host_starts_as_the_same_function(options):
    host = built(**options)
    model = dartok.adapt(host)
    assert isinstance(model, RegionTorchvisionViT)
    images = torch.randn(2, 3, 64, 64)
    assert relative_difference(model(images), host(images)) < 1e-5
    tokens = host._process_input(images)
    tokens = host.encoder(torch.cat([host.class_token.expand(2, -1, -1), tokens], 1))
    assert relative_difference(model.forward_features(images), tokens) < 1e-5


@pytest.mark.slow
@torch.no_grad()
def test_a_model_of_torchvisions_own_size_starts_as_the_same_function():
    host = built(image_size=224, hidden_dim=768, mlp_dim=3072, num_heads=12)  # vit_b_16, 2 layers
    images = torch.randn(1, 3, 224, 224)
    assert relative_difference(dartok.adapt(host)(images), host(images)) < 1e-5


@pytest.mark.parametrize("size", [(64, 300), (16, 16), (333, 47)])
@pytest.mark.parametrize("num_tokens", [1, 7, 196])
@torch.no_grad()
def test_any_image_any_budget(model, size, num_tokens):
    dartok.set_num_tokens(model, num_tokens)
    images = torch.randn(2, 3, *size)
    assert model(images).isfinite().all()
    assert model.forward_features(images).shape == (2, 1 + num_tokens, 48)


@torch.no_grad()
def test_an_image_alone_has_the_result_it_has_in_any_batch(model):
    images = torch.randn(3, 3, 90, 130)
    images[1:] *= 5
    assert relative_difference(model(images)[:1], model(images[:1])) < 1e-5


def test_the_scorer_and_the_positions_learn_through_the_regions(model):
    model.train()(torch.randn(2, 3, 96, 128)).square().sum().backward()
    assert model.conv_proj.scorer.gain.grad.abs() > 0
    assert model.conv_proj.pos_embed.grad.abs().sum() > 0
    assert model.class_token.grad.abs().sum() > 0


def test_the_host_is_left_as_it_was_and_shares_its_layers(host):
    images = torch.randn(1, 3, 64, 64)
    state, expected = copy.deepcopy(host.state_dict()), host(images)
    model = dartok.adapt(host, strength=1.0)
    assert model.encoder.layers is host.encoder.layers
    assert "encoder.pos_embedding" not in model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in host.state_dict().items())
    assert torch.equal(host(images), expected)


def test_a_frozen_host_stays_frozen(host):
    model = dartok.adapt(host.requires_grad_(False), scorer="edge")
    assert not [name for name, value in model.named_parameters() if value.requires_grad]


@pytest.mark.refuses
def test_a_convolutional_stem_is_refused_by_name():
    host = built(conv_stem_configs=[ConvStemConfig(48, 3, 2)])
    with pytest.raises(ValueError, match="its conv_proj is a Sequential, not a plain Conv2d"):
        dartok.adapt(host)
