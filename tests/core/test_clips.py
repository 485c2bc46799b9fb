"""Clips: one strip and one budget for all frames; with one frame everything is the image path."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.core.overlap import overlap_lengths
from dartok.core.partition import default_num_rows, flow_partition
from dartok.core.positions import position_map, resample_time
from dartok.core.regions import Regions
from dartok.core.steering import Steering
from dartok.core.tokenizer import Tokenizer


class Brightness(nn.Module):
    """Scores of each picture alone."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(images.square().mean(1), (5, 6)) + 0.05


class OfClips(nn.Module):
    """Scores that look at all frames."""

    takes_clips = True

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        energy = images.square().mean(-3)
        return F.avg_pool2d(energy, 4) / energy.mean() + 0.05


def tokenizer(proj: nn.Module | None = None, **options) -> Tokenizer:
    proj = nn.Conv2d(3, 6, (4, 4), (4, 4)) if proj is None else proj
    return Tokenizer(**{"scorer": Brightness(), "proj": proj, "num_tokens": 12, **options})


def clip(num_frames: int, *, batch: int = 2, size: tuple[int, int] = (24, 32)) -> torch.Tensor:
    return torch.randn(batch, num_frames, 3, *size)


OPTIONS = [
    {},
    {"partition": "grid", "num_rows": 3},
    {"sampling": "corner"},
    {"oversample": 2, "antialias": True, "size_embedding": True},
    {"positions": torch.randn(1, 6, 5, 4), "min_region": 0.02},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_with_one_frame_everything_equals_the_image_path_bit_for_bit(options):
    module, clips = tokenizer(**options), clip(1)
    if module.size_embed is not None:
        nn.init.normal_(module.size_embed.out.weight)
    of_clip, of_image = module(clips), module(clips[:, 0])
    assert torch.equal(of_clip.tokens, of_image.tokens)
    assert torch.equal(of_clip.regions.row_edges, of_image.regions.row_edges)
    assert torch.equal(of_clip.regions.strip_edges, of_image.regions.strip_edges)
    size = (7, 9)
    maps = [found.regions.to_map(found.tokens, size) for found in (of_clip, of_image)]
    assert torch.equal(*maps)
    assert maps[0].shape == (2, 6, *size)


@pytest.mark.parametrize("partition", ["flow", "grid"])
def test_gradients_reach_the_scores_pixels_and_positions_of_a_clip(partition):
    class Given(nn.Module):
        takes_clips = True

        def __init__(self) -> None:
            super().__init__()
            self.scores = torch.empty(0)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.scores

    scorer = Given()
    module = tokenizer(
        nn.Conv2d(2, 4, 3, 3),
        scorer=scorer,
        num_tokens=6,
        num_rows=2 if partition == "flow" else 1,
        partition=partition,
        positions=torch.randn(1, 4, 2, 2),
        time_positions=torch.randn(1, 4, 3),
    ).double()
    # A picture linear in x and y between its pixels' centres has no kinks where it is sampled.
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(14.0), indexing="ij")
    frames = torch.stack([(t + 1) * x + (2 - t) * y + c for t in range(3) for c in range(2)])
    images = frames.view(1, 3, 2, 12, 14).double()

    def tokens(scores, positions, times):
        scorer.scores = scores
        named = {"pos_embed": positions, "time_embed": times}
        return torch.func.functional_call(module, named, (images,)).tokens

    inputs = (
        (torch.rand(1, 3, 3, 4, dtype=torch.float64) + 0.3).requires_grad_(),
        torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True),
        torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True),
    )
    assert torch.autograd.gradcheck(tokens, inputs, eps=1e-7, atol=1e-4)


@given(
    num_frames=st.integers(1, 24),
    extra=st.one_of(st.integers(0, 40), st.integers(0, 4072)),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_the_budget_is_exact_for_every_number_from_one_per_frame_to_4096(num_frames, extra, seed):
    num_tokens = min(4096, num_frames + extra)
    torch.manual_seed(seed)
    scores = torch.rand(1, num_frames, 6, 7) ** 4 + 1e-3
    rows = default_num_rows(num_tokens, 24, 32, num_frames=num_frames)
    regions = flow_partition(scores, num_tokens=num_tokens, num_rows=rows)
    assert regions.num_tokens == num_tokens
    assert regions.num_frames == num_frames
    assert (regions.strip_edges.diff() > 0).all()
    assert_close(regions.areas().sum(-1), torch.ones(1, dtype=torch.float64), rtol=0, atol=1e-9)
    module = tokenizer(num_tokens=num_tokens)
    assert module(clip(num_frames, batch=1, size=(8, 8))).tokens.shape == (1, num_tokens, 6)


def test_a_permutation_of_the_clips_of_a_batch_permutes_their_tokens():
    module, clips = tokenizer(num_tokens=30), clip(4, batch=5)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_close(module(clips[order]).tokens, module(clips).tokens[order], rtol=0, atol=1e-6)
    alone = torch.cat([module(each[None]).tokens for each in clips])
    assert_close(alone, module(clips).tokens, rtol=0, atol=1e-6)


def test_frames_are_scored_alone_unless_the_scorer_takes_clips():
    module, clips = tokenizer(), clip(3)
    assert torch.equal(module.scores(clips)[:, 1], module.scores(clips[:, 1]))
    module = tokenizer(scorer=OfClips())
    brighter = torch.cat([clips[:, :2], 3 * clips[:, 2:]], dim=1)
    assert not torch.equal(module.scores(clips)[:, 0], module.scores(brighter)[:, 0])


def test_the_only_frame_with_information_gets_most_tokens(record_property):
    clips = 0.05 * clip(8, batch=3)
    clips[:, 5] *= 40
    module = tokenizer(num_tokens=200)
    share = module.regions(clips).centre_frames().eq(5).double().mean().item()
    record_property("share of the tokens in one frame of eight", share)
    assert share > 0.9


def test_at_strength_0_the_tokens_of_tubelets_are_those_of_the_convolution():
    proj = nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4)).double()
    module = tokenizer(
        proj,
        num_tokens=3 * 6 * 8,
        positions=torch.randn(1, 6, 6, 8),
        time_positions=torch.randn(1, 6, 3),
        strength=0.0,
    ).double()
    clips = clip(6).double()
    expected = module.proj(clips.transpose(1, 2)) + module.pos_embed.unsqueeze(2)
    expected = expected + module.time_embed[..., None, None]
    tokens, regions = module(clips)
    assert (module.tubelet, regions.num_frames) == (2, 3)
    assert_close(tokens, expected.flatten(2).transpose(1, 2), rtol=0, atol=1e-12)
    assert_close(regions.to_map(tokens, (6, 8)), expected, rtol=0, atol=1e-12)


def test_a_tubelet_is_sampled_at_one_place_in_each_of_its_frames():
    """With weights that read one of the two frames, tokens are those of that frame's regions."""
    both = tokenizer(nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4), bias=False), num_tokens=20)
    one = tokenizer(nn.Conv2d(3, 6, 4, 4, bias=False), num_tokens=20)
    clips = clip(4)
    for which in range(2):
        with torch.no_grad():
            both.proj.weight.zero_()
            both.proj.weight[:, :, which] = one.proj.weight
        tokens, regions = both(clips)
        alone = one.embed(clips[:, which::2], regions)
        assert_close(tokens, alone, rtol=0, atol=1e-5)


def test_the_score_of_a_tubelet_is_the_mean_of_its_frames():
    module, clips = tokenizer(nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4)), num_tokens=20), clip(4)
    means = module.scores(clips).unflatten(1, (2, 2)).mean(2)
    expected = flow_partition(means, num_tokens=20, num_rows=module.regions(clips).num_rows)
    assert_close(tuple(module.regions(clips))[:2], tuple(expected)[:2], rtol=0, atol=1e-12)


@given(
    num_frames=st.integers(2, 5),
    num_rows=st.integers(1, 4),
    num_tokens=st.integers(4, 60),
    size=st.tuples(st.integers(1, 6), st.integers(1, 7)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=60, deadline=None)
def test_pooling_over_clips_is_the_mean_by_overlap(
    num_frames, num_rows, num_tokens, size, dtype, seed
):
    """Against the product of overlaps, which shares nothing with running sums."""
    torch.manual_seed(seed)
    scores = torch.rand(2, num_frames, 5, 4) ** 3 + 1e-3
    regions = flow_partition(scores, num_tokens=num_tokens, num_rows=num_rows)
    values = torch.randn(2, 3, num_frames, *size, dtype=dtype)
    down = overlap_lengths(regions.row_edges, size[0], 1 / size[0])
    num_cells = num_frames * num_rows * size[1]
    along = overlap_lengths(regions.strip_edges, num_cells, 1 / size[1])
    along = along.unflatten(2, (num_frames, num_rows, size[1]))
    mass = torch.einsum("bntrw,btrh->bnthw", along, down)
    expected = torch.einsum("bnthw,bcthw->bnc", mass, values.double())
    expected = expected / mass.sum((2, 3, 4)).unsqueeze(-1)
    tolerance = 1e-6 if dtype == torch.float32 else 1e-9
    assert regions.to_tokens(values).dtype == dtype
    assert_close(regions.to_tokens(values).double(), expected, rtol=tolerance, atol=tolerance)


def test_pooling_and_painting_of_clips_are_adjoint_by_area():
    scores = torch.rand(1, 3, 5, 4) + 0.01
    regions = flow_partition(scores, num_tokens=23, num_rows=3)
    tokens = torch.randn(1, 23, 2, dtype=torch.float64)
    values = torch.randn(1, 2, 3, 4, 5, dtype=torch.float64)
    painted = (regions.to_map(tokens, (4, 5)) * values).mean((0, 2, 3, 4))
    pooled = (regions.areas().unsqueeze(-1) * tokens * regions.to_tokens(values)).sum((0, 1))
    assert_close(painted, pooled, rtol=0, atol=1e-12)


def test_positions_of_other_numbers_of_steps_are_linear_between():
    times = torch.tensor([[[0.0, 1.0, 2.0, 3.0]]])
    assert resample_time(times, 4) is times
    assert_close(resample_time(times, 2), torch.tensor([[[0.5, 2.5]]]))
    middle = resample_time(times, 8)[0, 0, 1:-1]
    assert_close(middle.diff(), torch.full((5,), 0.5))


def test_positions_of_images_without_time_are_left_alone():
    spatial = torch.randn(1, 2, 3, 3)
    assert position_map(spatial, None, 1) is spatial
    assert position_map(None, None, 4) is None
    assert position_map(None, torch.randn(1, 2, 4), 4).shape == (1, 2, 4, 1, 1)


@pytest.mark.refuses
def test_clips_that_do_not_fit_are_refused():
    module = tokenizer(nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4)))
    with pytest.raises(ValueError, match="clips must have a multiple of 2 frames, as the model's"):
        module(clip(3))
    with pytest.raises(ValueError, match="multiple of 2 frames, .* got 1; drop or repeat some"):
        module(clip(1)[:, 0])
    with pytest.raises(ValueError, match="images must have 3 channels, as the model, got 2"):
        module(clip(2)[:, :, :2])
    with pytest.raises(ValueError, match="steering is for images, got it for clips"):
        module.regions(clip(2), Steering(torch.ones(1, 4, 4)))
    wrong = tokenizer(scorer=OfClips())
    wrong.scorer.forward = lambda images: torch.ones(2, 4, 4)
    with pytest.raises(ValueError, match=r"scorer must give scores \(2, 3, h, w\), one map for"):
        wrong(clip(3))


def test_regions_of_a_clip_say_their_frames():
    regions = tokenizer(num_tokens=40).regions(clip(4))
    assert isinstance(regions, Regions)
    assert regions.centre_frames().unique().tolist() == [0, 1, 2, 3]
