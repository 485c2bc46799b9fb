"""Dense features of every adapted model, against the host's own maps and against single images."""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import timm
import torch
from deterministic import spread
from torch import nn
from torch.testing import assert_close
from torchvision.models.vision_transformer import VisionTransformer

import dartok
from dartok.models.dials import tokenizer_of
from dartok.models.features import DenseEncoder, features, map_sizes, region_tokens

NARROW = {"embed_dim": 64, "num_heads": 2}
TIMM = {  # name, options, patch side in px
    "test_vit": ({}, 16),
    "deit_tiny_distilled_patch16_224": ({"depth": 3, "img_size": 64}, 16),
    "vit_small_patch14_reg4_dinov2": ({"depth": 2, "img_size": (56, 84), **NARROW}, 14),
    "eva02_tiny_patch14_224": ({"depth": 2, "img_size": 56}, 14),
    "vit_small_patch16_rope_mixed_224": ({"depth": 2, "img_size": 64, **NARROW}, 16),
    "vit_small_patch16_dinov3": ({"depth": 2, "img_size": 64, **NARROW}, 16),
    "beit_base_patch16_224": ({"depth": 2, "img_size": 64, **NARROW}, 16),
    "vit_relpos_small_patch16_224": ({"depth": 2, "img_size": 64, **NARROW}, 16),
    "naflexvit_base_patch16_gap": ({"depth": 2, "pos_embed_grid_size": (4, 4), **NARROW}, 16),
    "vim_tiny": ({"depth": 3, "img_size": 64, "embed_dim": 48}, 16),
    "videomamba_tiny": ({"depth": 2, "img_size": 64, "embed_dim": 48}, 16),
}
SIZES = {
    "test_vit": (160, 160),
    "vit_small_patch14_reg4_dinov2": (56, 84),
    "naflexvit_base_patch16_gap": (64, 64),
}
AUTO = ["test_vit", "eva02_tiny_patch14_224", "deit_tiny_distilled_patch16_224", "vim_tiny"]


def timm_host(name):
    options, patch_px = TIMM[name]
    return spread(timm.create_model(name, num_classes=0, **options)), patch_px


def native_images(name, batch=2):
    side = TIMM[name][0].get("img_size")
    size = SIZES.get(name, (side, side))
    return torch.randn(batch, 3, *size)


def small(num_tokens=30, **options):
    """An adapted ViT of 6 blocks of width 64, at full strength."""
    host = spread(timm.create_model("test_vit", num_classes=0))
    return dartok.adapt(host, num_tokens=num_tokens, scorer="edge", strength=1.0, **options).eval()


def learning(num_tokens=30):
    """The same with a scorer that learns."""
    host = spread(timm.create_model("test_vit", num_classes=0))
    return dartok.adapt(host, num_tokens=num_tokens, strength=1.0)


def pictures():
    """From flat to busy, so that counts differ."""
    images = torch.randn(4, 3, 70, 110)
    images[0] = 0.1
    images[1, :, :60] = 0
    images[2, :, :, :90] = 0
    images[3, :, 20:50, 30:60] *= 8
    return images


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


# The host's own maps


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_features_of_a_timm_host_start_as_its_own_maps(name, norm):
    host, patch_px = timm_host(name)
    images = native_images(name)
    expected = host.forward_intermediates(images, norm=norm, intermediates_only=True)
    layers = range(len(expected))
    model = dartok.adapt(host)
    actual = features(model, images, strides=[patch_px] * len(layers), layers=layers, norm=norm)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.shape == theirs.shape
        assert relative(ours, theirs) < 1e-5


def block_outputs(host, blocks, inputs):
    """What some modules of a host return in one call: the oracle for hosts without maps."""
    found = []

    def note(block, inputs, output):
        found.append(output if isinstance(output, torch.Tensor) else output[0])

    hooks = [block.register_forward_hook(note) for block in blocks]
    host(**inputs)
    for hook in hooks:
        hook.remove()
    return found


def as_map(tokens, num_prefix, grid):
    return tokens[:, num_prefix:].transpose(1, 2).unflatten(2, grid)


@torch.no_grad()
def test_features_of_torchvisions_host_start_as_its_own_tokens():
    width = {"hidden_dim": 48, "mlp_dim": 96}
    host = spread(
        VisionTransformer(image_size=64, patch_size=16, num_layers=3, num_heads=2, **width)
    )
    images = torch.randn(2, 3, 64, 64)
    expected = block_outputs(host, host.encoder.layers, {"x": images})
    model = dartok.adapt(host)
    options = {"strides": (16, 16, 16), "layers": (0, 1, 2)}
    for norm in (False, True):
        actual = features(model, images, norm=norm, **options)
        for ours, tokens in zip(actual, expected, strict=True):
            own = host.encoder.ln(tokens) if norm else tokens
            assert relative(ours, as_map(own, 1, (4, 4))) < 1e-5


# Any size, budget and mode


@pytest.mark.parametrize("size", [(64, 96), (70, 101), (33, 170)])
@pytest.mark.parametrize("num_tokens", [1, 7, 200])
@torch.no_grad()
def test_maps_have_the_strides_asked_for_at_any_size_and_budget(size, num_tokens):
    model, images = small(num_tokens), torch.randn(2, 3, *size)
    for training in (False, True):
        maps = features(model.train(training), images)
        for stride, one in zip((4, 8, 16, 32), maps, strict=True):
            assert one.shape == (2, 64, -(-size[0] // stride), -(-size[1] // stride))
            assert one.isfinite().all()
    sizes = [(1, 1), (13, 5)]
    assert [tuple(one.shape[2:]) for one in features(model, images, sizes=sizes)] == sizes


@pytest.mark.parametrize("name", TIMM)
@torch.no_grad()
def test_every_host_takes_other_sizes_and_counts(name):
    host, _ = timm_host(name)
    model = dartok.adapt(host, num_tokens=23, strength=1.0)
    maps = features(model, torch.randn(2, 3, 75, 50), strides=(8, 16))
    assert [tuple(one.shape[2:]) for one in maps] == [(10, 7), (5, 4)]
    assert all(one.isfinite().all() for one in maps)


@torch.no_grad()
def test_a_constant_field_of_tokens_paints_a_constant():
    model = small(50)
    model.norm.weight.zero_()
    for one in features(model, pictures()):
        assert_close(one, model.norm.bias[:, None, None].expand_as(one), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_map_holds_the_token_of_the_region_where_a_cell_is_within_one():
    model, images = small(40), pictures()
    regions, (tokens,) = region_tokens(model, images)
    fine = features(model, images, sizes=[(210, 330)])[0]
    labels = regions.label_map((210, 330))[:, 0]
    inside = torch.ones_like(labels, dtype=torch.bool)
    for shift in (-1, 1):
        for dim in (1, 2):
            inside &= labels.roll(shift, dim) == labels
    inside[:, [0, -1]] = inside[:, :, [0, -1]] = False
    assert inside.float().mean() > 0.5
    index = labels.flatten(1).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    expected = tokens.gather(1, index).unflatten(1, labels.shape[1:])
    assert_close(fine.permute(0, 2, 3, 1)[inside], expected[inside], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", AUTO)
@torch.no_grad()
def test_an_image_with_a_count_of_its_own_has_the_maps_it_has_alone(name):
    host, _ = timm_host(name)
    model = dartok.adapt(host, num_tokens=40, scorer="edge", strength=1.0).eval()
    dartok.set_num_tokens(model, "auto", least=8, most=80)
    images = pictures()
    dartok.calibrate_num_tokens(model, images)
    regions, _ = region_tokens(model, images)
    assert len(set(regions.counts.tolist())) >= 3
    together = features(model, images, strides=(4, 16))
    budget = tokenizer_of(model).budget
    for image, count in enumerate(regions.counts.tolist()):
        dartok.set_num_tokens(model, count)
        alone = features(model, images[image, None], strides=(4, 16))
        tokenizer_of(model).set_budget(budget)
        for one, other in zip(together, alone, strict=True):
            assert relative(one[image], other[0]) < 1e-5


@torch.no_grad()
def test_padding_is_not_painted():
    model = small(40)
    dartok.set_num_tokens(model, "auto", least=8, most=80)
    dartok.calibrate_num_tokens(model, pictures())
    regions, (tokens,) = region_tokens(model, pictures())
    padding = ~regions.is_region()
    assert padding.any()
    loud = tokens.masked_fill(padding.unsqueeze(-1), 1e6)
    assert torch.equal(regions.to_map(loud, (18, 28)), regions.to_map(tokens, (18, 28)))


@torch.no_grad()
def test_order_and_batch_mates_do_not_matter_in_eval_mode():
    model, images = small(), pictures()
    expected, order = features(model, images), torch.tensor([2, 0, 3, 1])
    for one, other in zip(features(model, images[order]), expected, strict=True):
        assert_close(one, other[order], rtol=0, atol=1e-5)
    for one, other in zip(features(model, images[1:2]), expected, strict=True):
        assert_close(one, other[1:2], rtol=0, atol=1e-5)


# Layers


@torch.no_grad()
def test_layers_choose_the_block_of_each_map_in_any_order():
    model, images = small(), pictures()
    size, layers = (5, 7), (4, -1, 0, 4)
    maps = features(model, images, sizes=[size] * 4, layers=layers)
    own = model.forward_intermediates(images, indices=[0, 4, 5], norm=True, output_fmt="NLC")[1]
    regions = dartok.regions(model, images)
    for found, tokens in zip(maps, (own[1], own[2], own[0], own[1]), strict=True):
        assert_close(found, regions.to_map(tokens, size))


@pytest.mark.parametrize(
    ("depth", "num_maps", "expected"),
    [(12, 4, [2, 5, 8, 11]), (24, 4, [5, 11, 17, 23]), (2, 4, [0, 0, 1, 1]), (6, 1, [5])],
)
@torch.no_grad()
def test_without_layers_blocks_are_spread_evenly(depth, num_maps, expected):
    host = timm.create_model("vit_tiny_patch16_224", depth=depth, img_size=32, **NARROW)
    model, images = dartok.adapt(spread(host)), torch.randn(1, 3, 32, 32)
    strides = [8] * num_maps
    for one, other in zip(
        features(model, images, strides=strides),
        features(model, images, strides=strides, layers=expected),
        strict=True,
    ):
        assert torch.equal(one, other)


@torch.no_grad()
def test_blocks_behind_the_last_one_asked_for_do_not_run():
    model, ran = small(), []
    for index, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
    features(model, pictures(), strides=(8, 8), layers=(0, 2))
    assert ran == [0, 1, 2]


# Gradients, modes and state


@pytest.mark.parametrize("name", TIMM)
def test_gradients_reach_the_scorer_from_every_map(name):
    host, _ = timm_host(name)
    model = dartok.adapt(host, num_tokens=12, strength=1.0)
    scorer = [one for one in tokenizer_of(model).scorer.parameters() if one.requires_grad]
    for index in range(2):
        model.zero_grad()
        maps = features(model.train(), torch.randn(2, 3, 64, 64), strides=(4, 16))
        weights = torch.linspace(-1, 1, maps[index].shape[-1])
        (maps[index] * weights).square().sum().backward()
        assert all(one.grad.isfinite().all() for one in scorer)
        assert any(one.grad.abs().max() > 0 for one in scorer)


def test_the_images_are_scored_once():
    model, calls = small(), []
    tokenizer_of(model).scorer.register_forward_hook(lambda *_: calls.append(1))
    features(model, pictures())
    assert len(calls) == 1


@torch.no_grad()
def test_the_regions_of_the_tokens_are_those_of_the_model():
    model, images = small(), pictures()
    regions, tokens = region_tokens(model, images, (0, 5))
    for ours, theirs in zip(regions[:2], dartok.regions(model, images)[:2], strict=True):
        assert torch.equal(ours, theirs)
    assert [one.shape for one in tokens] == [(4, 30, 64)] * 2


@torch.no_grad()
def test_nothing_is_kept_in_the_model():
    model = small()
    before = {name: dict(vars(part)) for name, part in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    features(model, pictures(), priority=torch.rand(4, 5, 5))
    for name, part in model.named_modules():
        assert vars(part).keys() == before[name].keys()
        for key, value in vars(part).items():
            assert value is before[name][key], (name, key)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_threads_may_share_a_model():
    model = small()
    jobs = [(torch.randn(1, 3, 64, 64), torch.rand(1, 5, 5)) for _ in range(24)]

    def run(job):
        return features(model, job[0], strides=(8,), priority=job[1])[0]

    expected = [run(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(pool.map(run, jobs), expected, strict=True):
            assert torch.equal(one, other)


@torch.no_grad()
def test_a_priority_directs_the_tokens():
    model, images = small(100), torch.zeros(1, 3, 64, 64)
    box = torch.tensor([[0.5, 0.5, 1.0, 1.0]])
    regions = region_tokens(model, images, priority=[box], priority_weight=3.0).regions
    inside = (regions.centres() > 0.5).all(-1).sum()
    assert inside > 2 * (dartok.regions(model, images).centres() > 0.5).all(-1).sum()
    plain, steered = (features(model, pictures()[:1], priority=one) for one in (None, [box]))
    assert not torch.equal(plain[0], steered[0])


@torch.no_grad()
def test_half_precision_moves_no_region():
    model, images = small(), pictures()
    maps = features(model, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        regions, tokens = region_tokens(model, images)
        coarse = features(model, images)
    assert regions.row_edges.dtype == torch.float64
    assert torch.equal(regions.strip_edges, dartok.regions(model, images).strip_edges)
    for one, other in zip(coarse, maps, strict=True):
        assert relative(one.float(), other) < 0.05
    half = features(copy.deepcopy(model).bfloat16(), images.bfloat16())
    assert all(one.dtype == torch.bfloat16 and one.isfinite().all() for one in half)
    assert tokens[0].shape == (4, 30, 64)


def test_checkpointing_changes_no_gradient():
    model, images = learning().train(), pictures()
    gradients = []
    for enabled in (False, True):
        model.set_grad_checkpointing(enabled)
        model.zero_grad()
        sum(one.square().mean() for one in features(model, images)).backward()
        gradients.append([one.grad.clone() for one in model.parameters() if one.grad is not None])
    for plain, checkpointed in zip(*gradients, strict=True):
        assert_close(checkpointed, plain, rtol=1e-4, atol=1e-7)


# Other models


@torch.no_grad()
def test_a_model_that_holds_an_adapted_one_gives_its_features():
    model, images = small(), pictures()
    held = nn.Sequential(nn.Identity(), nn.ModuleDict({"vit": model}), nn.Linear(2, 2))
    for one, other in zip(features(held, images), features(model, images), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_the_host_itself_has_the_features_of_the_adapted_model_at_the_start():
    host, images = spread(timm.create_model("test_vit")), torch.randn(2, 3, 160, 160)
    sizes = [(40, 40), (10, 10), (7, 13), (3, 3)]
    plain = features(host, images, sizes=sizes)
    for one, other in zip(plain, features(dartok.adapt(host), images, sizes=sizes), strict=True):
        assert relative(one, other) < 1e-5


@pytest.mark.parametrize("name", ["test_convnext", "test_resnet"])
@torch.no_grad()
def test_a_model_with_stages_gives_each_at_its_own_stride(name):
    host = timm.create_model(name).eval()
    images = torch.randn(1, 3, 96, 128)
    layers = range(len(host.feature_info))[-4:]
    own = host.forward_intermediates(images, list(layers), intermediates_only=True, norm=True)
    strides = [host.feature_info[index]["reduction"] for index in layers]
    found = features(host, images, strides=strides)
    assert len(found) == 4
    for one, other in zip(found, own, strict=True):
        assert torch.equal(one, other)
    channels = tuple(one.shape[1] for one in own)
    assert DenseEncoder(host, strides=strides).channels == channels
    coarse = features(host, images, sizes=[(1, 1)], layers=[0])[0]
    first = host.forward_intermediates(images, [0], intermediates_only=True, norm=True)[0]
    assert_close(coarse, first.mean((2, 3), keepdim=True), rtol=1e-4, atol=1e-5)


class Answering(nn.Module):
    """A model with dense features of its own."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 5, 1)

    def dense_features(self, images, sizes):
        return [
            nn.functional.adaptive_avg_pool2d(self.first(images), size)[:, : index + 2]
            for index, size in enumerate(sizes)
        ]


def test_a_model_with_dense_features_of_its_own_is_asked_for_them():
    model, images = Answering(), torch.randn(2, 3, 33, 64)
    maps = features(model, images, strides=(16, 32))
    assert [tuple(one.shape) for one in maps] == [(2, 2, 3, 4), (2, 3, 2, 2)]
    encoder = DenseEncoder(model, strides=(4, 8, 16))
    assert encoder.channels == (2, 3, 4)
    assert encoder.training
    assert [one.shape[1] for one in encoder(images)] == [2, 3, 4]


def test_a_reshaped_model_gives_its_unwarped_features():
    reshape = pytest.importorskip("dartok.models.reshaped").reshape
    model = reshape(timm.create_model("test_convnext"), strength=1.0).eval()
    encoder = DenseEncoder(model)
    images = torch.randn(1, 3, 96, 160)
    for one, channels, stride in zip(
        encoder(images), encoder.channels, encoder.strides, strict=True
    ):
        assert one.shape == (1, channels, 96 // stride, 160 // stride)


# As a module


@torch.no_grad()
def test_the_module_gives_the_features_and_says_what_they_are():
    model, images = small(), pictures()
    options = {"strides": (8, 16), "layers": (1, 4), "norm": False}
    encoder = DenseEncoder(model, **options)
    assert encoder.channels == (64, 64)
    assert encoder.strides == (8, 16)
    for one, other in zip(encoder(images), features(model, images, **options), strict=True):
        assert torch.equal(one, other)
    assert list(encoder.state_dict()) == [f"model.{name}" for name in model.state_dict()]
    again = copy.deepcopy(encoder)
    assert torch.equal(again(images)[0], encoder(images)[0])


@torch.no_grad()
def test_dials_work_on_the_module():
    encoder, images = DenseEncoder(small()), pictures()
    dartok.set_num_tokens(encoder, "auto", mean=20)
    assert dartok.regions(encoder, images).counts is not None
    dartok.set_strength(encoder, 0.0)
    dartok.set_num_tokens(encoder, 12)
    assert region_tokens(encoder, images).tokens[0].shape == (4, 12, 64)


def test_every_parameter_learns_where_the_host_has_no_head():
    encoder = DenseEncoder(learning()).train()
    sum(one.square().mean() for one in encoder(pictures())).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.slow
def test_a_compiled_module_gives_the_same_maps_and_gradients():
    host = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=32, num_classes=0, **NARROW)
    encoder = DenseEncoder(dartok.adapt(spread(host), num_tokens=9, strength=1.0), strides=(4, 8))
    images, found = torch.randn(2, 3, 32, 48), []
    for call in (encoder, torch.compile(encoder, fullgraph=True, backend="aot_eager")):
        encoder.zero_grad()
        maps = call(images)
        sum(one.square().mean() for one in maps).backward()
        gradients = [one.grad.clone() for one in encoder.parameters() if one.grad is not None]
        found.append([*(one.detach() for one in maps), *gradients])
    for plain, compiled in zip(*found, strict=True):
        assert_close(compiled, plain, rtol=1e-3, atol=1e-4)


def test_sizes_of_maps_are_rounded_up():
    assert map_sizes((224, 225), (4, 32)) == [(56, 57), (7, 8)]


# Refusals


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strides": (4, 0)}, "strides must be >= 1, got 0"),
        ({"strides": (4.5,)}, "strides must be a whole number, got 4.5"),
        ({"sizes": (56, 56)}, r"sizes must be \(height, width\) of .* for each map, got 56"),
        ({"strides": 8}, r"strides must be one for each map, as \(8, 16\), got 8"),
        ({"strides": ()}, "strides or sizes must name at least one map, got none"),
        ({"sizes": [(3, 0)]}, r"sizes must be \(height, width\) of .*, got \(3, 0\)"),
        ({"layers": (1, 2)}, r"layers must name one block for each of the 4 maps, got \(1, 2\)"),
        ({"layers": (0, 1, 2, 6)}, "layers must be from -6 to 5 in a model of 6 blocks, got 6"),
        ({"layers": (0, 1, 2, -7)}, "layers must be from -6 to 5 in a model of 6 blocks, got -7"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        features(small(), pictures(), **options)
    if "sizes" not in options:
        with pytest.raises(ValueError, match=f"^{message}$"):
            DenseEncoder(small(), **options)


@pytest.mark.refuses
def test_a_model_that_gives_no_maps_is_refused():
    images = torch.randn(1, 3, 64, 64)
    with pytest.raises(ValueError, match="got a Linear$"):
        features(nn.Linear(2, 2), images)
    with pytest.raises(ValueError, match="got a VisionTransformer$"):
        region_tokens(timm.create_model("test_vit"), images)
    with pytest.raises(ValueError, match="^priority needs regions to direct"):
        features(timm.create_model("test_vit"), images, priority=torch.rand(1, 4, 4))
    with pytest.raises(ValueError, match="^layers must be None for a Answering"):
        features(Answering(), images, layers=(0, 1, 2, 3))


@pytest.mark.refuses
@pytest.mark.parametrize("layers", [3, ()])
def test_layers_must_be_a_sequence(layers):
    with pytest.raises(ValueError, match="^layers must be numbers of blocks, as "):
        region_tokens(small(), pictures(), layers)


@pytest.mark.refuses
def test_dropped_tokens_are_refused_while_training():
    host = timm.create_model("test_vit", patch_drop_rate=0.5)
    model = dartok.adapt(host, num_tokens=30)
    message = "^features need a token of each of the 30 regions, got 15 behind patch_drop"
    with pytest.raises(ValueError, match=message):
        features(model.train(), pictures())
    assert features(model.eval(), pictures())[0].shape == (4, 64, 18, 28)


@pytest.mark.refuses
def test_images_that_cannot_be_cut_are_refused_as_by_the_model():
    with pytest.raises(ValueError, match="^images must have 3 channels"):
        features(small(), torch.randn(1, 4, 64, 64))
