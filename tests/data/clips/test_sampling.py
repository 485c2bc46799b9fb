"""Which frames make a clip: valid, in order, as many as asked, as the sources define them."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from dartok.data.clips.clip_config import ClipConfig
from dartok.data.clips.sampling import (
    dense_indices,
    eval_indices,
    jittered_indices,
    spread_indices,
    train_indices,
)

LENGTHS = st.integers(1, 3000)
CLIPS = st.builds(
    ClipConfig,
    num_frames=st.integers(1, 64),
    sampling=st.sampled_from(["uniform", "dense"]),
    frame_stride=st.integers(1, 16),
    num_clips=st.integers(1, 10),
)


def assert_shows(indices, length, num_frames):
    assert indices.shape == (num_frames,)
    assert indices.dtype == np.int64
    assert indices.min() >= 0
    assert indices.max() < length
    assert (np.diff(indices) >= 0).all()


@given(LENGTHS, CLIPS)
def test_every_index_is_of_a_frame_and_time_does_not_run_back(length, clip):
    assert_shows(train_indices(length, clip), length, clip.num_frames)
    clips = eval_indices(length, clip)
    assert clips.shape == (clip.num_clips, clip.num_frames)
    for indices in clips:
        assert_shows(indices, length, clip.num_frames)


@given(LENGTHS, CLIPS)
def test_evaluation_draws_nothing_and_training_draws_from_numpy_alone(length, clip):
    state = np.random.get_state()
    assert np.array_equal(eval_indices(length, clip), eval_indices(length, clip))
    assert np.array_equal(np.random.get_state()[1], state[1])
    first = train_indices(length, clip)
    np.random.set_state(state)
    assert np.array_equal(train_indices(length, clip), first)


@given(LENGTHS, CLIPS)
def test_later_clips_show_nothing_earlier(length, clip):
    assert (np.diff(eval_indices(length, clip), axis=0) >= 0).all()


@given(LENGTHS, st.integers(1, 64), st.integers(1, 10), st.data())
def test_a_spread_frame_lies_in_its_segment_where_the_definition_says(length, count, clips, data):
    clip = data.draw(st.integers(0, clips - 1))
    place = Fraction(clip + 1, clips + 1)
    expected = [int((i + place) * length / count) for i in range(count)]
    assert spread_indices(length, count, clip, clips).tolist() == expected


@given(LENGTHS, st.integers(1, 64))
def test_one_clip_is_what_something_something_is_validated_with(length, count):
    """`int(tick / 2 + tick * i)` of frames `tick = length / count` apart."""
    tick = Fraction(length, count)
    assert spread_indices(length, count).tolist() == [
        int(tick / 2 + tick * i) for i in range(count)
    ]


@given(st.integers(2, 3000), st.integers(1, 64), st.integers(1, 10), st.data())
def test_several_clips_differ_from_videomambas_by_one_frame_at_most(length, count, clips, data):
    clip = data.draw(st.integers(0, clips - 1))
    segment = (length - 1) / count
    theirs = [
        min(round(segment * i) + int(segment / (clips + 1) * (clip + 1)), length - 1)
        for i in range(count)
    ]
    ours = spread_indices(length, count, clip, clips)
    assert np.abs(ours - theirs).max() <= 1 + 1  # one for their rounding, one for their length


@given(st.integers(1, 3000), st.integers(2, 64), st.integers(1, 8), st.integers(2, 10))
def test_dense_clips_are_those_of_videomaes_testing(length, count, stride, clips):
    """Theirs pad a video too short with the last frame taken, ours with its last."""
    span = count * stride
    clip = ClipConfig(num_frames=count, sampling="dense", frame_stride=stride, num_clips=clips)
    for number, indices in enumerate(eval_indices(length, clip)):
        start = int(number * Fraction(max(length - span, 0), clips - 1))
        theirs = list(range(start, min(start + span, length), stride))[:count]
        assert indices[: len(theirs)].tolist() == theirs
        assert (indices[len(theirs) :] == length - 1).all()


def test_a_single_dense_clip_is_in_the_middle():
    clip = ClipConfig(num_frames=4, sampling="dense", frame_stride=5)
    assert eval_indices(31, clip).tolist() == [[5, 10, 15, 20]]


@given(st.integers(1, 63), st.integers(1, 64))
def test_a_video_shorter_than_the_clip_shows_all_its_frames_by_segments(length, count):
    if count >= length:
        assert set(spread_indices(length, count).tolist()) == set(range(length))
        assert set(jittered_indices(length, np.full(count, 0.5)).tolist()) == set(range(length))


@given(LENGTHS, st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=64))
def test_a_random_frame_lies_in_its_segment(length, places):
    count = len(places)
    for index, found in enumerate(jittered_indices(length, np.array(places))):
        assert index * length // count - 1e-9 <= found <= (index + 1) * length / count


def test_the_last_place_before_one_is_still_a_frame():
    places = np.full(16, np.nextafter(1, 0))
    assert jittered_indices(160, places).tolist()[-1] == 159


def test_training_reaches_every_frame_of_each_segment_and_every_start():
    uniform = ClipConfig(num_frames=2)
    drawn = np.stack([train_indices(6, uniform) for _ in range(200)])
    assert set(map(tuple, drawn.tolist())) == set(product((0, 1, 2), (3, 4, 5)))
    dense = ClipConfig(num_frames=3, sampling="dense", frame_stride=2)
    starts = [train_indices(10, dense) for _ in range(200)]
    assert {tuple(indices) for indices in starts} == {(s, s + 2, s + 4) for s in range(5)}


def test_a_dense_clip_of_a_short_video_holds_its_last_frame():
    assert dense_indices(5, 4, 2, 0).tolist() == [0, 2, 4, 4]
    clip = ClipConfig(num_frames=4, sampling="dense", frame_stride=2, num_clips=3)
    assert eval_indices(6, clip).tolist() == [[0, 2, 4, 5]] * 3
    assert train_indices(6, clip).tolist() == [0, 2, 4, 5]
    assert train_indices(1, clip).tolist() == [0, 0, 0, 0]


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["num_frames", "frame_stride", "num_clips", "num_crops"])
def test_counts_below_one_are_refused(name):
    with refused(f"{name.replace('_', '-')} must be >= 1, got 0"):
        ClipConfig(**{name: 0})


@pytest.mark.refuses
def test_an_unknown_way_of_sampling_is_refused():
    with refused("sampling must be uniform or dense, got 'sparse'"):
        ClipConfig(sampling="sparse")


def test_views_are_clips_times_crops():
    assert ClipConfig(num_clips=4, num_crops=3).num_views == 12
