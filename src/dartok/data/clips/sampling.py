"""Which frames of a video make a clip: indices in display order, from 0.

Every index is that of a frame and none comes after a larger one, however short the video is: it is
not refused and no frame is made up, frames are shown again. "Uniform" then shows the nearest frame
of each segment; "dense" keeps its pace and holds the last frame.
"""

import numpy as np
from jaxtyping import Float, Int

from dartok.data.clips.clip_config import ClipConfig

__all__ = ["dense_indices", "eval_indices", "jittered_indices", "spread_indices", "train_indices"]


def spread_indices(
    length: int, num_frames: int, clip: int = 0, num_clips: int = 1
) -> Int[np.ndarray, "{num_frames}"]:
    """One frame from the same place of each of `num_frames` equal segments of a video.

    `floor((i + (clip + 1) / (num_clips + 1)) * length / num_frames)` for segment `i`, so that one
    clip shows the middles. Computed in whole numbers, exactly.

    Source: TSN, arXiv:1608.00859; the places of several clips are those of VideoMamba's sparse
    testing (kinetics_sparse.py), whose segments divide `length - 1`, so that an index of theirs may
    differ by one.

    Args:
        length: Frames of the video, `>= 1`.
        num_frames: Frames of the clip, `>= 1`.
        clip: Which of the clips, from 0.
        num_clips: How many there are.
    Example:
        >>> spread_indices(80, 4), spread_indices(2, 4)
        (array([10, 30, 50, 70]), array([0, 0, 1, 1]))
    """
    parts = num_clips + 1
    places = np.arange(num_frames, dtype=np.int64) * parts + clip + 1
    return places * length // (num_frames * parts)


def jittered_indices(
    length: int, places: Float[np.ndarray, "num_frames"]
) -> Int[np.ndarray, "num_frames"]:
    """One frame from a given place of each of as many equal segments as there are places.

    `floor((i + places[i]) * length / num_frames)`.

    Source: TSN, arXiv:1608.00859, with a random place in each segment while training.

    Args:
        length: Frames of the video, `>= 1`.
        places: In each segment, in [0, 1).
    Example:
        >>> jittered_indices(80, np.array([0.0, 0.5, 0.99, 0.0]))
        array([ 0, 30, 59, 60])
    """
    segments = np.arange(len(places)) + places
    indices = np.floor(segments * length / len(places)).astype(np.int64)
    return np.minimum(indices, length - 1)  # rounding may reach the end


def dense_indices(
    length: int, num_frames: int, stride: int, start: int
) -> Int[np.ndarray, "{num_frames}"]:
    """Every `stride`-th frame from one on; past the end the last frame is held.

    `min(start + i * stride, length - 1)`.

    Args:
        length: Frames of the video, `>= 1`.
        num_frames: Frames of the clip, `>= 1`.
        stride: Frames of the video from one of the clip to the next, `>= 1`.
        start: First frame, from 0 to `length - 1`.
    Example:
        >>> dense_indices(80, 4, 10, 20), dense_indices(25, 4, 10, 0)
        (array([20, 30, 40, 50]), array([ 0, 10, 20, 24]))
    """
    indices = start + np.arange(num_frames, dtype=np.int64) * stride
    return np.minimum(indices, length - 1)


def train_indices(length: int, clip: ClipConfig) -> Int[np.ndarray, "num_frames"]:
    """The frames of one clip for training: each time others, by NumPy's global generator.

    Uniform: a random place in each segment. Dense: every start from 0 to
    `length - num_frames * frame_stride` is as likely; 0 where the video is shorter than that.

    Source of the range of starts: the fine-tuning of VideoMAE, arXiv:2203.12602, which VideoMamba
    keeps (kinetics.py).

    Args:
        length: Frames of the video, `>= 1`.
        clip: Frames of a clip, and how they are chosen.
    """
    if clip.sampling == "uniform":
        return jittered_indices(length, np.random.random_sample(clip.num_frames))
    start = np.random.randint(_last_start(length, clip) + 1)
    return dense_indices(length, clip.num_frames, clip.frame_stride, start)


def eval_indices(length: int, clip: ClipConfig) -> Int[np.ndarray, "num_clips num_frames"]:
    """The frames of each clip for evaluation: always the same.

    Uniform: clip k of K takes place `(k + 1) / (K + 1)` of each segment. Dense: starts are spread
    evenly from 0 to `length - num_frames * frame_stride`, `floor(k * last / (K - 1))`; a single one
    is in the middle. Where the video is shorter, all clips are the same one.

    Source of the dense starts: multi-clip testing of VideoMAE, arXiv:2203.12602.

    Args:
        length: Frames of the video, `>= 1`.
        clip: Frames of a clip, how they are chosen, and the number of clips.
    Example:
        >>> eval_indices(64, ClipConfig(num_frames=4, num_clips=3, sampling="dense"))
        array([[ 0,  4,  8, 12],
               [24, 28, 32, 36],
               [48, 52, 56, 60]])
    """
    count = clip.num_clips
    if clip.sampling == "uniform":
        return np.stack([spread_indices(length, clip.num_frames, k, count) for k in range(count)])
    last = _last_start(length, clip)
    starts = [k * last // (count - 1) for k in range(count)] if count > 1 else [last // 2]
    return np.stack(
        [dense_indices(length, clip.num_frames, clip.frame_stride, start) for start in starts]
    )


def _last_start(length: int, clip: ClipConfig) -> int:
    return max(0, length - clip.num_frames * clip.frame_stride)
