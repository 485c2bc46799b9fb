"""timm's `NaFlexVit` on regions."""

import copy

import pytest
import timm
import torch
from deterministic import spread
from timm.models.naflexvit import NaFlexVit
from torch import nn
from torch.testing import assert_close

import dartok
from dartok.models.naflex import RegionNaFlexVit

SMALL = {"patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2, "num_classes": 10}
BUILT = {
    "projection by convolution": {"embed_proj_type": "conv"},
    "projection of flat patches": {"embed_proj_type": "linear", "reg_tokens": 2},
    "rows and columns apart": {"pos_embed": "factorized", "class_token": True},
    "a grid that is not square": {"pos_embed_grid_size": (3, 5), "global_pool": "avg"},
    "attention pooling": {"global_pool": "map", "class_token": False, "reg_tokens": 1},
    "rotary": {"pos_embed": "none", "rope_type": "axial"},
    "DINOv3's rotary": {"rope_type": "dinov3", "rope_rotate_half": True},
    "learned rotary": {"rope_type": "mixed", "reg_tokens": 1},
}


def built(**options: object) -> NaFlexVit:
    try:
        host = spread(NaFlexVit(**{"pos_embed_grid_size": (4, 4)} | SMALL | options))
    except (TypeError, ValueError) as error:
        pytest.skip(f"this timm does not know all options ({error})")
    with torch.no_grad():
        for name, value in host.named_parameters():
            if "qkv.weight" in name:
                value.mul_(6)
    return host


def native_images(host: nn.Module, batch: int = 2) -> torch.Tensor:
    rows, columns = host.embeds.pos_embed_grid_size
    return torch.randn(batch, 3, rows * 16, columns * 16)


def relative_difference(actual, expected):
    return float(((actual - expected).norm() / expected.norm()).detach())


@pytest.fixture(params=["projection of flat patches", "learned rotary"])
def host(request):
    return built(**BUILT[request.param])


@pytest.fixture
def model(host):
    return dartok.adapt(host, num_tokens=20, strength=1.0).eval()


@pytest.mark.parametrize("name", BUILT)
@torch.no_grad()
def test_an_adapted_host_starts_as_the_same_function(name):
    host = built(**BUILT[name])
    model = dartok.adapt(host)
    assert isinstance(model, RegionNaFlexVit)
    images = native_images(host)
    features = model.forward_features(images)
    assert relative_difference(features, host.forward_features(images)) < 1e-5
    assert relative_difference(model(images), host(images)) < 1e-5


@pytest.mark.parametrize("name", ["naflexvit_base_patch16_gap", "naflexvit_base_patch16_siglip"])
@torch.no_grad()
def test_a_named_host_starts_as_the_same_function(name):
    host = spread(timm.create_model(name, depth=1, pos_embed_grid_size=(3, 4)))
    images = native_images(host)
    assert relative_difference(dartok.adapt(host)(images), host(images)) < 1e-5


@pytest.mark.parametrize("size", [(64, 300), (16, 16), (333, 47)])
@pytest.mark.parametrize("num_tokens", [1, 7, 196])
@torch.no_grad()
def test_any_image_any_budget(model, size, num_tokens):
    dartok.set_num_tokens(model, num_tokens)
    assert model(torch.randn(2, 3, *size)).isfinite().all()


@torch.no_grad()
def test_an_image_alone_has_the_result_it_has_in_any_batch(model):
    images = torch.randn(3, 3, 90, 130)
    images[1:] *= 5
    assert relative_difference(model(images)[:1], model(images[:1])) < 1e-4  # sharp: rounding grows


def test_the_scorer_and_the_projection_learn(model):
    model.train()(torch.randn(2, 3, 96, 128)).square().sum().backward()
    assert model.patch_embed.scorer.gain.grad.abs() > 0
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("options", [{}, {"norm": True}, {"return_prefix_tokens": True}])
@torch.no_grad()
def test_at_the_start_intermediates_are_the_hosts(host, options):
    model = dartok.adapt(host)
    images = native_images(host, 1)
    for extra in (
        {},
        {"output_fmt": "NLC"},
        {"intermediates_only": True},
        {"output_dict": True},
        {"indices": [0]},
    ):
        expected = host.forward_intermediates(images, **options, **extra)
        actual = model.forward_intermediates(images, **options, **extra)
        assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rope_type", ["axial", "mixed"])
def test_dropped_patches_take_their_angles_with_them(rope_type):
    host = built(rope_type=rope_type, patch_drop_rate=0.5)
    model = dartok.adapt(host)
    images = native_images(host)
    results = []
    for each in (host.train(), model.train()):
        torch.manual_seed(1)
        results.append(each(images))
    assert relative_difference(results[1], results[0]) < 1e-5


def test_the_host_is_left_as_it_was(host):
    images = native_images(host)
    state, expected = copy.deepcopy(host.state_dict()), host(images)
    model = dartok.adapt(host, strength=1.0)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    assert state.keys() == host.state_dict().keys()
    assert torch.equal(host(images), expected)
    assert "patch_embed.pos_embed" in model.no_weight_decay()


@pytest.mark.refuses
def test_patches_cut_before_are_refused(model):
    batch = {
        "patches": torch.randn(1, 6, 16 * 16 * 3),
        "patch_coord": torch.zeros(1, 6, 2, dtype=torch.long),
        "patch_valid": torch.ones(1, 6, dtype=torch.bool),
    }
    with pytest.raises(ValueError, match="got patches and their coordinates; the adapted model"):
        model(batch)


@pytest.mark.refuses
def test_hosts_that_cannot_be_carried_over_are_refused_by_name():
    host = built(embed_proj_type="linear")
    host.embeds.norm_input = nn.LayerNorm(768)
    with pytest.raises(ValueError, match="cannot carry over NaFlexVit: its norm_input is a Layer"):
        dartok.adapt(host)
    host = built(pos_embed="none", pos_embed_grid_size=None)
    with pytest.raises(ValueError, match="it was made without a grid, .*; create it with img_size"):
        dartok.adapt(host)
