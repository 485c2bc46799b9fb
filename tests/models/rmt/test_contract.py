"""RMT keeps the promises that timm makes of hierarchical models, alone and behind a reshaper."""

from dataclasses import replace

import pytest
import timm
import torch
from timm.models import group_parameters
from torch.testing import assert_close

from dartok.models.presets import DARMT_PRESETS, PRESETS, RMT_PRESETS

NAMES = [*RMT_PRESETS, *DARMT_PRESETS]
WIDTHS = {"t3": [64, 128, 256, 512], "m2": [80, 160, 320, 512], "l6": [112, 224, 448, 640]}
SIZE = (64, 96)
DISTINCT = ["rmt_t3", "rmt_m2", "darmt_s"]
"""Those whose layers differ."""

each = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if "l6" in n else ()) for n in NAMES]
)
distinct = pytest.mark.parametrize("name", DISTINCT)


def is_reshaped(name):
    return name in DARMT_PRESETS


def create(name, **options):
    """A registered model with random weights, of few blocks."""
    usual = {"num_classes": 5} | ({} if is_reshaped(name) else {"depths": (1, 1, 2, 1)})
    return timm.create_model(name, **usual | options)


def pictures(name, count=2):
    return torch.randn(count, 3, *((224, 224) if is_reshaped(name) else SIZE))


def map_sizes(name):
    height, width = (224, 224) if is_reshaped(name) else SIZE
    return [(height // stride, width // stride) for stride in (4, 8, 16, 32)]


@pytest.fixture(scope="module", autouse=True)
def _few_blocks():
    """The authors' models have no option for it."""
    with pytest.MonkeyPatch.context() as patch:
        for name, preset in DARMT_PRESETS.items():
            patch.setitem(PRESETS, name, replace(preset, depths=(1, 1, 2, 1)))
        yield


@pytest.fixture(scope="module")
def models():
    """Each model once, in eval mode, for tests that leave it as it is."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = create(name).eval()
        return made[name]

    return get


@each
@torch.no_grad()
def test_it_is_registered_and_announces_its_layers_and_maps(name):
    model = create(name)
    config = model.default_cfg
    assert config is model.pretrained_cfg
    assert config["architecture"] == name
    side = 448 if is_reshaped(name) else 224
    assert config["input_size"] == (3, side, side)
    assert config["fixed_input_size"] is is_reshaped(name)
    state = model.state_dict()
    assert state[f"{config['classifier']}.weight"].shape == (5, model.head_hidden_size)
    assert state[f"{config['first_conv']}.weight"].shape[1] == 3
    assert model.get_submodule(config["classifier"]) is model.get_classifier()
    widths = WIDTHS.get(name.partition("_")[2], WIDTHS["t3"])
    assert [info["num_chs"] for info in model.feature_info] == widths
    assert [info["reduction"] for info in model.feature_info] == [4, 8, 16, 32]
    assert (model.num_features, model.head_hidden_size) == (widths[-1], 1024)


@distinct
@torch.no_grad()
def test_features_and_head_make_the_logits(models, name):
    model, images = models(name), pictures(name)
    features = model.forward_features(images)
    assert features.shape == (2, model.num_features, *map_sizes(name)[-1])
    assert torch.equal(model.forward_head(features), model(images))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    assert torch.equal(model.get_classifier()(pooled), model(images))


@distinct
@torch.no_grad()
def test_the_head_can_be_left_out_and_exchanged(name):
    model, images = create(name, drop_rate=0.5).eval(), pictures(name)
    model.reset_classifier(0)
    assert model(images).shape == (2, 1024)
    model.reset_classifier(0, "")
    assert model(images).shape == (2, 1024, *map_sizes(name)[-1])
    model.reset_classifier(7, "avg")
    assert model(images).shape == (2, 7)
    assert create(name, num_classes=0, global_pool="").eval()(images).ndim == 4


@distinct
@torch.no_grad()
def test_intermediates_are_maps_at_four_strides(models, name):
    model, images = models(name), pictures(name)
    final, maps = model.forward_intermediates(images)
    assert torch.equal(final, model.forward_features(images))
    assert [tuple(found.shape[-2:]) for found in maps] == map_sizes(name)
    assert torch.equal(maps[-1], final)
    early = model.forward_intermediates(
        images, indices=[1], stop_early=True, intermediates_only=True
    )
    assert len(early) == 1
    assert torch.equal(early[0], maps[1])
    whole = model.forward_intermediates(images, indices=1, output_dict=True)
    assert torch.equal(whole["image_features"], final)
    assert torch.equal(whole["image_intermediates"][0], maps[-1])


@distinct
@torch.no_grad()
def test_a_feature_extractor_gives_the_maps_that_it_announces(models, name):
    model = create(name, features_only=True).eval()
    maps = model(pictures(name))
    info = model.feature_info
    assert info.reduction() == [4, 8, 16, 32]
    assert [found.shape[1] for found in maps] == info.channels()
    some = create(name, features_only=True, out_indices=(0, 2)).eval()
    assert some.feature_info.reduction() == [4, 16]
    assert len(some.model.layers) == 3
    assert all(found.isfinite().all() for found in some(pictures(name)))
    assert "layers.2.downsample.reduction.weight" not in some.model.state_dict()


@distinct
def test_every_parameter_that_learns_gets_a_finite_gradient(name):
    model = create(name, drop_path_rate=0.1).train()
    model(pictures(name)).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad != (".scorer.features." in parameter_name)
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name


@distinct
def test_checkpointing_changes_neither_logits_nor_gradients(name):
    model, images = create(name).eval(), pictures(name)
    results = []
    for enabled in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enabled)
        logits = model(images)
        logits.square().mean().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        results.append([logits.detach(), *gradients])
    for plain, checkpointed in zip(*results, strict=True):
        assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)


@distinct
@pytest.mark.parametrize("coarse", [False, True])
def test_every_parameter_is_in_one_group(models, name, coarse):
    model = models(name)
    groups = group_parameters(model, model.group_matcher(coarse=coarse))
    grouped = [parameter for group in groups.values() for parameter in group]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())
    assert all(part.startswith(("patch_embed.", "pre_image.", "layers.")) for part in groups[0])
    stem = {part for part in grouped if part.startswith(("patch_embed.", "pre_image."))}
    assert stem <= set(groups[0])


def test_layer_scale_is_not_decayed(models):
    names = {name for name, _ in models("rmt_m2").named_parameters()}
    kept = models("rmt_m2").no_weight_decay()
    assert kept == {name for name in names if name.rsplit(".", 1)[-1] in ("gamma_1", "gamma_2")}
    assert len(kept) == 2 * (2 + 1)
    assert models("rmt_t3").no_weight_decay() == set()


@distinct
@torch.no_grad()
def test_a_state_dict_goes_round_strictly(models, name):
    model, images = models(name), pictures(name)
    other = create(name).eval()
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(images), model(images))


@distinct
@torch.no_grad()
def test_half_precision_and_autocast_stay_near_float32(models, name):
    """The rotations reach hundreds of radians: rounded to bfloat16, they would be noise."""
    images = pictures(name)
    exact = models(name)(images)
    with torch.autocast("cpu", torch.bfloat16):
        cast = models(name)(images)
    half = create(name).eval()
    half.load_state_dict(models(name).state_dict())
    narrow = half.to(torch.bfloat16)(images.to(torch.bfloat16))
    assert narrow.dtype == torch.bfloat16
    for logits in (cast, narrow):
        assert (logits.float() - exact).norm() / exact.norm() < 0.05


@torch.no_grad()
def test_pictures_of_other_channels_are_taken():
    assert create("rmt_t3", in_chans=5).eval()(torch.randn(1, 5, *SIZE)).shape == (1, 5)


@pytest.mark.refuses
def test_tokens_are_no_maps(models):
    with pytest.raises(ValueError, match="output_fmt must be NCHW, got 'NLC'"):
        models("rmt_t3").forward_intermediates(pictures("rmt_t3"), output_fmt="NLC")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_the_usual_size_works(name):
    model = timm.create_model(name).eval()
    assert model(torch.randn(1, *model.default_cfg["input_size"])).shape == (1, 1000)


@torch.no_grad()
def test_it_can_be_exported(tmp_path):
    model = create("rmt_t3").eval()
    images = torch.randn(2, 3, 64, 96)
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},), strict=False)
    other = torch.randn(3, 3, 64, 96)
    assert_close(program.module()(other), model(other), rtol=1e-4, atol=1e-5)
