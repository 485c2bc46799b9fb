"""Models by name, here and in timm."""

import subprocess
import sys
import warnings

import pytest
import timm
import torch
from deterministic import fill
from refusals import refused

import dartok


def test_the_names_are_listed_and_filtered():
    families = ("darvit_", "darvim_", "vim_", "videomamba_")
    assert [len(dartok.list_models(f"{family}*")) for family in families] == [7, 4, 5, 6]
    assert dartok.list_models("rmt_*") == ["rmt_l6", "rmt_m2", "rmt_s", "rmt_t3"]
    assert dartok.list_models("darmt_*") == ["darmt_l6", "darmt_s"]
    assert len(dartok.list_models()) == 28
    assert dartok.list_models("*_sm*") == [
        "darvim_sm",
        "darvim_sm_2seq",
        "darvit_sm",
        "darvit_sm_144p",
        "darvit_sm_288p",
        "darvit_sm_392p",
        "videomamba_small",
        "videomamba_small_video",
        "vim_small",
        "vim_small_stride8",
    ]


@pytest.mark.parametrize(
    ("name", "side"),
    [("darvit_tiny", 448), ("darvit_sm_392p", 448), ("darvim_tiny_2seq", 448), ("vim_tiny", 224)],
)
def test_timm_creates_our_models(name, side):
    assert timm.is_model(name)
    size = {"img_size": (64, 96)} if name == "vim_tiny" else {}
    model = timm.create_model(name, num_classes=7, drop_path_rate=0.1, **size).eval()
    assert model(torch.randn(1, 3, 64, 96)).shape == (1, 7)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, side, side)
    assert config["interpolation"] == "bicubic"
    assert (config["mean"][0], config["crop_pct"]) == (0.485, 0.875)


def test_the_settings_of_one_model_are_not_those_of_the_next():
    for name in ("darvit_tiny", "vim_tiny"):
        dartok.create_model(name).pretrained_cfg["crop_pct"] = 0.5
        assert dartok.create_model(name).pretrained_cfg["crop_pct"] == 0.875


@torch.no_grad()
def test_a_vision_mamba_by_name_is_a_host_to_adapt():
    host = dartok.create_model("vim_tiny", num_classes=5, num_channels=1, drop_path_rate=0.1)
    assert host.layers[-1].drop_path.drop_prob > 0
    model = dartok.adapt(host, num_tokens=9).eval()
    assert model(torch.randn(1, 1, 48, 80)).shape == (1, 5)
    assert dartok.regions(model, torch.randn(1, 1, 48, 80)).num_tokens == 9
    assert timm.create_model("vim_tiny", depth=2, img_size=32).patch_embed.num_patches == 4


def test_timm_passes_its_image_size_and_unknown_options_are_refused():
    model = timm.create_model("darvit_tiny", img_size=224)
    assert model.patch_embed.grid_size == (14, 14)
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_tokns'"):
        timm.create_model("darvit_tiny", num_tokns=3)


def test_looking_for_timm_does_not_undo_the_registration():
    look = "import dartok, importlib.util; importlib.util.find_spec('timm'); import timm"
    code = f"{look}; assert timm.is_model('darvit_tiny')"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_timm_makes_feature_extractors_of_our_models():
    model = timm.create_model("darvit_tiny", features_only=True).eval()
    maps = model(torch.randn(1, 3, 64, 96))
    assert [tuple(features.shape) for features in maps] == [(1, 192, 4, 6)] * 3
    assert model.feature_info.reduction() == [16, 16, 16]


@pytest.mark.parametrize("order", ["import dartok, timm", "import timm, dartok"])
def test_importing_in_either_order_registers_the_models(order):
    names = ["dart_vit", "darvit_*", "darvim_*", "darmt_*", "vim_*", "videomamba_*", "rmt_*"]
    code = f"{order}; assert len(timm.list_models({names})) == 29"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_a_user_should_know_is_said_once():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            dartok.create_model("darvit_tiny")
    messages = [str(warning.message) for warning in said]
    assert len(messages) == 2
    assert "dartok.calibrate(model, images) freezes the statistics" in messages[0]
    assert "starts from random weights" in messages[1]


def test_nothing_need_be_known_about_a_fixed_grid():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dartok.create_model("vim_tiny", num_classes=3)
        timm.create_model("videomamba_tiny", num_classes=3)


def difference_in_a_batch(model, images):
    """Of the first image's region edges, alone and among the others, in strip coordinates."""
    together = dartok.regions(model, images).strip_edges[:1]
    return float((together - dartok.regions(model, images[:1]).strip_edges).abs().max())


@torch.no_grad()
def test_calibration_ends_the_dependence_on_the_batch():
    model = fill(dartok.create_model("darvit_tiny", num_tokens=16, num_classes=3)).float()
    images = torch.randn(4, 3, 64, 64) * torch.tensor([1.0, 0.2, 3.0, 0.5])[:, None, None, None]
    assert difference_in_a_batch(model, images) > 1e-4
    dartok.calibrate(model, images)
    assert difference_in_a_batch(model, images) < 1e-5


@pytest.mark.refuses
def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ValueError, match="unknown model 'darvit_tiney'; did you mean darvit_tiny"):
        dartok.create_model("darvit_tiney")
    with pytest.raises(ValueError, match="unknown model 'resnet'; known: darmt_l6"):
        dartok.create_model("resnet")
    with pytest.raises(ValueError, match="no weights that timm can download"):
        timm.create_model("darvit_tiny", pretrained=True)
    with refused(
        "vim_tiny has no weights that timm can download; use "
        "dartok.create_model('vim_tiny', checkpoint=...) with the official file"
    ):
        timm.create_model("vim_tiny", pretrained=True)


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["vim_tiny", "videomamba_middle"])
@pytest.mark.parametrize(
    "options",
    [{"num_tokens": 3}, {"num_rows": 2}, {"score_size": 224}, {"scorer_weights": "imagenet"}],
)
def test_options_of_regions_are_refused_for_a_fixed_grid_with_the_remedy(name, options):
    with refused(
        f"{name} has a fixed grid and takes no {next(iter(options))}; use "
        f"dartok.adapt(dartok.create_model('{name}'), num_tokens=...)"
    ):
        dartok.create_model(name, **options)


@pytest.mark.refuses
def test_the_dials_refuse_a_model_without_a_tokenizer():
    with pytest.raises(ValueError, match="must hold a dartok tokenizer, got Linear"):
        dartok.set_strength(torch.nn.Linear(1, 1), 0.5)


@pytest.mark.refuses
def test_overlapping_patches_name_the_host_that_regions_can_be_put_on():
    with pytest.raises(ValueError, match="regions lie side by side; use 'vim_tiny'"):
        dartok.create_model("vim_tiny_stride8", num_tokens=196)
