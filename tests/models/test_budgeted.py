"""A number of tokens for each image: dense groups, masked batches and single images agree."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from deterministic import spread
from torch.testing import assert_close

import dartok
from dartok.models.budgeted import same_count_groups, unpadded

HOSTS = {
    "vit_tiny_patch16_224": 96,  # class token
    "deit_tiny_distilled_patch16_224": 96,  # two heads
    "vit_wee_patch16_reg1_gap_256": 96,  # registers, average pooling
    "vit_base_patch16_siglip_224": 96,  # attention pooling without a prefix
    "eva02_tiny_patch14_224": 98,  # rotary
    "vit_pe_core_tiny_patch16_384": 96,  # attention pooling with the prefix
    "vit_small_patch16_rope_mixed_224": 96,
}


def pictures():
    """From flat to busy, so that counts differ."""
    images = torch.randn(5, 3, 70, 110)
    images[0] = 0.1
    images[1, :, :60] = 0
    images[2, :, :, :90] = 0
    images[3, :, 20:50, 30:60] *= 8
    return images


def auto(name, **options):
    host = spread(timm.create_model(name, depth=2, img_size=HOSTS[name]))
    model = dartok.adapt(host, num_tokens=40, scorer="edge", strength=1.0, **options).eval()
    dartok.set_num_tokens(model, "auto", least=8, most=80)
    dartok.calibrate_num_tokens(model, pictures())
    return model


@pytest.mark.parametrize("name", HOSTS)
@torch.no_grad()
def test_groups_masks_and_single_images_agree(name):
    model, images = auto(name), pictures()
    regions = dartok.regions(model, images)
    assert len(set(regions.counts.tolist())) >= 3
    grouped = model(images)
    no_mask = torch.zeros(1, 1, 1, model.num_prefix_tokens + regions.num_tokens)
    masked = model(images, attn_mask=no_mask)
    budget = model.patch_embed.budget
    for image, count in enumerate(regions.counts.tolist()):
        dartok.set_num_tokens(model, count)
        alone = model(images[image, None])
        model.patch_embed.set_budget(budget)
        assert relative(grouped[image], alone[0]) < 1e-5
        assert relative(masked[image], alone[0]) < 1e-5


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@torch.no_grad()
def test_garbage_in_the_padding_would_be_noticed():
    """The padded rows hold large values, and nothing that is pooled or attended sees them."""
    model, images = auto("vit_wee_patch16_reg1_gap_256"), pictures()
    mask = torch.zeros(1, 1, 1, 1 + 80)
    expected = model(images, attn_mask=mask)
    embed = model.patch_embed.embed

    def with_garbage(images, regions):
        tokens = embed(images, regions)
        return torch.where(regions.is_region().unsqueeze(-1), tokens, 1e4)

    model.patch_embed.embed = with_garbage
    assert_close(model(images, attn_mask=mask), expected)


@pytest.mark.parametrize("name", ["vit_wee_patch16_reg1_gap_256", "eva02_tiny_patch14_224"])
def test_training_is_masked_and_reaches_the_scorer(name):
    model, images = auto(name), pictures()
    model.patch_embed.scorer = dartok.scorers.create_scorer("conv")
    model.train()
    model.patch_embed.budget.mass_per_token.fill_(0.001)  # far too little: all ask for the most
    model(images).sum().backward()
    assert float(model.patch_embed.budget.mass_per_token) > 0.001
    assert model.patch_embed.scorer.gain.grad.abs().sum() > 0
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_threads_do_not_disturb_each_other():
    model, images = auto("vit_tiny_patch16_224"), pictures()
    boxes = [torch.tensor([[0.0, 0.0, 0.3, 0.3]])] * 5
    plain, steered = model(images), model(images, priority=boxes)

    def call(number):
        return model(images, priority=boxes if number % 2 else None)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(call, range(12)))
    for number, result in enumerate(results):
        assert_close(result, steered if number % 2 else plain)


def test_gradient_checkpointing_also_holds_with_a_mask():
    model, images = auto("vit_wee_patch16_reg1_gap_256"), pictures()
    model.train()
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model.patch_embed.budget.mass_per_token.fill_(0.03)
        model(images).sum().backward()
        gradients.append(model.patch_embed.proj.weight.grad.clone())
    assert_close(gradients[0], gradients[1])


def test_weights_load_with_and_without_a_budget():
    model = auto("vit_tiny_patch16_224")
    fixed = dartok.adapt(
        timm.create_model("vit_tiny_patch16_224", depth=2, img_size=96), scorer="edge"
    )
    fixed.load_state_dict(model.state_dict())
    assert fixed.patch_embed.budget is None
    without = {k: v for k, v in model.state_dict().items() if "budget" not in k}
    before = float(model.patch_embed.budget.mass_per_token)
    model.load_state_dict(without)
    assert float(model.patch_embed.budget.mass_per_token) == before


@torch.no_grad()
def test_features_and_intermediates_mask_the_padding_too():
    model, images = auto("vit_wee_patch16_reg1_gap_256"), pictures()
    regions = dartok.regions(model, images)
    maps = model.forward_intermediates(images, indices=[1], intermediates_only=True)[0]
    features = model.forward_features(images)
    budget = model.patch_embed.budget
    for image, count in enumerate(regions.counts.tolist()):
        dartok.set_num_tokens(model, count)
        one = images[image, None]
        alone = model.forward_intermediates(one, indices=[1], intermediates_only=True)[0]
        assert relative(maps[image], alone[0]) < 1e-5
        assert relative(features[image, : 1 + count], model.forward_features(one)[0]) < 1e-5
        model.patch_embed.set_budget(budget)


def test_groups_hold_each_image_once_and_the_regions_it_has():
    model, images = auto("vit_tiny_patch16_224"), pictures()
    regions = dartok.regions(model, images)
    found = {}
    for index, part in same_count_groups(regions):
        for place, image in enumerate(index.tolist()):
            found[image] = part.select(slice(place, place + 1))
    assert sorted(found) == list(range(5))
    for image, part in found.items():
        assert part.num_tokens == regions.counts[image]
        assert part.strip_edges[0, -1] == part.num_rows
        assert torch.equal(part.strip_edges, unpadded(regions, image).strip_edges)
        assert_close(part.areas().sum(), torch.tensor(1.0, dtype=torch.float64))


@torch.no_grad()
def test_the_mean_on_other_pictures_is_the_wanted_one():
    tokenizer = dartok.RegionTokenizer(embed_dim=8, num_tokens=64, scorer="edge").eval()
    dartok.set_num_tokens(tokenizer, "auto")
    sparse = (torch.rand(1200, 1, 8, 8) < torch.rand(1200, 1, 1, 1)).float()
    images = torch.rand(1200, 3, 64, 64) * sparse.repeat_interleave(8, 2).repeat_interleave(8, 3)
    reached = dartok.calibrate_num_tokens(tokenizer, images[:600].split(100))
    assert abs(reached / 64 - 1) < 0.01
    counts = torch.cat([dartok.regions(tokenizer, part).counts for part in images[600:].split(100)])
    assert counts.unique().numel() > 3
    assert abs(float(counts.double().mean()) / 64 - 1) < 0.02


def test_another_mean_keeps_what_was_calibrated():
    tokenizer = dartok.RegionTokenizer(embed_dim=8, num_tokens=64, scorer="edge").eval()
    dartok.set_num_tokens(tokenizer, "auto", step=1)
    dartok.calibrate_num_tokens(tokenizer, pictures())
    before = float(tokenizer.budget.mass_per_token)
    dartok.set_num_tokens(tokenizer, "auto", mean=32, step=1)
    assert tokenizer.budget.mean == 32
    assert float(tokenizer.budget.mass_per_token) == pytest.approx(2 * before)


@torch.no_grad()
def test_a_priority_steers_a_forward_and_weight_0_does_not():
    model = dartok.adapt(
        spread(timm.create_model("test_vit")), num_tokens=40, scorer="edge", strength=1.0
    ).eval()
    images = pictures()
    boxes = [torch.tensor([[0.0, 0.0, 0.3, 0.3]])] * 5
    plain = model(images)
    assert torch.equal(model(images, priority=boxes, priority_weight=0.0), plain)
    steered = model(images, priority=boxes, priority_weight=3.0)
    assert not torch.allclose(steered, plain)
    with dartok.steer(model, boxes, weight=3.0):
        assert torch.equal(model(images), steered)
        centres = dartok.regions(model, images).centres()
    inside = (centres < 0.3).all(-1).double().mean()
    assert inside > 0.5
    assert torch.equal(model(images), plain)


@torch.no_grad()
def test_steering_leaves_the_counts_of_images_alone():
    model, images = auto("vit_tiny_patch16_224"), pictures()
    before = dartok.regions(model, images).counts
    with dartok.steer(model, torch.rand(5, 6, 6), weight=2.0):
        assert torch.equal(dartok.regions(model, images).counts, before)


def test_adapt_takes_auto_and_keeps_the_hosts_count_on_average():
    model = dartok.adapt(timm.create_model("test_vit"), num_tokens="auto")
    assert model.patch_embed.budget.mean == 100
    with pytest.raises(ValueError, match="num_tokens must be one of auto, got 'automatic'"):
        dartok.adapt(timm.create_model("test_vit"), num_tokens="automatic")


@pytest.mark.refuses
def test_what_cannot_have_a_budget_says_so():
    grid = dartok.adapt(timm.create_model("test_vit"), partition="grid")
    for model, options, message in [
        (grid, {}, "needs partition='flow', got 'grid'"),
        (dartok.adapt(timm.create_model("test_vit")), {"least": 500}, "least <= mean <= most"),
        (torch.nn.Linear(2, 2), {}, "model must hold a dartok tokenizer"),
        (dartok.adapt(timm.create_model("test_vit")), {"step": 0}, "step must be >= 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            dartok.set_num_tokens(model, "auto", **options)
    model = dartok.adapt(timm.create_model("test_vit"))
    with pytest.raises(ValueError, match="num_tokens must be one of auto, got 'all'"):
        dartok.set_num_tokens(model, "all")
    with pytest.raises(ValueError, match="mean, least, most and step need num_tokens='auto'"):
        dartok.set_num_tokens(model, 30, mean=20)
    with pytest.raises(ValueError, match="must have a budget for each image"):
        dartok.calibrate_num_tokens(model, pictures())


@pytest.mark.refuses
def test_what_would_take_padding_for_tokens_is_refused():
    model, images = auto("vit_wee_patch16_reg1_gap_256"), pictures()
    with pytest.raises(ValueError, match="forward_head cannot tell tokens from padding"):
        model.forward_head(model.forward_features(images))
    with pytest.raises(ValueError, match="cannot be causal; pass attn_mask instead"):
        model(images, is_causal=True)
    with pytest.raises(ValueError, match="cannot be used in Sequential, which would take padding"):
        dartok.set_num_tokens(torch.nn.Sequential(model), "auto")
    with pytest.raises(ValueError, match="mean must be >= 1, got 0"):
        dartok.set_num_tokens(model, "auto", mean=0)
    unpooled = auto("vit_tiny_patch16_224")
    unpooled.reset_classifier(0, "")
    assert unpooled(images).shape[:2] == (5, 1 + 80)


@pytest.mark.refuses
def test_patch_dropout_and_a_budget_exclude_each_other_while_training():
    host = timm.create_model("test_vit", patch_drop_rate=0.5)
    model = dartok.adapt(host).train()
    dartok.set_num_tokens(model, "auto")
    with pytest.raises(ValueError, match="cannot train with patch_drop"):
        model(pictures())
