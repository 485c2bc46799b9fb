"""`adapt`: the same function at the start, or a refusal that names what stands in the way."""

import copy
import pickle

import pytest
import timm
import torch
from deterministic import spread
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.testing import assert_close

import dartok
from dartok.models.vit import RegionHost

HOSTS = [
    "vit_tiny_patch16_224",
    "vit_small_patch8_224",
    "vit_small_patch32_224",
    "vit_tiny_patch16_384",
    "deit_tiny_distilled_patch16_224",
    "deit3_small_patch16_224",  # LayerScale, no_embed_class
    "vit_small_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2",  # registers
    "vit_base_patch32_clip_224",  # a norm before the blocks, no bias
    "vit_base_patch16_clip_quickgelu_224",
    "vit_base_patch16_siglip_224",  # attention pooling, no class token
    "vit_base_patch16_siglip_gap_224",
    "vit_wee_patch16_reg1_gap_256",
    "vit_pwee_patch16_reg1_gap_256",  # parallel blocks
    "vit_dpwee_patch16_reg1_gap_256",  # differential attention
    "vit_medium_patch16_gap_240",  # average pooling
    "vit_mediumd_patch16_reg4_gap_256",
    "vit_small_patch16_18x2_224",
    "flexivit_small",
    "vit_intern300m_patch14_448",
    "aimv2_large_patch14_224",  # RMS norm, gated MLP
    "test_vit",
    "test_vit2",
    "test_vit3",
]

REFUSED = {
    "cait_xxs24_224": "cannot carry over Cait: it knows models of timm's VisionTransformer, ",
    "swin_tiny_patch4_window7_224": "carry over SwinTransformer: its attention runs in windows",
    "pvt_v2_b0": "carry over PyramidVisionTransformerV2: its stages merge neighbours",
    "xcit_nano_12_p16_224": "carry over Xcit: its blocks convolve over the grid of patches",
    "vit_tiny_r_s16_p8_224": "its patch_embed is a HybridEmbed",
    "vit_so400m_patch14_siglip_384": r"call host.set_input_size\(\(378, 378\)\) first",
}


SMALLER_PX = {  # as pictures of their own size would take long
    "vit_tiny_patch16_384": 192,
    "vit_small_patch8_224": 96,
    "vit_small_patch14_dinov2": 154,
    "vit_small_patch14_reg4_dinov2": (112, 182),
    "vit_intern300m_patch14_448": 126,
    "aimv2_large_patch14_224": 112,
    "flexivit_small": (160, 96),
}


def small(name: str, **options: object) -> nn.Module:
    if name in SMALLER_PX:
        options["img_size"] = SMALLER_PX[name]
    return timm.create_model(name, **options)


def relative_difference(actual, expected):
    return float((actual - expected).norm() / expected.norm())


STARTS = [(name, "flow") for name in HOSTS] + [(name, "grid") for name in HOSTS[:4]]


@pytest.mark.parametrize(("name", "partition"), STARTS)
@torch.no_grad()
def test_an_adapted_host_starts_as_the_same_function(name, partition):
    host = spread(small(name, depth=2))
    model = dartok.adapt(host, partition=partition)
    images = torch.randn(2, 3, *host.patch_embed.img_size)
    assert relative_difference(model(images), host(images)) < 1e-5
    features = model.forward_features(images)
    assert relative_difference(features, host.forward_features(images)) < 1e-5


@pytest.mark.refuses
@pytest.mark.parametrize("name", REFUSED)
def test_a_host_that_cannot_be_carried_over_is_refused_by_name(name):
    shallow = {} if name.startswith(("swin", "pvt")) else {"depth": 1}
    host = small(name, **shallow)
    before = copy.deepcopy(host.state_dict())
    with pytest.raises(ValueError, match=REFUSED[name]):
        dartok.adapt(host)
    assert all(torch.equal(before[key], value) for key, value in host.state_dict().items())


@pytest.mark.refuses
def test_a_host_whose_function_changes_is_refused_by_the_check():
    class Shifted(nn.Module):
        """A block that computes another function each time it is called."""

        def __init__(self, block):
            super().__init__()
            self.block = block
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.block(x) + 0.1 * self.calls * x.roll(1, -1)

    host = small("test_vit")
    host.blocks[0] = Shifted(host.blocks[0])
    with pytest.raises(ValueError, match="on the fixed grid its features differ by"):
        dartok.adapt(host)


@pytest.mark.refuses
def test_adapting_twice_and_bad_options_are_refused():
    host = small("test_vit")
    for options, message in [
        ({"num_tokens": 0}, "num_tokens must be >= 1, got 0"),
        ({"num_tokens": 4, "num_rows": 5}, "num_rows must be from 1 to num_tokens = 4, got 5"),
        ({"strength": 1.5}, r"strength must be from 0 .* to 1 .*, got 1.5"),
        ({"oversample": 0}, "oversample must be >= 1, got 0"),
        ({"antialias": True, "sampling": "corner"}, "antialias needs sampling='centred', got"),
        ({"max_region": 0.0}, "max_region must be above 0 and at most 1, .* got 0.0"),
        ({"min_region": 0.3, "max_region": 0.2}, "must be at most max_region = 0.2, got 0.3"),
        ({"partition": "flows"}, "partition must be one of flow, grid, authors, got 'flows'"),
        ({"sampling": "centre"}, "sampling must be one of centred, corner, got 'centre'"),
        ({"scorer": "convv"}, "unknown scorer 'convv'; did you mean conv"),
    ]:
        with pytest.raises(ValueError, match=message):
            dartok.adapt(host, **options)
    with pytest.raises(ValueError, match="adapted already"):
        dartok.adapt(dartok.adapt(host))


def test_a_host_is_carried_over_with_means_and_with_bounds_that_its_own_grid_could_not_keep():
    host = small("test_vit")  # of 100 patches
    model = dartok.adapt(host, num_tokens=9, antialias=True, min_region=0.2, max_region=0.4)
    assert model.patch_embed.bounds == (0.2, 0.4)
    assert model.patch_embed.antialias
    dartok.set_strength(model, 1.0)
    regions = dartok.regions(model, torch.randn(2, 3, 120, 120))
    assert regions.strip_edges.diff(dim=1).max() < 0.4 + 1e-9


@torch.no_grad()
def test_the_host_is_left_as_it_was_and_shares_its_blocks():
    host = spread(small("vit_tiny_patch16_224", depth=2)).train()
    images = torch.randn(1, 3, 224, 224)
    state, expected = copy.deepcopy(host.state_dict()), host.eval()(images)
    model = dartok.adapt(host.train(), strength=1.0)
    assert host.training
    assert model.training
    assert model.blocks[0].attn.qkv.weight is host.blocks[0].attn.qkv.weight
    assert all(torch.equal(state[key], value) for key, value in host.state_dict().items())
    assert type(host) is VisionTransformer
    assert torch.equal(host.eval()(images), expected)


def test_the_check_draws_nothing_from_the_callers_seed():
    host = small("test_vit")
    torch.manual_seed(3)
    dartok.adapt(host, scorer="edge")
    drawn = torch.randn(2)
    torch.manual_seed(3)
    assert torch.equal(torch.randn(2), drawn)


@pytest.mark.parametrize("size", [(64, 300), (16, 16), (333, 47)])
@pytest.mark.parametrize("num_tokens", [1, 7, 196])
@torch.no_grad()
def test_any_image_any_budget(size, num_tokens):
    model = dartok.adapt(small("test_vit"), strength=1.0).eval()
    dartok.set_num_tokens(model, num_tokens)
    images = torch.randn(2, 3, *size)
    assert model(images).isfinite().all()
    prefix = model.num_prefix_tokens
    assert model.forward_features(images).shape[1] == prefix + num_tokens
    assert dartok.regions(model, images).num_tokens == num_tokens


@torch.no_grad()
def test_strength_moves_regions_from_the_grid_to_the_picture():
    model = dartok.adapt(small("vit_tiny_patch16_224", depth=1), scorer="edge").eval()
    image = torch.zeros(1, 3, 224, 224)
    image[:, :, 30:80, 30:80] = torch.rand(3, 50, 50)
    spreads = []
    for strength in (0.0, 0.3, 0.6, 1.0):
        dartok.set_strength(model, strength)
        spreads.append(float(dartok.regions(model, image).areas().std()))
    assert spreads[0] < 1e-12
    assert spreads == sorted(spreads)
    assert spreads[3] > 2 * spreads[1]


def test_the_strength_and_the_budget_can_be_saved_copied_and_pickled():
    model = dartok.adapt(small("test_vit"), num_tokens=30, strength=0.7).eval()
    images = torch.randn(1, 3, 100, 60)
    again = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    assert torch.equal(again(images), model(images))
    other = dartok.adapt(small("test_vit"), num_tokens=30).eval()
    other.load_state_dict(model.state_dict())
    assert_close(other(images), model(images))


def test_the_scorer_and_the_positions_learn_through_the_regions():
    model = dartok.adapt(spread(small("test_vit")), num_tokens=20, strength=1.0).train()
    model(torch.randn(2, 3, 96, 128)).sum().backward()
    assert model.patch_embed.scorer.gain.grad.abs() > 0
    assert model.patch_embed.pos_embed.grad.abs().sum() > 0
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("patch_size", [(16, 8), (8, 16)])
@torch.no_grad()
def test_patches_need_not_be_square(patch_size):
    host = spread(
        VisionTransformer(img_size=(64, 96), patch_size=patch_size, embed_dim=48, depth=1)
    )
    images = torch.randn(1, 3, 64, 96)
    assert relative_difference(dartok.adapt(host)(images), host(images)) < 1e-5


def test_a_frozen_host_stays_frozen():
    model = dartok.adapt(small("test_vit").requires_grad_(False), scorer="edge")
    assert not [name for name, value in model.named_parameters() if value.requires_grad]


def test_adapting_under_autocast_is_not_mistaken_for_another_function():
    with torch.autocast("cpu", torch.bfloat16):
        dartok.adapt(small("test_vit"))


def test_adapted_models_are_of_the_hosts_class():
    model = dartok.adapt(small("deit_tiny_distilled_patch16_224", depth=1))
    assert isinstance(model, RegionHost)
    assert isinstance(model, timm.models.deit.VisionTransformerDistilled)
    model.set_distilled_training(True)
    first, second = model.train()(torch.randn(1, 3, 64, 64))
    assert first.shape == second.shape == (1, 1000)


@torch.no_grad()
def test_a_host_of_518_px_is_carried_over_at_its_own_size():
    host = spread(timm.create_model("vit_small_patch14_dinov2", depth=1))
    model = dartok.adapt(host)
    assert model.patch_embed.img_size == (518, 518)
    smooth = nn.functional.interpolate(torch.randn(1, 3, 37, 37), (518, 518), mode="bicubic")
    assert relative_difference(model(smooth), host(smooth)) < 1e-5
