"""VideoMamba on regions of clips: the same function at the start, any size, length and budget."""

import copy

import pytest
import timm
import torch
from decays import decayed
from deterministic import spread
from refusals import refused
from torch.testing import assert_close

import dartok
from dartok.models.hosts import host_record
from dartok.models.mamba.region_video import RegionVideoVim
from dartok.models.mamba.video import VideoVim

VARIANTS = {
    "videomamba": {},
    "tubelets": {"tubelet_size": 2},
    "middle, mean": {"class_token": "middle", "merge": "mean"},
    "pooled": {"global_pool": "avg"},
    "forwards": {"directions": "forward", "class_token": "last"},
    "forwards, pooled": {"directions": "forward", "global_pool": "avg", "tubelet_size": 4},
}


def host(**options):
    usual = {"img_size": (32, 48), "num_frames": 4, "embed_dim": 24, "depth": 3, "num_classes": 5}
    return spread(VideoVim(**usual | options))


def clips(count=2, num_frames=4, size=(32, 48), dtype=torch.float32):
    return torch.randn(count, num_frames, 3, *size, dtype=dtype)


def relative(actual, expected):
    return float((actual - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("size", [(32, 48), (16, 80)])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_an_adapted_host_starts_as_the_same_function(variant, size, dtype):
    plain = host(img_size=size, depth=2, **VARIANTS[variant]).to(dtype)
    state = copy.deepcopy(plain.state_dict())
    model = dartok.adapt(plain)
    images = clips(size=size, dtype=dtype)
    assert type(model) is RegionVideoVim
    assert relative(model(images), plain(images)) < 1e-5
    assert relative(model.forward_features(images), plain.forward_features(images)) < 1e-5
    maps = [
        m.forward_intermediates(images, indices=[1], intermediates_only=True, norm=True)[0]
        for m in (model, plain)
    ]
    assert relative(*maps) < 1e-5
    assert type(plain) is VideoVim
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("lost", ["pos_embed", "time_embed"])
@torch.no_grad()
def test_the_check_of_adapt_sees_a_position_that_is_lost(lost, monkeypatch):
    from dartok.models.families import vim

    put_together = vim.attach_vim

    def careless(plain, embed):
        setattr(embed, lost, None)
        return put_together(plain, embed)

    monkeypatch.setattr(vim, "attach_vim", careless)
    with pytest.raises(ValueError, match="adapt cannot carry over VideoVim: on the fixed grid its"):
        dartok.adapt(host())


@pytest.mark.parametrize(
    ("num_frames", "size", "num_tokens"),
    [(4, (32, 48), 24), (8, (50, 70), 40), (2, (33, 140), 7), (12, (16, 16), 12)],
)
@torch.no_grad()
def test_any_clip_any_budget(num_frames, size, num_tokens):
    model = dartok.adapt(host(tubelet_size=2), num_tokens=num_tokens, scorer="edge", strength=1.0)
    images = clips(3, num_frames, size)
    features = model.forward_features(images)
    assert features.shape == (3, 1 + num_tokens, 24)
    assert features.isfinite().all()
    assert_close(model(images[1:]), model(images)[1:], rtol=1e-4, atol=1e-5)
    assert dartok.regions(model, images).num_frames == num_frames // 2


@torch.no_grad()
def test_tokens_flow_to_the_frame_that_matters():
    model = dartok.adapt(host(), num_tokens=40, scorer="edge", strength=1.0)
    images = clips(1) * torch.tensor([0.01, 1.0, 0.01, 0.01])[:, None, None, None]
    frames = dartok.regions(model, images).centre_frames()[0]
    assert int((frames == 1).sum()) > 20


@pytest.mark.parametrize("num_frames", [2, 4])
@torch.no_grad()
def test_maps_of_features_have_an_axis_of_steps(num_frames):
    model = dartok.adapt(host(tubelet_size=2), num_tokens=9, scorer="edge", strength=1.0)
    images = clips(2, num_frames, (48, 80))
    final, ((painted, prefix),) = model.forward_intermediates(
        images, indices=[2], norm=True, return_prefix_tokens=True
    )
    assert painted.shape == (2, 24, num_frames // 2, 3, 5)
    assert (final.shape, prefix.shape) == ((2, 10, 24), (2, 1, 24))
    regions = dartok.regions(model, images)
    assert_close(painted.flatten(2), regions.to_map(final[:, 1:], (3, 5)).flatten(2))


def test_gradients_reach_every_parameter_the_scorer_and_the_clip():
    plain = host(tubelet_size=2, global_pool="avg")
    model = dartok.adapt(plain, num_tokens=20, strength=1.0).train()
    images = clips(2).requires_grad_()
    model(images).square().sum().backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(2).abs().amax(-1) > 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.count_nonzero() > 0, name


def test_positions_in_time_are_the_tokenizers_and_not_decayed():
    plain = host()
    model = dartok.adapt(plain, num_tokens=12)
    assert model.temporal_pos_embedding is None
    assert model.pos_embed is None
    assert torch.equal(model.patch_embed.time_embed[0].T, plain.temporal_pos_embedding[0])
    expected = plain.cls_token + plain.pos_embed[:, :1]
    assert_close(model.cls_token, expected, rtol=0, atol=0)
    left = decayed(model)
    kept = {name for name, _ in model.named_parameters() if "pos_embed" in name or "time_" in name}
    assert kept == {"patch_embed.pos_embed", "patch_embed.time_embed"}
    assert not left & {*kept, "cls_token"}


def test_what_is_frozen_stays_so():
    model = dartok.adapt(host().requires_grad_(False), scorer="edge")
    assert not [name for name, value in model.named_parameters() if value.requires_grad]


@torch.no_grad()
def test_a_saved_model_comes_back_with_its_length(tmp_path):
    small = {"depth": 2, "img_size": (32, 48), "embed_dim": 24, "num_frames": 6}
    plain = spread(timm.create_model("videomamba_tiny_video", num_classes=3, **small))
    model = dartok.adapt(plain, num_tokens=20, scorer="edge", strength=1.0)
    dartok.save_pretrained(model, tmp_path / "saved")
    loaded = dartok.from_pretrained(tmp_path / "saved")
    images = clips(2, 6)
    assert type(loaded) is RegionVideoVim
    assert torch.equal(loaded(images), model.eval()(images))


def test_a_host_that_timm_did_not_create_tells_its_length_too():
    plain = host(num_frames=6, tubelet_size=2)
    plain.pretrained_cfg = {"architecture": "videomamba_tiny_video"}
    record = host_record(dartok.adapt(plain))
    assert record.name == "videomamba_tiny_video"
    assert record.args == {"img_size": [32, 48], "num_frames": 6, "tubelet_size": 2}


def test_the_size_is_noted_and_any_other_still_works():
    model = dartok.adapt(host(), num_tokens=16)
    model.set_input_size(img_size=(64, 80), num_frames=8)
    assert model.patch_embed.grid_size == (4, 5)
    assert model(clips(1, 8, (64, 80))).shape == (1, 5)


@pytest.mark.refuses
def test_a_clip_that_tubelets_do_not_fill_and_a_budget_for_each_are_refused():
    model = dartok.adapt(host(tubelet_size=2), num_tokens=20)
    with refused(
        "clips must have a multiple of 2 frames, as the model's tubelets, got 3; drop or repeat "
        "some"
    ):
        model(clips(1, 3))
    with pytest.raises(ValueError, match="num_tokens='auto' cannot be used in RegionVideoVim"):
        dartok.set_num_tokens(model, "auto")
