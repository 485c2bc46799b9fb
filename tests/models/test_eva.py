"""timm's `Eva` on regions: the same function at the start, and its own methods after it."""

import pytest
import timm
import torch
from deterministic import spread
from timm.models.eva import Eva
from torch import nn
from torch.testing import assert_close

import dartok
from dartok.models.eva import RegionEva

HOSTS = {  # name to a size of pictures that makes the test quick
    "eva02_tiny_patch14_224": 84,
    "eva02_base_patch16_clip_224": (64, 96),
    "vit_small_patch16_dinov3": (80, 64),
    "vit_small_patch16_dinov3_qkvb": 64,
    "vit_small_plus_patch16_dinov3": (64, 96),
    "vit_small_plus_patch16_dinov3_qkvb": 64,
    "vit_small_patch16_lingbot": 64,
    "vit_pe_core_tiny_patch16_384": (64, 96),  # attention pooling, a norm before the blocks
    "vit_pe_spatial_tiny_patch16_512": (96, 64),
    "vit_small_patch16_rope_224": (64, 96),
    "vit_small_patch16_rope_ape_224": (64, 96),
    "vit_small_patch16_rope_mixed_224": (64, 96),  # learned frequencies
    "vit_small_patch16_rope_mixed_ape_224": 80,
    "vit_mediumd_patch16_rope_reg1_gap_256": 64,
    "vit_betwixt_patch16_rope_reg4_gap_256": (64, 96),
}
SMALL = {"img_size": (64, 96), "patch_size": 16, "embed_dim": 64, "depth": 3, "num_heads": 2}
BUILT = {
    "EVA": {"init_values": 0.1, "mlp_ratio": 4.3},
    "any size by timm's own means": {"use_rot_pos_emb": True, "dynamic_img_size": True},
    "coordinates of another grid": {"use_rot_pos_emb": True, "ref_feat_shape": 16},
    "norms behind the blocks": {"use_post_norm": True, "swiglu_mlp": True, "scale_mlp": True},
    "no class token": {"class_token": False, "no_embed_class": True, "use_rot_pos_emb": True},
    "several registers": {"num_reg_tokens": 3, "no_embed_class": True, "use_rot_pos_emb": True},
    "positions of registers": {"num_reg_tokens": 3, "global_pool": "token"},
    "patches that are not square": {"patch_size": (16, 8), "use_rot_pos_emb": True},
    "learned frequencies, any size": {
        "use_rot_pos_emb": True,
        "rope_type": "mixed",
        "dynamic_img_size": True,
    },
}


def sharp(host: nn.Module) -> nn.Module:
    """Spread, and with queries and keys that make the angles matter: random ones are near 0."""
    with torch.no_grad():
        for name, value in spread(host).named_parameters():
            if any(part in name for part in ("qkv.weight", "q_proj.weight", "k_proj.weight")):
                value.mul_(6)
    return host


def built(**options: object) -> Eva:
    try:
        return sharp(Eva(**SMALL | options))
    except TypeError as error:
        pytest.skip(f"this timm does not know all options ({error})")


def host_of(name: str) -> nn.Module:
    if name in BUILT:
        return built(**BUILT[name])
    if not timm.is_model(name):
        pytest.skip("this timm does not know the model")
    return sharp(timm.create_model(name, depth=2, img_size=HOSTS[name]))


def relative_difference(actual, expected):
    return float(((actual - expected).norm() / expected.norm()).detach())


@pytest.fixture
def host():
    return built(use_rot_pos_emb=True, num_reg_tokens=2)


@pytest.fixture(params=["cat", "mixed", "dinov3"])
def model(request):
    host = built(use_rot_pos_emb=True, rope_type=request.param, rope_temperature=100.0)
    return dartok.adapt(host, num_tokens=20, strength=1.0).eval()


@pytest.mark.parametrize("name", [*HOSTS, *BUILT])
@torch.no_grad()
def test_an_adapted_host_starts_as_the_same_function(name):
    host = host_of(name)
    model = dartok.adapt(host)
    assert isinstance(model, RegionEva)
    images = torch.randn(2, 3, *host.patch_embed.img_size)
    features = model.forward_features(images)
    assert relative_difference(features, host.forward_features(images)) < 1e-5
    assert relative_difference(model(images), host(images)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("eva_giant_patch14_224", 56),
        ("eva02_enormous_patch14_clip_224", 56),  # norms behind the blocks
        ("vit_pe_lang_large_patch14_448", 56),
        ("vit_huge_plus_patch16_dinov3", 64),
    ],
)
@torch.no_grad()
def test_a_large_host_starts_as_the_same_function(name, size):
    host = sharp(timm.create_model(name, depth=1, img_size=size))
    images = torch.randn(1, 3, size, size)
    assert relative_difference(dartok.adapt(host)(images), host(images)) < 1e-5


@torch.no_grad()
def test_grouped_queries_are_carried_over():
    host = built(
        use_rot_pos_emb=True, attn_type="rope", qkv_fused=False, qk_norm=True, num_kv_heads=1
    )
    images = torch.randn(1, 3, 64, 96)
    assert relative_difference(dartok.adapt(host)(images), host(images)) < 1e-5


@torch.no_grad()
def test_the_angles_matter_in_these_tests(host):
    model = dartok.adapt(host)
    images = torch.randn(1, 3, 64, 96)
    expected = model.forward_features(images)
    model.rope = None
    assert relative_difference(model.forward_features(images), expected) > 1e-2


@pytest.mark.parametrize("size", [(64, 300), (16, 16), (333, 47)])
@pytest.mark.parametrize("num_tokens", [1, 7, 196])
@torch.no_grad()
def test_any_image_any_budget(model, size, num_tokens):
    dartok.set_num_tokens(model, num_tokens)
    images = torch.randn(2, 3, *size)
    assert model(images).isfinite().all()
    prefix = model.num_prefix_tokens
    assert model.forward_features(images).shape[1] == prefix + num_tokens


@torch.no_grad()
def test_angles_are_those_of_the_pictures_own_regions(model):
    images = torch.randn(2, 3, 96, 64)
    images[1, :, :40] *= 5
    angles = []
    handle = model.blocks[1].register_forward_pre_hook(
        lambda _, __, options: angles.append(options["rope"]), with_kwargs=True
    )
    model(images)
    handle.remove()
    centres = dartok.regions(model, images).centres()
    expected = model.rope(model.rope.coordinates(centres), 1)
    assert_close(angles[0], expected)
    assert not torch.allclose(angles[0][0], angles[0][1], atol=1e-3)


@torch.no_grad()
def test_a_picture_enlarged_keeps_its_angles(model):
    images = torch.randn(1, 3, 64, 64)
    dartok.set_strength(model, 0.0)
    dartok.set_num_tokens(model, 16)
    large = images.repeat_interleave(2, -1).repeat_interleave(2, -2)
    assert_close(model(large), model(images), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_image_alone_has_the_result_it_has_in_any_batch(model):
    images = torch.randn(5, 3, 90, 130)
    images[1:] *= torch.tensor([0.1, 2.0, 5.0, 0.0])[:, None, None, None]
    assert relative_difference(model(images)[:1], model(images[:1])) < 1e-4  # sharp: rounding grows


def test_the_scorer_learns_through_the_angles_too():
    host = built(use_rot_pos_emb=True, use_abs_pos_emb=False, drop_path_rate=0.0)
    model = dartok.adapt(host, num_tokens=12, strength=1.0).train()
    images = torch.randn(1, 3, 64, 96)
    regions = model.patch_embed.regions(images)
    tokens = model.patch_embed.embed(images, regions).detach()  # only the angles remain
    model.patch_embed.embed = lambda *_: tokens
    model(images).square().sum().backward()
    assert model.patch_embed.scorer.gain.grad.abs() > 0


def test_learned_frequencies_learn():
    model = dartok.adapt(built(use_rot_pos_emb=True, rope_type="mixed"), strength=1.0).train()
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert (model.rope.freqs.grad.abs().sum((0, 2, 3)) > 0).all()


def test_learned_frequencies_stay_under_their_name_and_do_not_decay():
    host = built(use_rot_pos_emb=True, rope_type="mixed")
    model = dartok.adapt(host)
    assert model.rope.freqs is host.rope.freqs
    assert "rope.freqs" in model.state_dict()
    assert {"rope.freqs", "cls_token", "patch_embed.pos_embed"} <= model.no_weight_decay()


@pytest.mark.parametrize("options", [{}, {"norm": True}, {"return_prefix_tokens": True}])
@torch.no_grad()
def test_at_the_start_intermediates_are_the_hosts(host, options):
    model = dartok.adapt(host)
    images = torch.randn(1, 3, 64, 96)
    for extra in (
        {},
        {"output_fmt": "NLC"},
        {"intermediates_only": True},
        {"indices": [0, 1], "stop_early": True},
    ):
        expected = host.forward_intermediates(images, **options, **extra)
        actual = model.forward_intermediates(images, **options, **extra)
        assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_intermediate_maps_are_the_tokens_painted_through_the_regions(model):
    images = torch.randn(2, 3, 120, 200)
    final, maps = model.forward_intermediates(images, indices=[1])
    _, tokens = model.forward_intermediates(images, indices=[1], output_fmt="NLC")
    assert maps[0].shape == (2, 64, 7, 12)
    assert_close(maps[0], dartok.regions(model, images).to_map(tokens[0], (7, 12)))
    assert_close(final, model.forward_features(images))


def test_each_forward_asks_for_the_regions_once(model, monkeypatch):
    calls = []
    regions = model.patch_embed.regions
    monkeypatch.setattr(
        model.patch_embed, "regions", lambda images: calls.append(images) or regions(images)
    )
    images = torch.randn(1, 3, 64, 64)
    model(images)
    model.forward_intermediates(images)
    assert len(calls) == 2


@torch.no_grad()
def test_a_mask_hides_tokens_as_in_the_host(host):
    model = dartok.adapt(host)
    images = torch.randn(1, 3, 64, 96)
    mask = torch.rand(1, 1, 27, 27) > 0.3
    mask |= torch.eye(27, dtype=torch.bool)
    try:
        expected = host.forward_features(images, attn_mask=mask)
    except TypeError:
        pytest.skip("this timm does not know attn_mask")
    assert relative_difference(model.forward_features(images, attn_mask=mask), expected) < 1e-5
    assert relative_difference(model.forward_features(images), expected) > 1e-2


@torch.no_grad()
def test_causal_attention_is_passed_on(host):
    images = torch.randn(1, 3, 64, 96)
    try:
        expected = host.forward_features(images, is_causal=True)
    except TypeError:
        pytest.skip("this timm does not know is_causal")
    actual = dartok.adapt(host).forward_features(images, is_causal=True)
    assert relative_difference(actual, expected) < 1e-5


@torch.no_grad()
def test_padding_of_images_with_fewer_tokens_changes_nothing(model):
    dartok.set_num_tokens(model, "auto", mean=20, least=5, most=40)
    images = torch.randn(3, 3, 64, 96) * torch.tensor([0.1, 1.0, 8.0])[:, None, None, None]
    images[0, :, :20, :30] += 5
    counts = dartok.regions(model, images).counts
    assert len(set(counts.tolist())) > 1
    mask = torch.ones(1, 1, 1, 41, dtype=torch.bool)  # a mask has the batch padded
    padded = model(images, attn_mask=mask)
    alone = torch.cat([model(images[index : index + 1]) for index in range(3)])
    assert relative_difference(padded, alone) < 1e-4


def test_gradient_checkpointing_gives_the_same_gradients(model):
    images = torch.randn(1, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(images).sum().backward()
        gradients.append(model.patch_embed.scorer.gain.grad.clone())
    assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("rope_type", ["cat", "mixed"])
def test_dropped_patches_take_their_angles_with_them(rope_type):
    host = built(use_rot_pos_emb=True, rope_type=rope_type, patch_drop_rate=0.5)
    model = dartok.adapt(host)
    images = torch.randn(2, 3, 64, 96)
    results = []
    for each in (host.train(), model.train()):
        torch.manual_seed(1)
        results.append(each(images))
    assert relative_difference(results[1], results[0]) < 1e-5
    assert model.forward_features(images).shape[1] == 1 + 12


@pytest.mark.refuses
def test_maps_with_holes_are_refused():
    model = dartok.adapt(built(patch_drop_rate=0.5)).train()
    with pytest.raises(ValueError, match="got 12 behind patch_drop; call model.eval"):
        model.forward_intermediates(torch.randn(1, 3, 64, 96))


def test_coordinates_are_augmented_in_training_alone():
    host = built(use_rot_pos_emb=True, rope_type="dinov3", rope_rescale_coords=2.0)
    model = dartok.adapt(host, strength=1.0)
    images = torch.randn(1, 3, 64, 96)
    assert torch.equal(model.eval()(images), model(images))
    assert not torch.allclose(model.train()(images), model(images))


def test_the_host_is_left_as_it_was(host):
    images = torch.randn(1, 3, 64, 96)
    names, expected = set(host.state_dict()), host(images)
    model = dartok.adapt(host, strength=1.0)
    model.set_input_size((128, 128))
    model.reset_classifier(7)
    assert model(images).shape == (1, 7)
    assert set(host.state_dict()) == names
    assert host.rope.feat_shape == (4, 6)
    assert torch.equal(host(images), expected)


def test_the_input_size_does_not_move_the_angles(host):
    model = dartok.adapt(host, num_tokens=20)
    images = torch.randn(1, 3, 128, 128)
    before = model(images)
    model.set_input_size((128, 128))
    assert torch.equal(model(images), before)


def test_a_model_can_be_saved_and_loaded(model):
    images = torch.randn(1, 3, 64, 64)
    expected = model(images)
    state = model.state_dict()
    assert not [name for name in state if name.startswith("rope.") and name != "rope.freqs"]
    model.load_state_dict(state)
    assert torch.equal(model(images), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@torch.no_grad()
def test_models_of_any_floating_dtype_run(model, dtype):
    images = torch.randn(2, 3, 64, 90)
    expected = model.forward_features(images)
    actual = model.to(dtype).forward_features(images.to(dtype))
    assert actual.dtype == dtype
    assert relative_difference(actual.float(), expected) < (1e-2 if dtype.itemsize == 8 else 0.1)


def test_a_host_in_bfloat16_can_be_adapted(host):
    assert dartok.adapt(host.to(torch.bfloat16)).rope.freqs.dtype == torch.float32


@torch.no_grad()
def test_the_whole_model_compiles_without_a_graph_break(model):
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in [(64, 90), (80, 64)]:
        images = torch.randn(2, 3, *size)
        assert_close(compiled(images), model(images))


@pytest.mark.refuses
def test_a_host_that_cannot_be_carried_over_is_refused_by_name(host):
    host.rope = nn.Identity()
    with pytest.raises(ValueError, match="carry over Eva: its rope is a Identity, whose angles"):
        dartok.adapt(host)
    host.patch_embed = nn.Identity()
    with pytest.raises(ValueError, match="carry over Eva: its patch_embed is a Identity, not a"):
        dartok.adapt(host)
