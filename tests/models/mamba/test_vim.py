"""Vision Mamba on a fixed grid: as it is written down, and as timm's models behave."""

import copy

import mamba_oracles
import numpy as np
import pytest
import torch
from decays import decayed
from deterministic import fill, spread
from refusals import refused
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.models.mamba.overlapping import OverlappingPatchEmbed
from dartok.models.mamba.vim import Vim
from dartok.models.named import build_named

VARIANTS = {
    "vim": {"class_token": "middle", "merge": "mean"},
    "videomamba": {"class_token": "first", "merge": "sum"},
    "first, mean": {"class_token": "first", "merge": "mean"},
    "middle, sum": {"class_token": "middle", "merge": "sum"},
    "last, sum": {"class_token": "last", "merge": "sum"},
}
SIZE = (48, 80)  # 15 patches


def small(**options):
    return Vim(**{"img_size": SIZE, "embed_dim": 24, "depth": 3, "num_classes": 5} | options)


def pictures(count=2, size=SIZE, dtype=torch.float32):
    return torch.randn(count, 3, *size, dtype=dtype)


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def patches_of(image):
    """Pixels of each patch in the order of reading."""
    rows, columns = (side // 16 for side in image.shape[1:])
    return np.stack(
        [
            image[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16].reshape(-1)
            for row in range(rows)
            for column in range(columns)
        ]
    )


def oracle_features(model, images, *, place, halve):
    """Every token behind the last norm, the class token first."""
    w = mamba_oracles.weights_of(model)
    found = []
    for image in images.double().numpy():
        kernel = w["patch_embed.proj.weight"]
        tokens = patches_of(image) @ kernel.reshape(len(kernel), -1).T + w["patch_embed.proj.bias"]
        sequence = np.concatenate([tokens[:place], w["cls_token"][0], tokens[place:]])
        out = mamba_oracles.encoder(w, sequence + w["pos_embed"][0], depth=3, halve=halve)
        found.append(np.concatenate([out[place : place + 1], np.delete(out, place, axis=0)]))
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_features_and_logits_are_those_of_the_oracle(variant):
    options = VARIANTS[variant]
    model = fill(small(**options))
    images = pictures(dtype=torch.float64)
    place = {"middle": 7, "first": 0, "last": 15}[options["class_token"]]
    expected = oracle_features(model, images, place=place, halve=options["merge"] == "mean")
    assert_close(model.forward_features(images), expected, rtol=0, atol=1e-10)
    assert_close(model(images), model.head(expected[:, 0]), rtol=0, atol=1e-10)
    logits = model.float()(images.float()).double()
    assert_close(logits, model.double().head(expected[:, 0]), rtol=0, atol=2e-5)


def test_vim_reads_the_class_token_in_the_middle_and_videomamba_first():
    for name, options in (("vim_tiny", "vim"), ("videomamba_tiny", "videomamba")):
        model = build_named(name, depth=1, img_size=32)
        found = {"class_token": model.class_token, "merge": model.layers[0].mixer.merge}
        assert found == VARIANTS[options]


@pytest.mark.parametrize("stride", [16, 8])
@torch.no_grad()
def test_intermediates_are_what_a_shallower_model_gives(stride):
    model = fill(small(patch_stride=stride))
    images = pictures(dtype=torch.float64)
    shallow = copy.deepcopy(model)
    shallow.layers = shallow.layers[:2]
    expected = shallow.forward_features(images)
    rows, columns = (3, 5) if stride == 16 else (5, 9)
    final, ((painted, prefix),) = model.forward_intermediates(
        images, indices=[1], norm=True, return_prefix_tokens=True
    )
    assert torch.equal(final, model.forward_features(images))
    assert torch.equal(prefix, expected[:, :1])
    assert torch.equal(painted.flatten(2).transpose(1, 2), expected[:, 1:])
    assert painted.shape == (2, 24, rows, columns)
    plain = model.forward_intermediates(
        images, indices=[1], output_fmt="NLC", intermediates_only=True, stop_early=True
    )
    assert_close(model.norm_f(plain[0]), expected[:, 1:], rtol=0, atol=1e-12)


def test_rates_of_stochastic_depth_rise_from_the_second_block_to_behind_the_last():
    model = Vim(img_size=32, embed_dim=16, depth=24, drop_path_rate=0.1)
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in model.layers]
    rates.append(model.drop_path.drop_prob)
    assert rates[0] == 0.0
    assert rates[1:] == pytest.approx(np.linspace(0, 0.1, 24))


class Nothing(nn.Module):
    """Drops every sample."""

    def forward(self, x):
        return torch.zeros_like(x)


@torch.no_grad()
def test_what_the_last_block_adds_can_be_dropped_too():
    model, images = fill(small()), pictures(dtype=torch.float64)
    seen = []
    model.layers[-1].register_forward_hook(lambda _, __, result: seen.append(result))
    model.drop_path = Nothing()
    found = model.forward_features(images)
    _, residual = seen[0]
    expected = model.norm_f(residual)
    assert torch.equal(found[:, 0], expected[:, 7])
    assert torch.equal(found[:, 1:8], expected[:, :7])


def test_checkpointing_changes_neither_logits_nor_gradients():
    model, images = spread(small(drop_path_rate=0.5)).train(), pictures(8)
    results = []
    for enabled in (False, True):
        torch.manual_seed(1)
        model.zero_grad()
        model.set_grad_checkpointing(enabled)
        logits = model(images)
        logits.square().sum().backward()
        results.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
    for plain, checkpointed in zip(*results, strict=True):
        assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("variant", ["vim", "videomamba"])
@torch.no_grad()
def test_half_precision_is_close_and_keeps_the_residual_in_float32(variant, autocast):
    """Relative 3e-2 in 6 blocks: bfloat16 rounds to 4e-3."""
    model = spread(small(depth=6, **VARIANTS[variant])).eval()
    images = pictures(4)
    expected = model(images)
    residuals = []
    for block in model.layers:
        block.register_forward_hook(lambda _, __, result: residuals.append(result[1].dtype))
    if not autocast:
        model, images = model.bfloat16(), images.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(images)
        features = model.forward_features(images)
    assert residuals == [torch.float32] * 12
    assert features.isfinite().all()
    assert features.dtype == (torch.float32 if autocast else torch.bfloat16)
    assert relative(logits.float(), expected) < 3e-2


@pytest.mark.parametrize("class_token", ["middle", "first", "last"])
@pytest.mark.parametrize("size", [(32, 32), (80, 48), (64, 96)])
@torch.no_grad()
def test_another_size_resamples_the_positions_as_timm_does(class_token, size):
    model = fill(small(class_token=class_token)).float()
    others = size[0] * size[1] // 256
    place, other = {"first": (0, 0), "middle": (7, others // 2), "last": (15, others)}[class_token]
    before = model.pos_embed.clone()
    timms = VisionTransformer(img_size=SIZE, embed_dim=24, num_heads=1, depth=1)
    one = before[:, place : place + 1]
    timms.pos_embed.copy_(torch.cat([one, before[:, :place], before[:, place + 1 :]], dim=1))
    timms.set_input_size(img_size=size)
    model.set_input_size(size)
    expected = timms.pos_embed
    assert torch.equal(model.pos_embed[:, other], expected[:, 0])
    assert torch.equal(model.pos_embed[:, :other], expected[:, 1 : other + 1])
    assert torch.equal(model.pos_embed[:, other + 1 :], expected[:, other + 1 :])
    assert model.patch_embed.img_size == size
    assert model(pictures(1, size)).shape == (1, 5)


def test_the_same_size_leaves_the_positions_alone_and_what_is_frozen_stays_so():
    model = small()
    before = model.pos_embed
    model.set_input_size(SIZE)
    assert model.pos_embed is before
    model.pos_embed.requires_grad_(False)
    model.set_input_size(img_size=32)
    assert not model.pos_embed.requires_grad
    assert model.pos_embed.shape == (1, 5, 24)


@pytest.mark.parametrize(("pool", "shape"), [("token", (2, 5)), ("avg", (2, 5)), ("", (2, 16, 5))])
@torch.no_grad()
def test_the_head_reads_the_class_token_the_mean_of_the_others_or_all(pool, shape):
    model, images = spread(small(global_pool=pool)).eval(), pictures()
    features = model.forward_features(images)
    pooled = {"token": features[:, 0], "avg": features[:, 1:].mean(1), "": features}[pool]
    assert_close(model.forward_head(features, pre_logits=True), pooled)
    assert_close(model(images), model.head(pooled))
    assert model(images).shape == shape


@torch.no_grad()
def test_weights_outside_the_mixers_start_as_vims():
    model = Vim(img_size=64, embed_dim=256, depth=1)
    for values in (model.pos_embed, model.cls_token, model.head.weight):
        assert 0.016 < values.std() < 0.024
    assert model.head.bias.count_nonzero() == 0
    assert model.patch_embed.proj.bias.count_nonzero() == 0
    assert float(model.patch_embed.proj.weight.std()) == pytest.approx(768**-0.5, rel=0.02)
    model.reset_classifier(3)
    assert 0.016 < model.head.weight.std() < 0.024
    depths = [Vim(img_size=32, embed_dim=64, depth=d).layers[0] for d in (1, 4)]
    largest = [float(block.mixer.out_proj.weight.abs().max()) for block in depths]
    assert largest[0] == pytest.approx(2 * largest[1], rel=0.02)


def test_a_new_head_is_where_the_model_is():
    model = small().double()
    model.reset_classifier(7, "avg")
    assert model.get_classifier().weight.dtype == torch.float64
    assert (model.num_classes, model.global_pool) == (7, "avg")
    assert model(pictures(dtype=torch.float64)).shape == (2, 7)


def test_no_rate_skip_position_or_class_token_is_decayed():
    left = decayed(small())
    assert not left & {"cls_token", "pos_embed"}
    assert not [name for name in left if name.endswith(("A_log", "A_b_log", ".D", ".D_b"))]
    assert "layers.0.mixer.x_proj_b.weight" in left


@torch.no_grad()
def test_overlapping_patches_are_those_cut_out_one_by_one():
    embed = OverlappingPatchEmbed((40, 57), 16, 8, 3, 4)
    images = pictures(2, (40, 57))
    columns = F.unfold(images, 16, stride=8).transpose(1, 2)
    expected = columns @ embed.proj.weight.flatten(1).t() + embed.proj.bias
    assert_close(embed(images), expected, rtol=0, atol=1e-5)
    assert (embed.grid_size, embed.num_patches) == ((4, 6), 24)
    assert OverlappingPatchEmbed(224, 16, 8, 3, 4).num_patches == 27 * 27


@pytest.mark.refuses
def test_pictures_and_options_that_do_not_fit_are_refused():
    with refused("images must be (48, 80) px, as the model's positions, got (48, 64); resize them"):
        small(patch_stride=8)(pictures(1, (48, 64)))
    with pytest.raises(AssertionError, match="doesn't match model"):  # timm's own
        small()(pictures(1, (48, 64)))
    with refused("set_input_size needs patches side by side; give img_size instead"):
        small(patch_stride=8).set_input_size(64)
    with pytest.raises(ValueError, match="global_pool must be one of token, avg, .* got 'max'"):
        small(global_pool="max")
    with refused("class_token must be one of middle, first, last, got 'end'"):
        small(class_token="end")
    unseen = (
        "directions='forward' needs class_token='last' or global_pool='avg': a token sees those "
        "before it, got class_token='middle'"
    )
    with refused(unseen):
        small(directions="forward")
    with refused(unseen):
        small(directions="forward", global_pool="avg").reset_classifier(5, "token")
    with refused("merge must be one of mean, sum, got 'max'"):
        small(merge="max")
    with refused("output_fmt must be one of NCHW, NLC, got 'NHWC'"):
        small().forward_intermediates(pictures(), output_fmt="NHWC")


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth must be >= 1, got 0"),
        ({"drop_path_rate": 1.5}, "drop_path_rate must be from 0 to below 1, got 1.5"),
        ({"patch_stride": 20}, "stride must be at most the patch"),
        ({"img_size": 8, "patch_stride": 8}, "the patch at most the image, got 8, 16 and"),
    ],
)
def test_what_cannot_be_built_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Vim(**{"img_size": 32, "embed_dim": 8, "depth": 1, **options})
