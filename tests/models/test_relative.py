"""timm's hosts with a relative position bias, on regions."""

import copy

import pytest
import timm
import torch
from deterministic import spread
from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn
from torch.testing import assert_close

import dartok
from dartok.models.relative import RelativeHost

HOSTS = {  # name to a size of pictures that makes the test quick
    "beit_base_patch16_224": (64, 96),
    "beitv2_base_patch16_224": 64,
    "vit_relpos_small_patch16_224": (64, 96),
    "vit_relpos_medium_patch16_cls_224": 64,
    "vit_relpos_small_patch16_rpn_224": (64, 80),  # norms behind the blocks
    "vit_srelpos_small_patch16_224": (64, 96),  # one network for all blocks
}
SMALL = {"img_size": (64, 96), "patch_size": 16, "embed_dim": 64, "depth": 2, "num_heads": 2}
BUILT = {
    "BEiT with one bias for all": lambda: Beit(**SMALL, use_shared_rel_pos_bias=True),
    "BEiT with both": lambda: Beit(
        **SMALL, use_shared_rel_pos_bias=True, use_rel_pos_bias=True, use_abs_pos_emb=False
    ),
    "BEiT with positions alone": lambda: Beit(**SMALL, init_values=0.1),
    "a table": lambda: VisionTransformerRelPos(**SMALL, rel_pos_type="bias", class_token=True),
    "a network of Swin": lambda: VisionTransformerRelPos(**SMALL, rel_pos_type="mlp-swin"),
}


def sharp(host: nn.Module) -> nn.Module:
    """Spread, and with biases and queries that matter: tables are zero at birth."""
    with torch.no_grad():
        for name, value in spread(host).named_parameters():
            if "bias_table" in name or "rel_pos.mlp" in name:
                value.normal_()
            if "qkv.weight" in name:
                value.mul_(6)
    return host


def host_of(name: str) -> nn.Module:
    if name in BUILT:
        return sharp(BUILT[name]())
    return sharp(timm.create_model(name, depth=2, img_size=HOSTS[name]))


def relative_difference(actual, expected):
    return float(((actual - expected).norm() / expected.norm()).detach())


@pytest.fixture(params=["BEiT with both", "a table"])
def host(request):
    return host_of(request.param)


@pytest.fixture
def model(host):
    return dartok.adapt(host, num_tokens=20, strength=1.0).eval()


@pytest.mark.parametrize("name", [*HOSTS, *BUILT])
@torch.no_grad()
def test_an_adapted_host_starts_as_the_same_function(name):
    host = host_of(name)
    model = dartok.adapt(host)
    assert isinstance(model, RelativeHost)
    assert isinstance(model, type(host))
    images = torch.randn(2, 3, *host.patch_embed.img_size)
    features = model.forward_features(images)
    assert relative_difference(features, host.forward_features(images)) < 1e-5
    assert relative_difference(model(images), host(images)) < 1e-5


@torch.no_grad()
def test_the_bias_matters_in_these_tests(host):
    model = dartok.adapt(host)
    images = torch.randn(1, 3, 64, 96)
    expected = model.forward_features(images)
    model.shared_bias = None
    for block in model.blocks:
        block.attn.bias = None
    assert relative_difference(model.forward_features(images), expected) > 1e-2


@pytest.mark.parametrize("size", [(64, 300), (16, 16), (333, 47)])
@pytest.mark.parametrize("num_tokens", [1, 7, 196])
@torch.no_grad()
def test_any_image_any_budget(model, size, num_tokens):
    dartok.set_num_tokens(model, num_tokens)
    images = torch.randn(2, 3, *size)
    assert model(images).isfinite().all()
    assert model.forward_features(images).shape == (2, 1 + num_tokens, 64)


@torch.no_grad()
def test_an_image_alone_has_the_result_it_has_in_any_batch(model):
    images = torch.randn(3, 3, 90, 130)
    images[1:] *= 5
    assert relative_difference(model(images)[:1], model(images[:1])) < 1e-4  # sharp: rounding grows


def test_the_scorer_learns_through_the_bias_too(model):
    images = torch.randn(1, 3, 64, 96)
    tokens = model.patch_embed(images).detach()  # only the bias remains
    model.patch_embed.embed = lambda *_: tokens
    model.train()(images).square().sum().backward()
    assert model.patch_embed.scorer.gain.grad.abs() > 0


def test_tables_learn_and_do_not_decay(model):
    model.train()(torch.randn(2, 3, 64, 64)).square().sum().backward()
    tables = [name for name, _ in model.named_parameters() if "bias_table" in name]
    assert tables
    for name in tables:
        assert model.get_parameter(name).grad.abs().sum() > 0
    if isinstance(model, Beit):
        assert {*tables, "patch_embed.pos_embed"} <= model.no_weight_decay()


@pytest.mark.parametrize("options", [{}, {"norm": True}, {"return_prefix_tokens": True}])
@torch.no_grad()
def test_at_the_start_intermediates_are_the_hosts(host, options):
    model = dartok.adapt(host)
    images = torch.randn(1, 3, 64, 96)
    for extra in (
        {},
        {"output_fmt": "NLC"},
        {"intermediates_only": True},
        {"indices": [0], "stop_early": True},
    ):
        expected = host.forward_intermediates(images, **options, **extra)
        actual = model.forward_intermediates(images, **options, **extra)
        assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_gradient_checkpointing_gives_the_same_gradients(model):
    images = torch.randn(1, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(images).sum().backward()
        gradients.append(model.patch_embed.scorer.gain.grad.clone())
    assert_close(gradients[0], gradients[1])


def test_the_host_is_left_as_it_was_and_shares_its_blocks(host):
    images = torch.randn(1, 3, 64, 96)
    state, expected = copy.deepcopy(host.state_dict()), host(images)
    model = dartok.adapt(host, strength=1.0)
    model.set_input_size((128, 128))
    assert model(images).shape == expected.shape
    assert model.blocks[0].attn.qkv.weight is host.blocks[0].attn.qkv.weight
    assert state.keys() == host.state_dict().keys()
    assert all(torch.equal(state[key], value) for key, value in host.state_dict().items())
    assert torch.equal(host(images), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@torch.no_grad()
def test_models_of_any_floating_dtype_run(model, dtype):
    images = torch.randn(2, 3, 64, 90)
    expected = model.forward_features(images)
    actual = model.to(dtype).forward_features(images.to(dtype))
    assert actual.dtype == dtype
    assert relative_difference(actual.float(), expected) < (1e-2 if dtype.itemsize == 8 else 0.2)


@torch.no_grad()
def test_the_whole_model_compiles_without_a_graph_break(model):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    images = torch.randn(2, 3, 64, 90)
    assert_close(compiled(images), model(images))


@pytest.mark.refuses
def test_an_unknown_bias_is_refused_by_name():
    host = host_of("a table")
    host.blocks[1].attn.rel_pos = nn.Identity()
    with pytest.raises(ValueError, match="its relative position bias is a Identity, whose values"):
        dartok.adapt(host)
