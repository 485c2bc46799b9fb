"""Clips to tensors: all frames varied alike, clips and crops where they are said to be."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from torch.testing import assert_close

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.clips.transforms import blank_clip, eval_clip_transform, train_clip_transform
from dartok.data.transforms import eval_transform

PIXELS = PixelConfig(size_px=16, mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.2), crop_share=0.8)
WHOLE = PixelConfig(size_px=16, mean=(0.0,) * 3, std=(1.0,) * 3, crop_share=1.0)
PLAIN = AugmentConfig(min_crop=0.99, hflip=0.0)


class Painted:
    """A video of given frames `(T, H, W, 3)` that notes which are read."""

    name, fps = "painted", None

    def __init__(self, frames):
        self.pixels = torch.as_tensor(frames).permute(0, 3, 1, 2)
        self.num_frames, self.size = len(frames), tuple(frames.shape[1:3])
        self.asked = []

    def frames(self, indices):
        self.asked.append(list(indices))
        return self.pixels[list(indices)]


def noise(num_frames=40, height=24, width=36):
    return np.random.default_rng(0).integers(0, 256, (num_frames, height, width, 3)).astype("uint8")


def still(num_frames=40):
    return np.repeat(noise(1), num_frames, axis=0)


POLICIES = [
    {},
    {"color_jitter": 0.4},
    {"auto_augment": "rand-m9-mstd0.5-inc1"},
    {"auto_augment": "augmix-m5-w2"},
    {"random_erasing": 1.0},
]


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_all_frames_are_varied_alike_and_each_clip_anew(policy):
    transform = train_clip_transform(AugmentConfig(**policy), PIXELS, ClipConfig(num_frames=5))
    clips = [transform(Painted(still())) for _ in range(6)]
    for clip in clips:
        assert clip.shape == (5, 3, 16, 16)
        assert clip.dtype == torch.float32
        assert torch.equal(clip, clip[:1].expand_as(clip))
    assert len({clip.sum().item() for clip in clips}) == 6


def test_frames_are_flipped_together():
    flip = AugmentConfig(min_crop=0.99, hflip=0.5)
    transform = train_clip_transform(flip, WHOLE, ClipConfig(num_frames=4))
    ramp = np.zeros((40, 16, 16, 3), dtype=np.uint8)
    ramp[..., :] = np.arange(16, dtype=np.uint8)[:, None] * 16
    risings = []
    for _ in range(30):
        clip = transform(Painted(ramp))
        rising = clip[:, 0, 8, 15] > clip[:, 0, 8, 0]
        assert rising.unique().numel() == 1
        risings.append(bool(rising[0]))
    assert 5 < sum(risings) < 25


def test_a_clip_follows_the_global_seeds_and_leaves_pythons_alone():
    transform = train_clip_transform(
        AugmentConfig(auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5),
        PIXELS,
        ClipConfig(num_frames=3),
    )
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        state = random.getstate()
        made.append(transform(Painted(noise())))
        assert random.getstate() == state
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_only_the_frames_of_the_clips_are_read_each_once():
    video = Painted(noise())
    train_clip_transform(PLAIN, PIXELS, ClipConfig(num_frames=5))(video)
    assert [len(asked) for asked in video.asked] == [5]
    video.asked.clear()
    clip = ClipConfig(num_frames=6, sampling="dense", frame_stride=5, num_clips=4, num_crops=3)
    eval_clip_transform(PIXELS, clip)(video)
    (asked,) = video.asked
    assert asked == sorted(set(asked))
    assert len(asked) < 6 * 4


def test_frames_of_training_are_those_of_the_sampling():
    tones = np.repeat(np.arange(40, dtype=np.uint8), 24 * 36 * 3).reshape(40, 24, 36, 3)
    clip = train_clip_transform(PLAIN, WHOLE, ClipConfig(num_frames=8))(Painted(tones))
    levels = (clip.mean((1, 2, 3)) * 255).round().int()
    segments = levels // 5
    assert segments.tolist() == list(range(8))


def test_one_view_is_the_middle_of_the_frames_as_of_pictures():
    frames = noise()
    views = eval_clip_transform(PIXELS, ClipConfig(num_frames=4))(Painted(frames))
    assert views.shape == (1, 4, 3, 16, 16)
    expected = [eval_transform(PIXELS)(Image.fromarray(frames[i])) for i in (5, 15, 25, 35)]
    assert_close(views[0], torch.stack(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("upright", [False, True])
def test_three_crops_are_both_ends_and_the_middle_of_the_longer_side(upright):
    frames = noise(2, 16, 27)
    whole = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    expected = torch.stack([whole[..., left : left + 16] for left in (0, 5, 11)])
    if upright:
        frames, expected = frames.transpose(0, 2, 1, 3).copy(), expected.transpose(-1, -2)
    clip = ClipConfig(num_frames=2, num_crops=3)
    views = eval_clip_transform(WHOLE, clip)(Painted(frames))
    assert views.shape == (3, 2, 3, 16, 16)
    assert_close(views, expected, rtol=0, atol=1e-6)


def test_crops_of_a_margin_lie_in_the_middle_of_the_shorter_side():
    frames = noise(1, 20, 30)
    views = eval_clip_transform(
        PixelConfig(size_px=16, mean=(0.0,) * 3, std=(1.0,) * 3, crop_share=0.8),
        ClipConfig(num_frames=1, num_crops=2),
    )(Painted(frames))
    whole = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    expected = torch.stack([whole[..., 2:18, left : left + 16] for left in (0, 14)])
    assert_close(views, expected, rtol=0, atol=1e-6)


def test_views_are_the_crops_of_the_first_clip_then_of_the_next():
    frames = noise(30, 16, 27)
    clip = ClipConfig(num_frames=2, num_clips=2, num_crops=3)
    views = eval_clip_transform(WHOLE, clip)(Painted(frames))
    assert views.shape == (6, 2, 3, 16, 16)
    for number, shown in enumerate(([5, 20], [10, 25])):
        alone = eval_clip_transform(WHOLE, ClipConfig(num_frames=2, num_crops=3))
        expected = alone(Painted(frames[np.repeat(shown, 15)]))
        assert torch.equal(views[3 * number : 3 * number + 3], expected)


def test_a_short_video_gives_as_many_frames():
    for sampling in ("uniform", "dense"):
        clip = ClipConfig(num_frames=8, sampling=sampling, num_clips=2)
        assert train_clip_transform(PLAIN, PIXELS, clip)(Painted(noise(1))).shape[0] == 8
        assert eval_clip_transform(PIXELS, clip)(Painted(noise(3))).shape[:2] == (2, 8)


def test_a_blank_clip_has_the_shape_of_the_others():
    clip = ClipConfig(num_frames=4, num_clips=2, num_crops=3)
    assert blank_clip(train_clip_transform(PLAIN, PIXELS, clip)).shape == (1, 4, 3, 16, 16)
    assert blank_clip(eval_clip_transform(PIXELS, clip)).shape == (1, 6, 4, 3, 16, 16)


@pytest.mark.refuses
def test_what_is_not_done_for_clips_is_refused():
    with refused("on-device does not know clips, got True; drop --on-device"):
        train_clip_transform(AugmentConfig(on_device=True), PIXELS, ClipConfig())
    with pytest.raises(ValueError, match="auto-augment must be a policy of timm"):
        train_clip_transform(AugmentConfig(auto_augment="loud"), PIXELS, ClipConfig())
