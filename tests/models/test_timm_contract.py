"""Every name that we register keeps timm's promises, at small sizes.

What is not kept, and why: scripting and symbolic tracing by torch.fx. The number of rows follows
the picture's size, and settings are plain Python; `torch.export` and `torch.jit.trace` work.
"""

import re

import pytest
import timm
import torch
from timm.models import group_parameters

import dartok
from dartok.models.mamba.video import VideoVim
from dartok.models.mamba.vim import Vim
from dartok.models.presets import DARMT_PRESETS, RMT_PRESETS, VIDEO_PRESETS, VIM_PRESETS
from dartok.models.registry import ADAPTED

HIERARCHICAL = {*RMT_PRESETS, *DARMT_PRESETS}
"""They have maps in place of tokens: `rmt/test_contract.py` holds them to what timm promises."""
NAMES = sorted({*dartok.list_models(), ADAPTED} - HIERARCHICAL)
ADAPTED_VIM = f"{ADAPTED} on vim_tiny"
ON_REGIONS = ["darvit_sm", "darvit_tiny", "darvit_tiny_v2", "darvim_tiny", ADAPTED, ADAPTED_VIM]
"""Those whose layers differ; the others differ in their number of tokens or in their width."""
ON_A_GRID = ["vim_tiny", "videomamba_tiny", "vim_tiny_stride8", "videomamba_tiny_video"]
"""The same of those that regions can be put on."""
SIZE = (64, 96)
NUM_TOKENS = 12
NUM_FRAMES = 3


def create(name, **options):
    """A registered model with random weights, small where it can be."""
    name, _, host = name.partition(" on ")
    usual = {"num_classes": 5}
    if name in {**VIM_PRESETS, **VIDEO_PRESETS}:
        usual |= {"img_size": SIZE, "depth": 4}
        usual |= {"num_frames": NUM_FRAMES} if name in VIDEO_PRESETS else {}
    else:
        usual["num_tokens"] = NUM_TOKENS
    if name == ADAPTED:
        usual |= {"host": host, "host_args": {"depth": 4}} if host else {"host": "test_vit"}
    return timm.create_model(name, **usual | options)


def on_a_grid(model):
    return type(model) in (Vim, VideoVim)


def length_of(model):
    """Tokens, the class token and its like among them."""
    patches = model.patch_embed.num_patches if on_a_grid(model) else NUM_TOKENS
    steps = NUM_FRAMES if isinstance(model, VideoVim) else 1
    return model.num_prefix_tokens + steps * patches


def map_size(model):
    """Height and width of its feature maps, for the usual pictures; of clips behind their steps."""
    steps = (NUM_FRAMES,) if isinstance(model, VideoVim) else ()
    size = model.patch_embed.grid_size if on_a_grid(model) else (SIZE[0] // 16, SIZE[1] // 16)
    return (*steps, *size)


def pictures(count=2, size=SIZE, channels=3):
    return torch.randn(count, channels, *size)


def seen_by(name, count=2, size=SIZE, channels=3):
    """Pictures, or clips for a model that reads those."""
    if name not in VIDEO_PRESETS:
        return pictures(count, size, channels)
    return torch.randn(count, NUM_FRAMES, channels, *size)


@pytest.fixture(scope="module")
def models():
    """Each model once, in eval mode, for tests that leave it as it is."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = create(name).eval()
        return made[name]

    return get


each = pytest.mark.parametrize("name", NAMES)
distinct = pytest.mark.parametrize("name", ON_REGIONS + ON_A_GRID)


def test_the_names_are_all_that_we_register():
    assert timm.list_models(module="registry") == sorted([*NAMES, *HIERARCHICAL])


@each
@torch.no_grad()
def test_a_forward_pass_is_finite_in_both_modes(models, name):
    model = models(name)
    for training in (False, True):
        logits = model.train(training)(seen_by(name))
        assert logits.shape == (2, 5)
        assert logits.isfinite().all()
    model.eval()


@pytest.mark.parametrize("name", ON_REGIONS)
@pytest.mark.parametrize("size", [(48, 48), (64, 160), (75, 50)])
@torch.no_grad()
def test_any_size_works(models, name, size):
    assert models(name)(seen_by(name, 1, size)).shape == (1, 5)


@pytest.mark.refuses
@pytest.mark.parametrize("name", ON_A_GRID)
def test_a_fixed_grid_takes_its_own_size_alone_and_no_number_of_tokens(models, name):
    with pytest.raises((AssertionError, ValueError)):  # timm's own asserts
        models(name)(seen_by(name, 1, (96, 64)))
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_tokens'"):
        create(name, num_tokens=4)


def frozen(name):
    """Features of a pretrained scorer are not trained: the one exception."""
    return ".scorer.features." in name


@distinct
def test_every_parameter_that_learns_gets_a_finite_gradient(name):
    model = create(name).train()
    model(seen_by(name)).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.requires_grad != frozen(parameter_name), parameter_name
        if parameter.requires_grad:
            assert parameter.grad is not None, parameter_name
            assert parameter.grad.isfinite().all(), parameter_name


@each
def test_the_configuration_names_layers_that_are_there(models, name):
    model = models(name)
    config = model.default_cfg
    assert config is model.pretrained_cfg
    assert config["architecture"] == name
    assert len(config["input_size"]) == 3
    assert config["pool_size"] is None
    state = model.state_dict()
    assert state[f"{config['classifier']}.weight"].shape[0] == 5
    assert state[f"{config['first_conv']}.weight"].shape[1] == config["input_size"][0]
    assert model.get_submodule(config["classifier"]) is model.get_classifier()


@distinct
@torch.no_grad()
def test_the_head_can_be_left_out_and_exchanged(name):
    model, images = create(name).eval(), seen_by(name)
    width = model.num_features
    model.reset_classifier(0)
    assert model(images).shape == (2, width)
    model.reset_classifier(0, "")
    assert model(images).shape == (2, length_of(model), width)
    model.reset_classifier(7, "avg")
    assert model(images).shape == (2, 7)
    assert create(name, num_classes=0).eval()(images).shape == (2, width)
    unpooled = create(name, num_classes=0, global_pool="").eval()
    assert unpooled(images).shape == (2, length_of(unpooled), width)


@distinct
@torch.no_grad()
def test_features_and_head_make_the_logits(models, name):
    model, images = models(name), seen_by(name)
    features = model.forward_features(images)
    assert features.shape == (2, length_of(model), model.num_features)
    assert torch.equal(model.forward_head(features), model(images))
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (2, model.head_hidden_size)
    assert torch.equal(model.get_classifier()(pooled), model(images))


@pytest.mark.parametrize("name", [*NAMES, ADAPTED_VIM])
@torch.no_grad()
def test_a_feature_extractor_gives_the_maps_that_it_announces(name):
    model = create(name, features_only=True, out_indices=(0, 2, -1)).eval()
    maps = model(seen_by(name))
    info = model.feature_info
    assert len(maps) == len(info.channels()) == 3
    for features, channels, reduction in zip(maps, info.channels(), info.reduction(), strict=True):
        assert features.shape == (2, channels, *map_size(model.model))
        assert reduction == (8 if name.endswith("stride8") else 16)
        assert features.isfinite().all()


@distinct
@torch.no_grad()
def test_intermediates_agree_with_the_forward_pass(models, name):
    model, images = models(name), seen_by(name)
    final, taken = model.forward_intermediates(images, indices=[0, -1], norm=True)
    assert torch.equal(final, model.forward_features(images))
    shape = (2, model.embed_dim, *map_size(model))
    assert [tuple(features.shape) for features in taken] == [shape] * 2
    tokens = model.forward_intermediates(
        images, indices=2, norm=True, output_fmt="NLC", intermediates_only=True
    )
    assert torch.equal(tokens[-1], final[:, model.num_prefix_tokens :])
    early = model.forward_intermediates(
        images, indices=[0], stop_early=True, intermediates_only=True, norm=True
    )
    assert torch.equal(early[0], taken[0])
    whole = model.forward_intermediates(images, indices=1, output_dict=True)
    assert torch.equal(whole["image_features"], final)
    prefixes = whole.get("image_intermediates_prefix", [])
    assert all(prefix.shape[1] == model.num_prefix_tokens for prefix in prefixes)


@distinct
@torch.no_grad()
def test_layers_that_no_feature_needs_can_be_cut_off(name):
    model, images = create(name).eval(), seen_by(name)
    expected = model.forward_intermediates(images, indices=[1], intermediates_only=True)
    model.prune_intermediate_layers([1])
    assert len(model.blocks) == 2
    found = model.forward_intermediates(images, indices=[1], intermediates_only=True)
    assert torch.equal(found[0], expected[0])


@distinct
@torch.no_grad()
def test_a_state_dict_goes_round_strictly(models, name):
    model, images = models(name), seen_by(name)
    other = create(name).eval()
    assert not torch.equal(other(images), model(images))
    other.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(other(images), model(images))


@torch.no_grad()
def test_pictures_of_other_channels_are_taken():
    assert create(ADAPTED, in_chans=1).eval()(pictures(channels=1)).shape == (2, 5)
    assert create(ADAPTED, in_chans=6).eval()(pictures(channels=6)).shape == (2, 5)
    for name in (ADAPTED_VIM, *ON_A_GRID):
        assert create(name, in_chans=1).eval()(seen_by(name, channels=1)).shape == (2, 5)


@pytest.mark.refuses
def test_a_pretrained_scorer_of_other_channels_is_refused():
    with pytest.raises(ValueError, match="num_channels must be 3 for scorer 'mobilenetv3_small'"):
        create("darvit_tiny", in_chans=1)


@distinct
def test_checkpointing_changes_neither_logits_nor_gradients(name):
    model, images = create(name).train(), seen_by(name)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    results = []
    for enabled in (False, True):
        model.load_state_dict(state)  # statistics move with each pass
        model.zero_grad()
        model.set_grad_checkpointing(enabled)
        logits = model(images)
        logits.square().mean().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        results.append([logits.detach(), *gradients])
    for plain, checkpointed in zip(*results, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)


@distinct
@pytest.mark.parametrize("coarse", [False, True])
def test_every_parameter_is_in_one_group(models, name, coarse):
    model = models(name)
    groups = group_parameters(model, model.group_matcher(coarse=coarse))
    grouped = [parameter for group in groups.values() for parameter in group]
    assert sorted(grouped) == sorted(name for name, _ in model.named_parameters())
    stem = [part for part in grouped if part.startswith("patch_embed.") or "pos_embed" in part]
    assert set(stem) <= set(groups[0])


@each
def test_what_is_not_decayed_is_there(models, name):
    model = models(name)
    names = {parameter_name for parameter_name, _ in model.named_parameters()}
    ours = {found for found in model.no_weight_decay() if found in names}
    assert {"cls_token", "pos_embed" if on_a_grid(model) else "patch_embed.pos_embed"} <= ours
    positions = [found for found in names if re.search(r"pos_embed|_token$", found)]
    assert set(positions) <= ours


@distinct
@torch.no_grad()
def test_half_precision_runs(models, name):
    model = create(name).eval().to(torch.bfloat16)
    logits = model(seen_by(name).to(torch.bfloat16))
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", [ADAPTED, ADAPTED_VIM, "vim_tiny"])
@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # checks of the input are no part of the trace
def test_a_traced_model_gives_the_same_logits(models, name):
    model, images = models(name), seen_by(name)
    traced = torch.jit.trace(model, images, check_trace=False)
    other = seen_by(name) * 2
    torch.testing.assert_close(traced(other), model(other), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")
def test_scripting_and_symbolic_tracing_are_not_supported(models):
    with pytest.raises((torch.fx.proxy.TraceError, ValueError)):
        torch.fx.symbolic_trace(models(ADAPTED))
    with pytest.raises((ValueError, RuntimeError, AssertionError)):
        torch.jit.script(models(ADAPTED))


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("stride8")])
def test_a_model_tells_its_size_and_takes_another(name):
    model = create(name, img_size=(64, 96))
    assert model.patch_embed.grid_size == (4, 6)
    model.set_input_size(img_size=(32, 48))
    assert model.patch_embed.grid_size == (2, 3)
    assert model.eval()(seen_by(name, 1, (32, 48))).shape == (1, 5)


@pytest.mark.slow
@each
@torch.no_grad()
def test_the_usual_size_works(name):
    options = {"host": "test_vit"} if name == ADAPTED else {}
    model = timm.create_model(name, **options).eval()
    _, *size = model.default_cfg["input_size"]
    if name in VIDEO_PRESETS:
        assert model(torch.randn(1, 8, 3, *size)).shape == (1, 400)
    else:
        assert model(torch.randn(1, 3, *size)).shape == (1, 1000)
