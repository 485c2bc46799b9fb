"""Checkpoints for pictures in a host of clips, and those for clips of another length."""

import pytest
import torch
from deterministic import fill, spread
from refusals import refused
from torch.testing import assert_close

import dartok
from dartok.models import convert_checkpoint
from dartok.models.checkpoints import load_checkpoint
from dartok.models.mamba.inflation import (
    fitted_in_time,
    inflate_checkpoint,
    inflated,
    video_options,
)
from dartok.models.mamba.video import VideoVim
from dartok.models.mamba.vim import Vim
from dartok.models.named import build_named

SMALL = {"img_size": (32, 48), "embed_dim": 24, "depth": 2}


def of_pictures():
    return fill(Vim(**SMALL, class_token="first", merge="sum", num_classes=1000))


def of_clips(**options):
    return VideoVim(**SMALL, num_classes=5, **options).double().eval()


@pytest.mark.parametrize("how", ["centre", "average"])
@torch.no_grad()
def test_of_one_frame_the_inflated_host_is_the_host_for_pictures(how):
    pictures, model = of_pictures(), of_clips(num_frames=1)
    model.load_state_dict(inflated(pictures.state_dict(), model, how=how))
    images = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    expected = pictures.forward_features(images)
    assert_close(model.forward_features(images[:, None]), expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_step_looks_like_its_middle_frame_or_like_the_mean_of_its_frames():
    pictures, model = of_pictures(), of_clips(num_frames=6, tubelet_size=3)
    images = torch.randn(2, 6, 3, 32, 48, dtype=torch.float64)
    frames = images.unflatten(1, (2, 3))
    for how, seen in (("centre", frames[:, :, 1]), ("average", frames.mean(2))):
        model.load_state_dict(inflated(pictures.state_dict(), model, how=how))
        expected = pictures.patch_embed(seen.flatten(0, 1)).unflatten(0, (2, 2))
        assert_close(model.patch_embed(images), expected, rtol=0, atol=1e-12)
    model = of_clips(num_frames=4, tubelet_size=2)
    model.load_state_dict(inflated(pictures.state_dict(), model))
    expected = pictures.patch_embed(images[0, [1, 3]])
    assert_close(model.patch_embed(images[:1, :4])[0], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_head_and_times_stay_the_video_hosts_own():
    pictures, model = of_pictures(), fill(of_clips())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = inflated(pictures.state_dict(), model)
    for key in ("head.weight", "head.bias", "temporal_pos_embedding"):
        assert torch.equal(state[key], before[key])
    assert torch.equal(state["pos_embed"], pictures.pos_embed)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@torch.no_grad()
def test_a_file_is_inflated_strictly(tmp_path):
    torch.save({"model": of_pictures().state_dict()}, tmp_path / "a.pth")
    model = of_clips()
    inflate_checkpoint(model, tmp_path / "a.pth")
    assert torch.equal(model.pos_embed, of_pictures().pos_embed)
    wide = VideoVim(img_size=(32, 48), embed_dim=32, depth=2)
    with pytest.raises(ValueError, match=r"a.pth inflated does not fit VideoVim: misshapen: cls_t"):
        inflate_checkpoint(wide, tmp_path / "a.pth")


def kept(num_frames):
    state = build_named("videomamba_tiny_video", num_frames=num_frames).state_dict()
    return {key: torch.randn_like(v) if "temporal" in key else v for key, v in state.items()}


def test_an_official_checkpoint_loads_as_it_is_at_its_own_length(tmp_path):
    state = kept(16)
    torch.save({"model": state}, tmp_path / "f16.pth")
    model = dartok.create_model(
        "videomamba_tiny_video", num_frames=16, checkpoint=tmp_path / "f16.pth"
    )
    assert not model.training
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    name = convert_checkpoint(tmp_path / "f16.pth", tmp_path / "c.safetensors")
    assert name == "videomamba_tiny_video"
    again = dartok.create_model(name, num_frames=16, checkpoint=tmp_path / "c.safetensors")
    assert all(torch.equal(state[key], value) for key, value in again.state_dict().items())


def test_of_another_length_its_times_are_resampled_and_it_is_said(tmp_path):
    state = kept(16)
    torch.save(state, tmp_path / "f16.pth")
    with pytest.warns(UserWarning, match="of 16 steps are resampled to 8; num_frames=16 keeps the"):
        model = dartok.create_model("videomamba_tiny_video", checkpoint=tmp_path / "f16.pth")
    pairs = state["temporal_pos_embedding"].unflatten(1, (8, 2))
    assert_close(model.temporal_pos_embedding, pairs.mean(2))


@torch.no_grad()
def test_an_adapted_host_takes_its_hosts_checkpoint(tmp_path):
    from dartok.models.checkpoints import load_checkpoint

    shape = {"num_frames": 4, "img_size": (32, 48), "depth": 2}
    host, other = (build_named("videomamba_tiny_video", **shape).eval() for _ in range(2))
    torch.save(spread(host).state_dict(), tmp_path / "a.pth")
    model = dartok.adapt(other)
    load_checkpoint(model, tmp_path / "a.pth", name="videomamba_tiny_video")
    images = torch.randn(1, 4, 3, 32, 48)
    expected = host(images)
    assert float((model(images) - expected).norm() / expected.norm()) < 1e-5


def test_a_checkpoint_tells_frames_and_tubelet():
    host = of_clips(num_frames=6, tubelet_size=3)
    assert video_options(host.state_dict()) == {"num_frames": 6, "tubelet_size": 3}
    assert video_options(of_pictures().state_dict()) == {}
    same = fitted_in_time(host.state_dict(), 2, source="a.pth")
    assert torch.equal(same["temporal_pos_embedding"], host.temporal_pos_embedding)


@pytest.mark.refuses
def test_what_is_not_of_pictures_is_refused():
    model = of_clips()
    with refused(
        "state must be of a videomamba_* for pictures, with a patch_embed.proj.weight (D, C, h, w),"
        " got one of shape (24, 3, 1, 16, 16); load a video checkpoint with dartok.create_model"
    ):
        inflated(model.state_dict(), model)
    with pytest.raises(ValueError, match="got none; load a video checkpoint"):
        inflated({}, model)
    with refused("how must be one of centre, average, got 'center'"):
        inflated(of_pictures().state_dict(), model, how="center")


@pytest.mark.refuses
def test_frames_are_refused_for_pictures_and_regions_for_a_grid():
    with refused(
        "vim_tiny is made for pictures and takes no num_frames; use one of videomamba_tiny_video, "
        "videomamba_small_video, videomamba_middle_video"
    ):
        dartok.create_model("vim_tiny", num_frames=8)
    with refused(
        "videomamba_tiny_video has a fixed grid and takes no num_tokens; use "
        "dartok.adapt(dartok.create_model('videomamba_tiny_video'), num_tokens=...)"
    ):
        dartok.create_model("videomamba_tiny_video", num_tokens=300)


@pytest.mark.slow
@pytest.mark.parametrize("on_regions", [False, True])
def test_training_starts_a_video_host_from_that_for_pictures(tmp_path, on_regions):
    pictures = dartok.create_model("videomamba_tiny", num_classes=7)
    path = tmp_path / "pictures.pth"
    torch.save({"model": pictures.state_dict()}, path)
    model = dartok.create_model("videomamba_tiny_video", num_classes=5, num_frames=4)
    if on_regions:
        model = dartok.adapt(model, num_tokens=20)
    head, positions = model.head.weight.clone(), pictures.pos_embed
    with pytest.warns(UserWarning, match="start"):
        load_checkpoint(model, path, name="videomamba_tiny_video", any_head=True)
    assert torch.equal(model.head.weight, head)
    assert torch.equal(model.layers[3].norm.weight, pictures.layers[3].norm.weight)
    assert torch.equal(model.patch_embed.proj.weight[:, :, 0], pictures.patch_embed.proj.weight)
    if on_regions:
        expected = positions[:, 1:].transpose(1, 2).unflatten(2, (14, 14))
        assert torch.equal(model.patch_embed.pos_embed, expected)
        assert not model.patch_embed.time_embed.any()
    else:
        assert torch.equal(model.pos_embed, positions)
    with pytest.raises(ValueError, match="does not fit|checkpoint"):
        load_checkpoint(model, path, name="videomamba_tiny_video")
