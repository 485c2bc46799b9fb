"""timm's own methods on an adapted model, and its numbers under compile, autocast and halves."""

import pytest
import timm
import torch
from deterministic import spread
from torch.testing import assert_close

import dartok
from dartok.models.vit import RegionHost


@pytest.fixture
def host():
    return spread(timm.create_model("vit_wee_patch16_reg1_gap_256", depth=3))


@pytest.fixture
def model(host):
    return dartok.adapt(host, num_tokens=50, strength=1.0).eval()


@torch.no_grad()
def test_features_and_head_make_up_the_forward(model):
    images = torch.randn(2, 3, 120, 200)
    features = model.forward_features(images)
    assert features.shape == (2, 51, model.embed_dim)
    assert torch.equal(model.forward_head(features), model(images))
    assert model.forward_head(features, pre_logits=True).shape == (2, model.embed_dim)


@pytest.mark.parametrize("options", [{}, {"norm": True}, {"return_prefix_tokens": True}])
@torch.no_grad()
def test_at_the_start_intermediates_are_the_hosts(host, options):
    model = dartok.adapt(host)
    images = torch.randn(1, 3, 256, 256)
    expected = host.forward_intermediates(images, indices=[0, 2], **options)
    actual = model.forward_intermediates(images, indices=[0, 2], **options)
    assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    for extra in ({"output_fmt": "NLC"}, {"intermediates_only": True}, {"output_dict": True}):
        expected = host.forward_intermediates(images, indices=2, **options, **extra)
        actual = model.forward_intermediates(images, indices=2, **options, **extra)
        assert_close(actual, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_intermediate_maps_are_the_tokens_painted_through_the_regions(model):
    images = torch.randn(2, 3, 120, 200)
    final, maps = model.forward_intermediates(images, indices=[1])
    _, tokens = model.forward_intermediates(images, indices=[1], output_fmt="NLC")
    regions = dartok.regions(model, images)
    assert maps[0].shape == (2, model.embed_dim, 7, 12)
    assert_close(maps[0], regions.to_map(tokens[0], (7, 12)))
    assert_close(final, model.forward_features(images))
    shorter = model.forward_intermediates(images, [0], stop_early=True, intermediates_only=True)
    assert_close(shorter[0], model.forward_intermediates(images, [0])[1][0])
    assert model.get_intermediate_layers(images, 1, reshape=True)[0].shape == maps[0].shape


@pytest.mark.refuses
def test_an_unknown_output_format_is_refused(model):
    with pytest.raises(ValueError, match="output_fmt must be one of NCHW, NLC, got 'NHWC'"):
        model.forward_intermediates(torch.randn(1, 3, 64, 64), output_fmt="NHWC")


def test_the_classifier_can_be_reset_and_found(model):
    model.reset_classifier(7)
    assert model.get_classifier().out_features == 7
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    model.reset_classifier(0)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, model.embed_dim)


def test_gradient_checkpointing_gives_the_same_gradients(model):
    images = torch.randn(1, 3, 64, 64)
    gradients = []
    for enable in (False, True):
        model.zero_grad()
        model.set_grad_checkpointing(enable)
        model(images).sum().backward()
        gradients.append(model.patch_embed.proj.weight.grad.clone())
    assert_close(gradients[0], gradients[1])


def test_weight_decay_and_layer_groups_cover_the_new_names(model):
    from timm.models._manipulate import group_parameters
    from timm.optim import param_groups_weight_decay

    assert {"patch_embed.pos_embed", "cls_token"} <= model.no_weight_decay()
    groups = group_parameters(model, model.group_matcher(), reverse=True)
    assert groups["patch_embed.pos_embed"] == groups["patch_embed.scorer.gain"] == 0
    assert groups["patch_embed.proj.weight"] == 0
    skip = model.no_weight_decay()
    decayed = param_groups_weight_decay(model, 0.05, no_weight_decay_list=skip)
    positions = model.patch_embed.pos_embed
    assert any(positions is value for value in decayed[0]["params"])


def test_the_input_size_can_be_noted_but_not_the_patch_size(model):
    model.set_input_size((320, 160))
    assert model.patch_embed.grid_size == (20, 10)
    assert model.patch_embed.num_tokens == 50
    with pytest.raises(ValueError, match=r"patch_size must stay \(16, 16\), got 8"):
        model.set_input_size((320, 160), patch_size=8)


def test_blocks_can_be_pruned_for_features(model):
    model.prune_intermediate_layers([0])
    assert len(model.blocks) == 1


def difference_alone_and_in_a_batch(model: RegionHost) -> float:
    images = torch.randn(5, 3, 90, 130)
    images[1:] *= torch.tensor([0.1, 2.0, 5.0, 0.0])[:, None, None, None]
    with torch.no_grad():
        alone, together = model(images[:1]), model(images)[:1]
    return float((together - alone).norm() / alone.norm())


@pytest.mark.parametrize("scorer", ["conv", "edge", "pixels", "mobilenetv3_small_v2"])
def test_an_image_alone_has_the_result_it_has_in_any_batch(host, scorer):
    model = dartok.adapt(host, num_tokens=20, strength=1.0, scorer=scorer).train()
    model(torch.randn(4, 3, 90, 130))  # running statistics, where a scorer has some
    assert difference_alone_and_in_a_batch(model.eval()) < 1e-5


def test_batch_statistics_would_be_noticed(host):
    model = dartok.adapt(host, num_tokens=20, strength=1.0, scorer="pixels").eval()
    model.patch_embed.scorer.statistics.source = "batch"
    assert difference_alone_and_in_a_batch(model) > 1e-4


def test_gradients_of_an_image_do_not_reach_its_batch_mates(model):
    images = torch.randn(2, 3, 64, 80, requires_grad=True)
    model(images)[0].sum().backward()
    assert images.grad[0].count_nonzero() > 0
    assert images.grad[1].count_nonzero() == 0


@torch.no_grad()
def test_bfloat16_autocast_is_finite_and_close_and_leaves_the_regions_alone(model):
    images = torch.randn(2, 3, 120, 200)
    expected = model.forward_features(images)
    exact = dartok.regions(model, images)
    with torch.autocast("cpu", torch.bfloat16):
        actual = model.forward_features(images).float()
        regions = dartok.regions(model, images)
    assert regions.strip_edges.dtype == torch.float64
    assert_close(regions.strip_edges, exact.strip_edges, rtol=0, atol=0.05)  # a bf16 residual
    assert actual.isfinite().all()
    assert float((actual - expected).norm() / expected.norm()) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("scorer", ["conv", "edge", "mobilenetv3_small"])
@torch.no_grad()
def test_models_of_any_floating_dtype_run(host, dtype, scorer):
    model = dartok.adapt(host, num_tokens=20, strength=1.0, scorer=scorer).eval().to(dtype)
    result = model(torch.randn(2, 3, 64, 90, dtype=dtype))
    assert result.dtype == dtype
    assert result.isfinite().all()


def test_a_host_in_bfloat16_can_be_adapted(host):
    model = dartok.adapt(host.to(torch.bfloat16))
    assert model.patch_embed.pos_embed.dtype == torch.bfloat16


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@torch.no_grad()
def test_the_whole_model_compiles_without_a_graph_break(host, sampling):
    model = dartok.adapt(host, num_tokens=20, strength=1.0, sampling=sampling).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    images = torch.randn(2, 3, 64, 90)
    assert_close(compiled(images), model(images))


@torch.no_grad()
@pytest.mark.parametrize("partition", ["flow", "grid"])
def test_a_compiled_model_takes_images_of_several_sizes(host, partition):
    model = dartok.adapt(host, num_tokens=20, strength=1.0, partition=partition).eval()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for size in [(64, 90), (80, 64), (100, 130)]:
        images = torch.randn(2, 3, *size)
        assert_close(compiled(images), model(images))


@pytest.mark.slow
@pytest.mark.parametrize("partition", ["flow", "grid"])
@torch.no_grad()
def test_inductor_compiles_the_whole_model(host, partition):
    model = dartok.adapt(host, num_tokens=20, strength=1.0, partition=partition).eval()
    compiled = torch.compile(model, fullgraph=True)
    images = torch.randn(2, 3, 64, 90)
    assert_close(compiled(images), model(images), rtol=1e-3, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.no_grad()
def test_a_gpu_gives_the_cpus_numbers(model):
    images = torch.randn(2, 3, 120, 200)
    expected = model(images)
    assert_close(model.cuda()(images.cuda()).cpu(), expected, rtol=1e-3, atol=1e-3)
