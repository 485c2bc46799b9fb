"""Vision Mamba on regions: the same function at the start, any image, a count for each."""

import copy

import pytest
import torch
from decays import decayed
from deterministic import spread
from refusals import refused
from torch.testing import assert_close

import dartok
from dartok.models.adaptation import adapt
from dartok.models.mamba.region_vim import RegionVim
from dartok.models.mamba.vim import Vim
from dartok.models.named import build_named

VARIANTS = [
    {"class_token": place, "merge": merge, "global_pool": pool}
    for place, merge, pool in (
        ("middle", "mean", "token"),
        ("first", "sum", "token"),
        ("middle", "sum", "avg"),
        ("first", "mean", "avg"),
        ("last", "sum", "token"),
    )
] + [{"directions": "forward", "class_token": "last"}]
"""Vim, VideoMamba, each place with the other merge, and reading forwards alone."""


def host(**options):
    sizes = {"img_size": (64, 96), "embed_dim": 24, "depth": 3, "num_classes": 5}
    return spread(Vim(**sizes | options))


def pictures():
    """From nearly flat to busy, so that counts differ."""
    images = torch.randn(5, 3, 70, 110)
    images[0] *= 0.01
    images[1, :, :60] *= 0.01
    images[2, :, :, :90] *= 0.01
    images[3, :, 20:50, 30:60] *= 8
    return images


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(64, 96), (48, 48), (16, 80)])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_an_adapted_host_starts_as_the_same_function(variant, size, dtype):
    plain = host(img_size=size, **variant).to(dtype)
    state = copy.deepcopy(plain.state_dict())
    model = dartok.adapt(plain)
    images = torch.randn(2, 3, *size, dtype=dtype)
    assert type(model) is RegionVim
    assert relative(model(images), plain(images)) < 1e-5
    assert relative(model.forward_features(images), plain.forward_features(images)) < 1e-5
    maps = [
        m.forward_intermediates(images, indices=[1], intermediates_only=True, norm=True)[0]
        for m in (model, plain)
    ]
    assert relative(*maps) < 1e-5
    assert type(plain) is Vim
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())


@torch.no_grad()
def test_a_strip_of_regions_is_read_in_order_with_the_class_token_at_its_place():
    for place, index in (("middle", 3), ("first", 0), ("last", 7)):
        model = adapt(host(class_token=place), num_tokens=7, scorer="edge", strength=1.0)
        images, seen = pictures(), []
        model.layers[0].register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        model(images)
        tokens = model.patch_embed(images)
        assert_close(seen[0][:, index : index + 1], model.cls_token.expand(5, -1, -1))
        assert_close(torch.cat([seen[0][:, :index], seen[0][:, index + 1 :]], dim=1), tokens)
    regions = dartok.regions(model, images)
    assert (regions.strip_edges.diff(dim=-1) > 0).all()


@pytest.mark.parametrize("size", [(64, 300), (16, 16), (133, 47)])
@pytest.mark.parametrize("num_tokens", [1, 2, 7, 40])
@torch.no_grad()
def test_any_image_any_budget(size, num_tokens):
    model = adapt(host(), num_tokens=num_tokens, scorer="edge", strength=1.0)
    images = torch.randn(2, 3, *size)
    features = model.forward_features(images)
    assert features.shape == (2, 1 + num_tokens, 24)
    assert features.isfinite().all()
    assert_close(model(images[1:]), model(images)[1:])


def auto(variant, **options):
    """A model with a count for each image, in float64."""
    model = adapt(host(**variant).double(), num_tokens=24, strength=1.0, **options).eval()
    dartok.set_num_tokens(model, "auto", least=5, most=48, step=1)
    dartok.calibrate_num_tokens(model, pictures().double())
    return model


def logits_and_gradients(model, images, weights):
    """Of a weighted sum of the logits: with respect to the images and every parameter."""
    model.zero_grad()
    images = images.clone().requires_grad_()
    logits = model(images)
    (logits * weights).sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    return [logits.detach(), images.grad, *gradients]


def each_alone(model, images, weights):
    """The same of each image alone, with as many tokens as it has in the batch."""
    budget, results = model.patch_embed.budget, []
    for image, count in enumerate(dartok.regions(model, images).counts.tolist()):
        dartok.set_num_tokens(model, count)
        part = slice(image, image + 1)
        results.append(logits_and_gradients(model, images[part], weights[part]))
        model.patch_embed.set_budget(budget)
    logits, of_images, *gradients = zip(*results, strict=True)
    return [torch.cat(logits), torch.cat(of_images), *(sum(parts) for parts in gradients)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_padded_batches_groups_and_single_images_agree_in_logits_and_gradients(variant):
    model, images = auto(variant), pictures().double()
    weights = torch.randn(5, 5, dtype=torch.float64)
    assert len(set(dartok.regions(model, images).counts.tolist())) >= 3
    alone = each_alone(model, images, weights)
    grouped = logits_and_gradients(model, images, weights)
    model.train()
    model.patch_embed.eval()  # training it would move what a token is worth
    padded = logits_and_gradients(model, images, weights)
    assert any(float(gradient.norm()) > 0 for gradient in alone[2:])
    for expected, *found in zip(alone, grouped, padded, strict=True):
        for values in found:
            assert float((values - expected).norm()) <= 1e-5 * float(expected.norm())


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_garbage_in_the_padding_is_not_noticed(variant):
    model, images = auto(variant), pictures().double()
    expected = model(images)
    embed = model.patch_embed.embed

    def with_garbage(images, regions):
        tokens = embed(images, regions)
        return torch.where(regions.is_region().unsqueeze(-1), tokens, 1e6)

    model.patch_embed.embed = with_garbage
    model.train()
    model.patch_embed.eval()
    assert_close(model(images), expected, rtol=1e-5, atol=1e-8)


@torch.no_grad()
def test_a_compiler_is_given_the_padded_batch(monkeypatch):
    model, images = auto(VARIANTS[2]), pictures().double()
    expected = model(images)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    monkeypatch.setattr("dartok.models.mamba.region_vim.in_groups", None)
    assert_close(model(images), expected)


@torch.no_grad()
def test_features_and_intermediates_stop_at_each_images_end():
    model, images = auto(VARIANTS[0]), pictures().double()
    features = model.forward_features(images)
    ((maps, prefix),) = model.forward_intermediates(
        images, indices=[1], intermediates_only=True, return_prefix_tokens=True
    )
    for image, count in enumerate(dartok.regions(model, images).counts.tolist()):
        one = images[image, None]
        fixed = copy.deepcopy(model)
        dartok.set_num_tokens(fixed, count)
        assert relative(features[image, : 1 + count], fixed.forward_features(one)[0]) < 1e-10
        ((alone, class_token),) = fixed.forward_intermediates(
            one, indices=[1], intermediates_only=True, return_prefix_tokens=True
        )
        assert relative(maps[image], alone[0]) < 1e-10
        assert relative(prefix[image], class_token[0]) < 1e-10


def test_training_learns_what_a_token_is_worth_and_reaches_every_parameter():
    model = auto(VARIANTS[0]).train()
    model.patch_embed.budget.mass_per_token.fill_(0.001)  # far too little: all ask for the most
    model(pictures().double()).square().sum().backward()
    assert float(model.patch_embed.budget.mass_per_token) > 0.001
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero() > 0, name


@torch.no_grad()
def test_a_priority_steers_a_forward_and_weight_0_does_not():
    model, images = adapt(host(), num_tokens=24, scorer="edge", strength=1.0), pictures()
    boxes = [torch.tensor([[0.0, 0.0, 0.3, 0.3]])] * 5
    plain, steered = model(images), model(images, priority=boxes)
    assert not torch.allclose(steered, plain)
    assert torch.equal(model(images, priority=boxes, priority_weight=0.0), plain)
    with dartok.steer(model, boxes):
        assert torch.equal(model(images), steered)
    budgeted = auto(VARIANTS[0], scorer="edge")
    boxes = [box.double() for box in boxes]
    with dartok.steer(budgeted, boxes):
        expected = budgeted(images.double())
    assert_close(budgeted(images.double(), priority=boxes), expected)


@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_half_precision_is_close(autocast):
    """Relative 3e-2: bfloat16 rounds to 4e-3; the geometry stays in float32."""
    model = adapt(host(depth=6), num_tokens=24, scorer="edge", strength=1.0).eval()
    images = pictures()
    expected = model(images)
    if not autocast:
        model, images = model.bfloat16(), images.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(images)
    assert logits.dtype == torch.bfloat16
    assert relative(logits.float(), expected) < 3e-2


def test_checkpointing_holds_with_lengths_too():
    model, images = auto(VARIANTS[0]).train(), pictures().double()
    model.patch_embed.eval()
    gradients = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        gradients.append(logits_and_gradients(model, images, 1.0))
    assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize(
    "build",
    [
        lambda: host(),
        lambda: adapt(host(), num_tokens=9),
        lambda: build_named("darvim_tiny"),
        lambda: build_named("vim_tiny"),
        lambda: build_named("videomamba_tiny"),
    ],
)
def test_no_rate_skip_position_or_class_token_is_decayed(build):
    model = build()
    left = decayed(model)
    assert f"layers.{len(model.layers) - 1}.mixer.in_proj.weight" in left
    kept = ("A_log", "A_b_log", ".D", ".D_b", "cls_token", "pos_embed")
    spared = {name for name, _ in model.named_parameters() if name.endswith(kept)}
    assert len(spared) == 4 * len(model.layers) + 2
    assert not left & spared


def test_the_class_token_carries_its_position_and_what_is_frozen_stays_so():
    for place, index in (("middle", 12), ("first", 0)):
        plain = host(class_token=place).requires_grad_(False)
        model = adapt(plain, scorer="edge")
        expected = plain.cls_token + plain.pos_embed[:, index : index + 1]
        assert_close(model.cls_token, expected, rtol=0, atol=0)
        assert model.pos_embed is None
        assert not [name for name, value in model.named_parameters() if value.requires_grad]
    assert model.layers[0].mixer.A_log is plain.layers[0].mixer.A_log


def test_the_size_is_noted_and_any_other_still_works():
    model = adapt(host())
    model.set_input_size(img_size=(32, 48))
    assert model.patch_embed.grid_size == (2, 3)
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, 5)


@pytest.mark.refuses
def test_overlapping_patches_are_refused_by_name():
    with refused(
        "adapt cannot carry over Vim: its patches of 16 px overlap at a stride of 8 px, and "
        "regions lie side by side; use a host of stride 16 px"
    ):
        adapt(host(patch_stride=8))


@pytest.mark.refuses
def test_a_border_that_the_host_ignores_is_refused():
    with pytest.raises(ValueError, match=r"ignores the border .* host.set_input_size\(\(64, 80\)"):
        adapt(host(img_size=(70, 90)))


@pytest.mark.refuses
def test_what_would_take_padding_for_tokens_is_refused():
    model, images = auto(VARIANTS[2]), pictures().double()
    with pytest.raises(ValueError, match="forward_head cannot tell tokens from padding .*'avg'"):
        model.forward_head(model.forward_features(images))
    model.reset_classifier(0, "")
    assert model(images).shape == (5, 1 + 48, 24)
