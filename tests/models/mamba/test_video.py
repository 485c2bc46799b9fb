"""VideoMamba for clips: its official layout, as it is written down, and at other lengths."""

import math

import mamba_oracles
import numpy as np
import pytest
import torch
from decays import decayed
from deterministic import fill, spread
from refusals import refused
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import dartok
from dartok.models.mamba.video import VideoVim, resampled_in_time
from dartok.models.named import build_named

SIZE = (32, 48)  # 6 patches


def small(**options):
    usual = {"img_size": SIZE, "num_frames": 4, "embed_dim": 24, "depth": 3, "num_classes": 5}
    return VideoVim(**usual | options)


def clips(count=2, num_frames=4, size=SIZE, dtype=torch.float32):
    return torch.randn(count, num_frames, 3, *size, dtype=dtype)


def official_layout(*, width, depth, num_frames=8, tubelet=1, num_classes=400):
    """Names and shapes of a checkpoint, as OpenGVLab/VideoMamba writes it.

    `videomamba/video_sm/models/videomamba.py` and `mamba/mamba_ssm/modules/mamba_simple.py` at
    commit 225c73d: pictures of 224 px, patches of 16, states of 16, an inner width of twice D, and
    a rank of D / 16.
    """
    inner, rank = 2 * width, math.ceil(width / 16)
    layout = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 14 * 14 + 1, width),
        "temporal_pos_embedding": (1, num_frames // tubelet, width),
        "patch_embed.proj.weight": (width, 3, tubelet, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm_f.weight": (width,),
        "head.weight": (num_classes, width),
        "head.bias": (num_classes,),
    }
    for layer in range(depth):
        layout |= {
            f"layers.{layer}.norm.weight": (width,),
            f"layers.{layer}.mixer.in_proj.weight": (2 * inner, width),
            f"layers.{layer}.mixer.out_proj.weight": (width, inner),
        }
        for suffix in ("", "_b"):
            layout |= {
                f"layers.{layer}.mixer.A{suffix}_log": (inner, 16),
                f"layers.{layer}.mixer.D{suffix}": (inner,),
                f"layers.{layer}.mixer.conv1d{suffix}.weight": (inner, 1, 4),
                f"layers.{layer}.mixer.conv1d{suffix}.bias": (inner,),
                f"layers.{layer}.mixer.x_proj{suffix}.weight": (rank + 2 * 16, inner),
                f"layers.{layer}.mixer.dt_proj{suffix}.weight": (inner, rank),
                f"layers.{layer}.mixer.dt_proj{suffix}.bias": (inner,),
            }
    return layout


OFFICIAL = {"tiny": (192, 24), "small": (384, 24), "middle": (576, 32)}  # width, depth


@pytest.mark.parametrize("size", OFFICIAL)
@pytest.mark.parametrize(("num_frames", "tubelet"), [(8, 1), (64, 1), (16, 2)])
def test_the_layout_is_the_official_one(size, num_frames, tubelet):
    width, depth = OFFICIAL[size]
    lengths = {"num_frames": num_frames, "tubelet_size": tubelet}
    with torch.device("meta"):
        state = build_named(f"videomamba_{size}_video", **lengths).state_dict()
    expected = official_layout(width=width, depth=depth, num_frames=num_frames, tubelet=tubelet)
    assert {name: tuple(value.shape) for name, value in state.items()} == expected


def test_by_name_the_usual_numbers_of_frames_and_classes_are_those_of_kinetics():
    with torch.device("meta"):
        found = build_named("videomamba_tiny_video").state_dict()
    assert {k: tuple(v.shape) for k, v in found.items()} == official_layout(width=192, depth=24)


def oracle_features(model, images, *, tubelet, place, halve=False):
    """Every token behind the last norm, the class token first; one clip at a time."""
    w = mamba_oracles.weights_of(model)
    kernel = model.patch_embed.proj.weight
    stride = (tubelet, 16, 16)
    found = []
    for image in images:
        frames_second = image.permute(1, 0, 2, 3)[None]
        cells = F.conv3d(frames_second, kernel, model.patch_embed.proj.bias, stride)[0].numpy()
        tokens = []
        for step in range(cells.shape[1]):
            for row in range(cells.shape[2]):
                for column in range(cells.shape[3]):
                    number = row * cells.shape[3] + column
                    where = w["pos_embed"][0, 1 + number]
                    when = w["temporal_pos_embedding"][0, step]
                    tokens.append(cells[:, step, row, column] + where + when)
        one = w["cls_token"][0, 0] + w["pos_embed"][0, 0]
        sequence = np.stack([*tokens[:place], one, *tokens[place:]])
        out = mamba_oracles.encoder(w, sequence, depth=len(model.layers), halve=halve)
        found.append(np.concatenate([out[place : place + 1], np.delete(out, place, axis=0)]))
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize("tubelet", [1, 2])
@pytest.mark.parametrize("class_token", ["first", "middle", "last"])
@torch.no_grad()
def test_features_and_logits_are_those_of_the_oracle(tubelet, class_token):
    model = fill(small(tubelet_size=tubelet, class_token=class_token))
    model.temporal_pos_embedding.normal_()
    images = clips(dtype=torch.float64)
    count = 24 // tubelet
    place = {"first": 0, "middle": count // 2, "last": count}[class_token]
    expected = oracle_features(model, images, tubelet=tubelet, place=place)
    assert_close(model.forward_features(images), expected, rtol=0, atol=1e-10)
    assert_close(model(images), model.head(expected[:, 0]), rtol=0, atol=1e-10)
    logits = model.float()(images.float()).double()
    assert_close(logits, model.double().head(expected[:, 0]), rtol=0, atol=5e-5)


@pytest.mark.parametrize("tubelet", [1, 2])
@torch.no_grad()
def test_intermediates_are_maps_of_each_step(tubelet):
    model = fill(small(tubelet_size=tubelet))
    images = clips(dtype=torch.float64)
    final, ((painted, prefix),) = model.forward_intermediates(
        images, indices=[2], norm=True, return_prefix_tokens=True
    )
    assert torch.equal(final, model.forward_features(images))
    assert painted.shape == (2, 24, 4 // tubelet, 2, 3)
    assert torch.equal(painted.flatten(2).transpose(1, 2), final[:, 1:])
    assert torch.equal(prefix, final[:, :1])


@torch.no_grad()
def test_a_clip_is_not_changed_by_its_batch_mates():
    model, images = fill(small()), clips(3, dtype=torch.float64)
    assert_close(model(images)[1:2], model(images[1:2]), rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_mean_is_taken_over_all_steps():
    model, images = spread(small(global_pool="avg")), clips()
    features = model.forward_features(images)
    assert features.shape == (2, 25, 24)
    assert_close(model(images), model.head(features[:, 1:].mean(1)))


@torch.no_grad()
def test_another_number_of_frames_resamples_the_positions_in_time_linearly():
    model = fill(small())
    before = model.temporal_pos_embedding.clone()
    model.set_input_size(num_frames=8)
    found = model.temporal_pos_embedding
    middles = (np.arange(8) + 0.5) / 8 * 4 - 0.5  # in steps of the old clip
    expected = [np.interp(middles, np.arange(4), channel) for channel in before[0].numpy().T]
    assert_close(found[0], torch.from_numpy(np.stack(expected, axis=1)), rtol=0, atol=1e-12)
    assert model(clips(1, 8, dtype=torch.float64)).shape == (1, 5)
    kept = model.temporal_pos_embedding
    model.set_input_size(num_frames=8)
    assert model.temporal_pos_embedding is kept


@torch.no_grad()
def test_another_size_resamples_the_positions_in_space_alone():
    for class_token in ("first", "middle", "last"):
        model = fill(small(class_token=class_token))
        one, times = model.pos_embed[:, :1].clone(), model.temporal_pos_embedding
        model.set_input_size((64, 32))
        assert model.pos_embed.shape == (1, 9, 24)
        assert torch.equal(model.pos_embed[:, :1], one)
        assert model.temporal_pos_embedding is times
        assert model(clips(1, size=(64, 32), dtype=torch.float64)).shape == (1, 5)


def test_what_is_frozen_stays_so():
    model = small().requires_grad_(False)
    model.set_input_size((64, 64), num_frames=6)
    assert not [name for name, value in model.named_parameters() if value.requires_grad]
    half = resampled_in_time(torch.zeros(1, 2, 3, dtype=torch.bfloat16), 5)
    assert (half.dtype, half.shape) == (torch.bfloat16, (1, 5, 3))


def test_no_position_in_time_is_decayed():
    left = decayed(small())
    assert not left & {"cls_token", "pos_embed", "temporal_pos_embedding"}
    assert not [name for name in left if name.endswith(("A_log", "A_b_log", ".D", ".D_b"))]


def test_forwards_there_is_nothing_to_read_backwards():
    model = small(directions="forward", class_token="last")
    assert not [name for name in model.state_dict() if "_b" in name.replace("bias", "")]
    assert not decayed(model) & model.no_weight_decay()
    assert {f"layers.{i}.mixer.{name}" for i in range(3) for name in ("A_log", "D")} <= set(
        model.no_weight_decay()
    )
    dartok.set_scan(model, "associative")
    assert {block.mixer.scan for block in model.layers} == {"associative"}


@torch.no_grad()
def test_weights_outside_the_mixers_start_as_vims_and_times_at_0():
    model = VideoVim(img_size=64, num_frames=2, tubelet_size=2, embed_dim=256, depth=1)
    assert model.temporal_pos_embedding.count_nonzero() == 0
    assert model.patch_embed.proj.bias.count_nonzero() == 0
    assert float(model.patch_embed.proj.weight.std()) == pytest.approx(1536**-0.5, rel=0.02)


@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_half_precision_is_close(autocast):
    """Relative 3e-2: bfloat16 rounds to 4e-3."""
    model, images = spread(small()).eval(), clips()
    expected = model(images)
    if not autocast:
        model, images = model.bfloat16(), images.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        logits = model(images)
    assert logits.dtype == torch.bfloat16
    assert float((logits.float() - expected).norm() / expected.norm()) < 3e-2


def test_every_parameter_learns():
    """Also the last block's: a first class token, read alone, needs no state read forwards."""
    model = spread(small(tubelet_size=2, global_pool="avg")).train()
    model(clips()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.count_nonzero() > 0, name


@torch.no_grad()
def test_checkpointing_a_clip_changes_nothing():
    model, images = fill(small()), clips(dtype=torch.float64)
    expected = model(images)
    model.set_grad_checkpointing()
    with torch.enable_grad():
        assert_close(model(images), expected)


@pytest.mark.refuses
@pytest.mark.parametrize(
    "shape", [(2, 3, *SIZE), (2, 8, 3, *SIZE), (2, 4, 3, 48, 32), (2, 3, 4, *SIZE)]
)
def test_clips_of_another_shape_are_refused(shape):
    with refused(
        f"clips must be (B, T, C, H, W) with (T, C, H, W) = (4, 3, 32, 48), as the model, got "
        f"{shape}; call set_input_size(img_size, num_frames)"
    ):
        small()(torch.randn(shape))


@pytest.mark.refuses
def test_what_cannot_be_built_is_refused():
    with refused("num_frames must be a multiple of tubelet_size=2, got 5"):
        small(num_frames=5, tubelet_size=2)
    with refused("tubelet_size must be >= 1, got 0"):
        small(tubelet_size=0)
    with refused("num_frames must be a whole number, got 2.5"):
        small().set_input_size(num_frames=2.5)
    with refused(
        "img_size must be multiples of the patch of (16, 16) px, got (40, 48); resize the frames"
    ):
        small(img_size=(40, 48))
    with refused(
        "directions='forward' needs class_token='last' or global_pool='avg': a token sees those "
        "before it, got class_token='first'"
    ):
        small(directions="forward")
    with pytest.raises(TypeError, match="unexpected keyword argument 'num_frame'"):
        small(num_frame=4)


def test_a_head_of_its_own_width_follows_dropout():
    model = small(drop_rate=0.5)
    assert isinstance(model.head_drop, nn.Dropout)
    model.reset_classifier(7, "avg")
    assert model(clips()).shape == (2, 7)
