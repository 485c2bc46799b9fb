"""Adapted hosts by name, also in timm's registry."""

import pytest
import timm
import torch

import dartok
from dartok.models.hosts import adapted_host, host_config


def test_a_host_by_name_is_adapted_at_full_strength():
    torch.manual_seed(1)
    actual = adapted_host(host="test_vit", num_tokens=20, num_rows=5, partition="grid")
    torch.manual_seed(1)
    host = timm.create_model("test_vit")
    expected = dartok.adapt(host, num_tokens=20, num_rows=5, partition="grid", strength=1.0)
    images = torch.randn(2, 3, 64, 96)
    assert torch.equal(actual.eval()(images), expected.eval()(images))


def test_options_of_the_host_reach_it():
    model = adapted_host(
        host="test_vit", num_classes=3, in_chans=1, drop_rate=0.5, drop_path_rate=0.25, strength=0.0
    )
    assert model.head.out_features == 3
    assert model.patch_embed.proj.in_channels == 1
    assert model.head_drop.p == 0.5
    assert model.blocks[-1].drop_path1.drop_prob == 0.25
    assert float(model.patch_embed.strength) == 0.0


def test_every_option_of_adapt_and_of_the_host_is_taken():
    model = adapted_host(
        host="test_vit",
        host_args={"depth": 2},
        img_size=(64, 96),
        global_pool="avg",
        num_tokens=12,
        sampling="corner",
        oversample=2,
        scorer="pixels",
        scorer_args={"side_px": None, "statistics": "batch"},
        budget={"mean": 12, "least": 3, "most": 20, "step": 2},
    )
    embed = model.patch_embed
    assert (len(model.blocks), model.global_pool, embed.grid_size) == (2, "avg", (4, 6))
    assert (embed.sampling, embed.oversample) == ("corner", 2)
    assert (embed.scorer.side_px, embed.scorer.statistics.source) == (None, "batch")
    assert (embed.budget.least, embed.budget.most, embed.budget.step) == (3, 20, 2)


def test_a_host_of_torchvision_is_built_from_its_own_options():
    sizes = {"image_size": 64, "patch_size": 16, "hidden_dim": 16, "mlp_dim": 16}
    model = timm.create_model(
        "dart_vit",
        host="torchvision.VisionTransformer",
        host_args={**sizes, "num_layers": 1, "num_heads": 2},
        num_classes=3,
    )
    assert model(torch.randn(1, 3, 48, 80)).shape == (1, 3)
    assert model.get_submodule(model.pretrained_cfg["first_conv"]).kernel_size == (16, 16)
    assert model.get_submodule(model.pretrained_cfg["classifier"]).out_features == 3


@pytest.mark.refuses
def test_a_host_of_torchvision_refuses_what_only_timm_takes():
    with pytest.raises(ValueError, match=r"global_pool must be None for host .*, got 'avg'"):
        adapted_host(host="torchvision.VisionTransformer", global_pool="avg")


def test_without_a_number_of_tokens_a_host_keeps_its_own():
    assert adapted_host(host="test_vit").patch_embed.num_tokens == 100


@pytest.mark.parametrize("host", ["test_vit", "vit_base_patch16_siglip_224"])
def test_the_configuration_is_the_hosts_but_for_the_patch_embedding_and_the_size(host):
    theirs, ours = timm.get_pretrained_cfg(host), host_config(host)
    for name in ("input_size", "mean", "std", "interpolation", "crop_pct", "classifier"):
        assert ours[name] == getattr(theirs, name)
    assert ours["first_conv"] == "patch_embed.proj"
    assert ours["fixed_input_size"] is False


def test_timm_builds_an_adapted_host_with_the_hosts_data_settings():
    model = timm.create_model("dart_vit", host="test_vit", num_tokens=20, num_classes=3)
    assert model.patch_embed.num_tokens == 20
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, 3)
    data = timm.data.resolve_model_data_config(model)
    assert data["input_size"] == (3, 160, 160)
    assert model.pretrained_cfg["architecture"] == "dart_vit"


def test_an_adapted_host_is_no_name_of_the_authors_models():
    assert timm.is_model("dart_vit")
    assert "dart_vit" not in dartok.list_models()


@pytest.mark.refuses
def test_an_unknown_host_is_refused():
    with pytest.raises(ValueError, match=r"host must be one of timm.list_models.* got 'vitt'"):
        timm.create_model("dart_vit", host="vitt")


@pytest.mark.refuses
def test_an_adapted_host_has_no_weights_of_its_own():
    with pytest.raises(ValueError, match="dart_vit has no weights of its own; use host_pretrained"):
        timm.create_model("dart_vit", host="test_vit", pretrained=True)


@pytest.mark.refuses
def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_tokns'"):
        timm.create_model("dart_vit", host="test_vit", num_tokns=3)
