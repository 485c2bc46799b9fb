"""`MotionScorer`: still parts of a clip score low, first frames and images as their base does."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dartok.scorers import EdgeScorer, MotionScorer, create_scorer
from dartok.scorers.build import build_scorer, scorer_options
from dartok.scorers.motion import novelty
from dartok.scorers.tokenizer import RegionTokenizer


def picture(seed: int = 0, size: tuple[int, int] = (96, 128)) -> torch.Tensor:
    """Smooth blobs over some grain."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 6, 8, generator=generator)
    smooth = nn.functional.interpolate(coarse, size, mode="bicubic")
    return smooth[0] + 0.05 * torch.randn(3, *size, generator=generator)


def still(num_frames: int) -> torch.Tensor:
    return picture().expand(1, num_frames, -1, -1, -1)


@pytest.mark.parametrize("base", ["conv", "edge", "detail", "uniform", "mobilenetv3_small"])
def test_images_and_first_frames_score_as_the_base_does(base):
    scorer = create_scorer(f"motion/{base}").eval()
    images = torch.stack([picture(seed) for seed in range(3)])
    assert torch.equal(scorer(images), scorer.base(images))
    clips = images[:, None]
    expected = scorer.base(clips) if getattr(scorer.base, "takes_clips", False) else None
    expected = scorer.base(images)[:, None] if expected is None else expected
    assert torch.equal(scorer(clips), expected)


def test_a_still_video_spends_a_floor_on_repeated_frames():
    scores = MotionScorer(EdgeScorer())(still(8)).sum((0, 2, 3))
    assert_close(scores[1:] / scores[0], torch.full((7,), 0.05), rtol=0, atol=1e-6)
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=140, scorer="motion/edge", patch_size=4)
    frames = tokenizer.regions(still(8)).centre_frames()[0]
    counts = torch.bincount(frames, minlength=8)
    assert counts[0] > 90
    assert counts[1:].max() <= 8
    assert counts[1:].min() >= 4


def test_only_the_place_that_changes_is_new():
    clip = still(3).clone()
    clip[:, 2, :, :48, :64] += picture(1)[:, :48, :64]
    found = novelty(clip)
    assert (found[:, 0] == 1).all()
    assert found[:, 1].max() < 0.0501
    height, width = found.shape[-2:]
    inside = found[:, 2, : height // 2, : width // 2]
    outside = found[:, 2, height // 2 + 1 :]
    assert inside.mean() > 0.8
    assert outside.max() < 0.0501


def test_over_a_base_of_one_score_per_frame_novelty_tells_places():
    clips = torch.stack([torch.stack([picture(seed) for seed in (0, 1)])])
    clips[:, :, :, :48] = picture(2)[:, :48]  # the upper half stands still
    scores = create_scorer("motion/uniform")(clips)
    assert scores.shape == novelty(clips).shape
    assert torch.equal(scores, novelty(clips))
    assert scores[0, 1, :5].max() < 0.06
    assert scores[0, 1, 8:].min() > 0.5


def test_noise_of_a_sensor_is_not_new():
    clip = still(2) + 0.02 * torch.randn(1, 2, 3, 96, 128)
    assert novelty(clip)[:, 1].max() < 0.1


def test_contrast_and_brightness_do_not_matter():
    clip = still(3).clone()
    clip[:, 1:] = torch.stack([picture(seed) for seed in (1, 2)])
    assert_close(novelty(0.3 * clip + 2), novelty(clip), rtol=0, atol=1e-4)


def test_a_frame_does_not_depend_on_later_ones():
    clip = torch.stack([picture(seed) for seed in range(4)])[None]
    changed = torch.cat([clip[:, :3], clip[:, 3:] + 1], dim=1)
    assert torch.equal(novelty(changed)[:, :3], novelty(clip)[:, :3])


def test_flat_frames_are_finite_and_old():
    found = novelty(torch.zeros(2, 3, 3, 32, 32))
    assert found.isfinite().all()
    assert_close(found[:, 1:], torch.full_like(found[:, 1:], 0.05))


@pytest.mark.parametrize("base", ["edge", "conv"])
def test_clips_of_one_frame_score_as_images_bit_for_bit(base):
    scorer, images = create_scorer(base), torch.randn(2, 3, 70, 90)
    assert torch.equal(scorer(images[:, None])[:, 0], scorer(images))


@pytest.mark.parametrize("scorer", ["edge", "conv", "motion/edge", "motion/conv"])
def test_flat_frames_of_a_clip_get_fewer_tokens_than_the_one_that_is_not(scorer):
    clip = torch.zeros(1, 16, 3, 64, 64)
    clip[:, 4] = picture(0, (64, 64))
    tokenizer = RegionTokenizer(embed_dim=4, num_tokens=160, scorer=scorer, patch_size=4)
    share = tokenizer.regions(clip).centre_frames().eq(4).double().mean()
    assert share > 0.5


def test_gradients_reach_the_gain_and_the_base():
    scorer = build_scorer("motion/conv")
    scorer(torch.randn(1, 3, 3, 64, 64)).log().sum().backward()
    assert scorer.gain.grad.abs() > 0
    assert scorer.base.gain.grad.abs() >= 0


def test_it_is_made_again_from_its_name_and_options():
    scorer = create_scorer("motion/conv", side_px=64)
    assert scorer_options(scorer) == {"name": "motion/conv", "side_px": 64}
    again = create_scorer(**scorer_options(scorer))
    again.load_state_dict(scorer.state_dict())
    clip = torch.randn(1, 3, 3, 80, 80)
    assert torch.equal(again(clip), scorer(clip))


@pytest.mark.refuses
@pytest.mark.parametrize("base", ["conv", "edge", "mobilenetv3_small"])
def test_a_file_holds_its_state_or_that_of_its_base(base, tmp_path):
    saved = create_scorer(f"motion/{base}")
    nn.init.constant_(saved.gain, 2.5)
    torch.save(saved.state_dict(), tmp_path / "whole.pth")
    again = build_scorer(f"motion/{base}", weights=tmp_path / "whole.pth")
    assert_close(again.state_dict(), saved.state_dict(), rtol=0, atol=0)
    if base == "edge":  # which has no state of its own
        return
    torch.save(saved.base.state_dict(), tmp_path / "base.pth")
    again = build_scorer(f"motion/{base}", weights=tmp_path / "base.pth")
    assert_close(again.base.state_dict(), saved.base.state_dict(), rtol=0, atol=0)
    assert again.gain.item() == 1


def test_weights_that_fit_neither_are_refused(tmp_path):
    torch.save(create_scorer("motion/conv").state_dict(), tmp_path / "conv.pth")
    with pytest.raises(ValueError, match=r"conv.pth does not fit EdgeScorer: unexpected: gain"):
        build_scorer("motion/edge", weights=tmp_path / "conv.pth")


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match=r"clips must be at least 8 px a side .* got 4 x 64 px"):
        novelty(torch.zeros(1, 2, 3, 4, 64))
    with pytest.raises(ValueError, match="unknown|must be"):
        create_scorer("motion/nothing")
