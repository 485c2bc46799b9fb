"""Hosts of images as models of clips: one frame is the image, more frames share one budget."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

import dartok
from dartok.models.dials import tokenizer_of
from dartok.models.hosts import adapted_host

HOSTS = [
    "test_vit",
    "deit_tiny_distilled_patch16_224",
    "eva02_tiny_patch14_224",
    "beit_base_patch16_224",
    "vit_relpos_small_patch16_224",
]


def host_of(name: str) -> nn.Module:
    small = {} if name == "test_vit" else {"depth": 2}
    return timm.create_model(name, num_classes=5, **small).eval()


@pytest.mark.parametrize("name", HOSTS)
def test_one_frame_is_the_image_and_more_share_one_budget(name):
    model = dartok.adapt(host_of(name), num_frames=4, num_tokens=30, strength=1.0)
    images = torch.randn(2, 3, 96, 128)
    with torch.no_grad():
        assert torch.equal(model(images[:, None]), model(images))
        clips = torch.randn(2, 4, 3, 96, 128)
        assert model(clips).shape == (2, 5)
        regions = dartok.regions(model, clips)
        maps = model.forward_intermediates(clips, indices=1, intermediates_only=True)[0]
    assert (regions.num_frames, regions.num_tokens) == (4, 30)
    assert maps.shape[2] == 4


def test_an_odd_grid_and_bounds_that_one_frame_could_not_keep_are_carried_over():
    host = timm.create_model("test_vit", img_size=112, num_classes=5).eval()
    model = dartok.adapt(host, num_frames=3, scorer="uniform", partition="grid")
    assert model(torch.randn(1, 3, 3, 112, 112)).shape == (1, 5)
    dartok.adapt(host_of("test_vit"), num_frames=4, num_tokens=1600, max_region=0.06)


def test_the_budget_of_a_host_is_that_of_all_frames():
    model = dartok.adapt(host_of("test_vit"), num_frames=4)
    assert tokenizer_of(model).num_tokens == 4 * 100


def test_at_strength_0_tokens_are_those_of_each_frame_and_their_time():
    model = dartok.adapt(host_of("test_vit"), num_frames=3)
    embed = tokenizer_of(model)
    nn.init.normal_(embed.time_embed)
    clips = torch.randn(1, 3, 3, 160, 160)
    with torch.no_grad():
        together = embed(clips).unflatten(1, (3, 100))
        with embed.at_num_tokens(100):
            alone = torch.stack([embed.embed(f, embed.regions(f)) for f in clips.unbind(1)], 1)
    times = embed.time_embed[0].T[None, :, None]
    middle = embed.time_embed[..., 1]  # what an image gets of three steps
    assert_close(together, alone - middle[:, None] + times, rtol=0, atol=1e-4)


def test_times_matter_only_once_they_are_learnt():
    model = dartok.adapt(host_of("test_vit"), num_frames=3, num_tokens=60)
    clips = torch.randn(1, 3, 3, 160, 160)
    with torch.no_grad():
        forwards, backwards = model(clips), model(clips.flip(1))
        assert_close(forwards, backwards, rtol=0, atol=1e-4)  # attention does not know the order
        nn.init.normal_(tokenizer_of(model).time_embed, std=2.0)
        assert (model(clips) - model(clips.flip(1))).abs().max() > 1e-3


def test_gradients_reach_times_and_are_not_decayed():
    model = dartok.adapt(host_of("test_vit"), num_frames=3, num_tokens=60, strength=1.0)
    model(torch.randn(1, 3, 3, 96, 96)).square().sum().backward()
    assert model.patch_embed.time_embed.grad.abs().sum() > 0
    assert "patch_embed.time_embed" in model.no_weight_decay()


def test_it_is_saved_and_built_again(tmp_path):
    model = adapted_host(
        host="test_vit", num_frames=4, num_tokens=30, scorer="motion/conv", num_classes=5
    ).eval()
    dartok.save_pretrained(model, tmp_path / "saved")
    again = dartok.from_pretrained(f"local-dir:{tmp_path / 'saved'}").eval()
    clips = torch.randn(1, 4, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(again(clips), model(clips))


@pytest.mark.refuses
def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="num_frames must be"):
        dartok.adapt(host_of("test_vit"), num_frames=0)
    host = dartok.create_model("videomamba_tiny_video", num_frames=4)
    with pytest.raises(ValueError, match="is for hosts of images, got 8 for VideoVim, whose"):
        dartok.adapt(host, num_frames=8)
    model = dartok.adapt(host_of("test_vit"), num_frames=4)
    dartok.set_num_tokens(model, "auto")
    with pytest.raises(ValueError, match="num_tokens='auto' is for images, got it for clips"):
        model(torch.randn(1, 4, 3, 96, 96))
