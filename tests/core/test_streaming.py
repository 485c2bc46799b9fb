"""`TokenStream`: what comes chunk by chunk is what the whole video gives, and never looks ahead."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close

from dartok.core.regions import Regions
from dartok.core.steering import Steering
from dartok.core.streaming import TokenStream, join_regions
from dartok.core.tokenizer import Tokenizer
from dartok.scorers import EdgeScorer, MotionScorer, Uniform

SIZE = (32, 40)


def tokenizer(**options) -> Tokenizer:
    proj = options.pop("proj", nn.Conv2d(3, 6, 4, 4))
    parts = {"scorer": MotionScorer(EdgeScorer(side_px=None)), "num_tokens": 12, **options}
    return Tokenizer(proj=proj, positions=torch.randn(1, 6, 4, 5), **parts).eval()


def video(num_frames: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, num_frames, 3, *SIZE)


def pushed(stream: TokenStream, frames: torch.Tensor, *parts: int) -> list:
    found = []
    for part in frames.split(parts or frames.shape[1], dim=1):
        found += stream.push(part)
    return found + stream.finish()


@given(
    num_frames=st.integers(1, 30),
    chunk=st.integers(1, 6),
    rate=st.floats(9, 200),
    parts=st.lists(st.integers(1, 7), min_size=30, max_size=30),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=12, deadline=None)
def test_however_the_frames_arrive_the_tokens_are_the_same(num_frames, chunk, rate, parts, seed):
    torch.manual_seed(seed)
    stream = TokenStream(tokenizer(), chunk_frames=chunk, tokens_per_second=rate, fps=8)
    frames, sizes = video(num_frames, batch=1), []
    while sum(sizes) < num_frames:
        sizes.append(min(parts[len(sizes)], num_frames - sum(sizes)))
    at_once, in_parts = pushed(stream, frames), pushed(stream, frames, *sizes)
    assert len(at_once) == len(in_parts)
    for one, other in zip(at_once, in_parts, strict=True):
        assert torch.equal(one.tokens, other.tokens)
    assert sum(found.regions.num_frames for found in in_parts) == num_frames


@given(chunk=st.integers(1, 8), rate=st.floats(8, 500), fps=st.floats(1, 60))
@settings(max_examples=20, deadline=None)
def test_the_budget_of_the_seconds_is_kept_to_a_token(chunk, rate, fps):
    if Fraction(rate) / Fraction(fps) * chunk < 1:
        return
    stream = TokenStream(
        tokenizer(scorer=Uniform()),
        chunk_frames=chunk,
        tokens_per_second=rate,
        fps=fps,
    )
    total = 0
    for number in range(1, 6):
        (found,) = stream.push(video(chunk, batch=1))
        total += found.tokens.shape[1]
        assert total == int(Fraction(rate) * number * chunk / Fraction(fps))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_the_whole_video_sampled_at_once_gives_the_same_tokens(dtype, tolerance):
    """One strip of all chunks, and the picture of all frames: another way through sampling.

    In float32 white noise shows how exactly a sample is placed in twelve frames, 3e-5 px.
    """
    module = tokenizer(time_positions=torch.randn(1, 6, 12), size_embedding=True).to(dtype)
    stream = TokenStream(module, chunk_frames=4, tokens_per_second=60, fps=8)
    frames = video(12).to(dtype)
    chunks = pushed(stream, frames, 5, 3, 4)
    regions = join_regions([found.regions for found in chunks])
    assert (regions.num_frames, regions.num_tokens) == (12, 90)
    whole = module.embed(frames, regions)
    assert_close(torch.cat([found.tokens for found in chunks], 1), whole, rtol=0, atol=tolerance)


def test_a_chunk_does_not_depend_on_what_comes_later():
    stream = TokenStream(tokenizer(), chunk_frames=2, tokens_per_second=40, fps=8)
    frames = video(8)
    other = torch.cat([frames[:, :4], video(4)], dim=1)
    first, second = pushed(stream, frames), pushed(stream, other)
    for one, two in zip(first[:2], second[:2], strict=True):
        assert torch.equal(one.tokens, two.tokens)
    assert not torch.equal(first[2].tokens, second[2].tokens)


def test_the_first_frame_of_a_chunk_is_compared_with_the_last_of_the_one_before():
    """Within a still video every chunk but the first has tokens spread evenly over its frames."""
    stream = TokenStream(tokenizer(), chunk_frames=4, tokens_per_second=320, fps=8)
    still = video(1, batch=1).expand(-1, 12, -1, -1, -1)
    first, *others = pushed(stream, still)
    share = [
        found.regions.centre_frames().eq(0).double().mean().item() for found in (first, *others)
    ]
    assert share[0] > 0.8
    assert all(0.2 < value < 0.3 for value in share[1:])


def test_positions_in_time_are_counted_from_the_start_and_the_last_is_held():
    times = torch.zeros(1, 6, 6)
    times[0, :, :] = torch.arange(6.0)
    module = tokenizer(time_positions=times, scorer=Uniform())
    plain = tokenizer(scorer=Uniform())
    plain.load_state_dict({k: v for k, v in module.state_dict().items() if k != "time_embed"})
    options = {"chunk_frames": 2, "tokens_per_second": 64, "fps": 8}
    frames = video(10, batch=1)
    with_time, without = (pushed(TokenStream(each, **options), frames) for each in (module, plain))
    added = [
        (one.tokens - two.tokens).mean().item()
        for one, two in zip(with_time, without, strict=False)
    ]
    assert added == pytest.approx([0.5, 2.5, 4.5, 5.0, 5.0], abs=1e-5)


def test_tubelets_are_not_torn_and_an_incomplete_one_is_dropped():
    module = tokenizer(proj=nn.Conv3d(3, 6, (2, 4, 4), (2, 4, 4)))
    stream = TokenStream(module, chunk_frames=4, tokens_per_second=40, fps=8)
    assert [found.regions.num_frames for found in pushed(stream, video(7), 3, 4)] == [2, 1]
    with pytest.raises(ValueError, match="chunk_frames must be a multiple of 2, the frames of the"):
        TokenStream(module, chunk_frames=3, tokens_per_second=40, fps=8)


def test_after_the_end_a_stream_begins_anew():
    stream = TokenStream(tokenizer(), chunk_frames=2, tokens_per_second=40, fps=8)
    frames = video(4)
    first, second = pushed(stream, frames), pushed(stream, frames)
    assert stream.frames_done == 0
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, second, strict=True))
    assert stream.finish() == []


def test_the_tokenizer_keeps_its_own_number_of_tokens():
    module = tokenizer(num_tokens=77, num_rows=7)
    pushed(TokenStream(module, chunk_frames=2, tokens_per_second=40, fps=8), video(4))
    assert (module.num_tokens, module.num_rows) == (77, 7)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_frames": 0}, "chunk_frames must be"),
        ({"fps": 0.0}, "fps must be > 0 and finite, got 0.0"),
        ({"tokens_per_second": float("inf")}, "tokens_per_second must be > 0 and finite, got inf"),
        ({"tokens_per_second": 1}, "must give a chunk of 4 frames a token, got 1 at 8 frames per"),
    ],
)
def test_streams_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TokenStream(
            tokenizer(), **{"chunk_frames": 4, "tokens_per_second": 40, "fps": 8, **options}
        )


@pytest.mark.refuses
def test_frames_that_do_not_belong_together_are_refused():
    stream = TokenStream(tokenizer(), chunk_frames=4, tokens_per_second=40, fps=8)
    with pytest.raises(ValueError, match=r"frames must be \(B, T, C, H, W\) .* got \(2, 3, 32, 40"):
        stream.push(video(1)[:, 0])
    stream.push(video(3))
    with pytest.raises(
        ValueError, match=r"as those before, got .*\(1, 3, 32, 40\) of .*; begin an"
    ):
        stream.push(video(1, batch=1))


class Breaking(Uniform):
    """Fails at its second call from when it is told to."""

    calls_left: int | None = None

    def forward(self, images):
        if self.calls_left is not None:
            self.calls_left -= 1
            if not self.calls_left:
                raise RuntimeError("out of memory")
        return super().forward(images)


def test_after_a_failure_the_same_frames_can_be_pushed_again():
    scorer = Breaking()
    module = tokenizer(scorer=scorer, time_positions=torch.randn(1, 6, 12))
    stream = TokenStream(module, chunk_frames=4, tokens_per_second=40, fps=8)
    frames = video(11)
    expected = pushed(stream, frames)
    stream.push(frames[:, :2])
    scorer.calls_left = 2  # the first chunk is cut, the second is not
    with pytest.raises(RuntimeError, match="out of memory"):
        stream.push(frames[:, 2:])
    scorer.calls_left = None
    found = stream.push(frames[:, 2:]) + stream.finish()
    assert len(found) == len(expected) == 3
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.tokens, other.tokens)


def test_no_more_than_what_is_needed_is_kept():
    stream = TokenStream(tokenizer(), chunk_frames=4, tokens_per_second=40, fps=8)
    stream.push(video(9, batch=1))
    one_frame = 3 * SIZE[0] * SIZE[1] * 4
    assert stream._before.untyped_storage().nbytes() == one_frame
    assert sum(part.untyped_storage().nbytes() for part in stream._waiting) == one_frame


@pytest.mark.refuses
def test_what_whole_clips_are_refused_for_streams_are_too():
    module = tokenizer()
    stream = TokenStream(module, chunk_frames=2, tokens_per_second=40, fps=8)
    with pytest.raises(ValueError, match="images must be floating point, normalised as the model"):
        stream.push(torch.zeros(1, 2, 3, *SIZE, dtype=torch.uint8))
    with pytest.raises(ValueError, match="images must have 3 channels, as the model, got 4"):
        stream.push(torch.zeros(1, 2, 4, *SIZE))
    steering = Steering(torch.ones(1, 4, 4))
    with (
        module.steered(steering),
        pytest.raises(ValueError, match="steering is for images, got it"),
    ):
        stream.push(video(2))
    with pytest.raises(ValueError, match="a stream needs partition='flow', got 'grid'"):
        TokenStream(tokenizer(partition="grid"), chunk_frames=2, tokens_per_second=40, fps=8)


@pytest.mark.refuses
def test_only_regions_of_one_kind_are_joined():
    edges = torch.tensor([[0.0, 1.0]])
    one, two = (Regions(torch.linspace(0, 1, rows + 1)[None, None], edges) for rows in (1, 2))
    for chunks in ([], [one, two]):
        with pytest.raises(ValueError, match="chunks must be at least one, of one batch and"):
            join_regions(chunks)
