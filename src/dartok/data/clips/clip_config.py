"""Which frames and parts of a video a model sees: settings only."""

from dataclasses import dataclass
from typing import Literal, get_args

__all__ = ["ClipConfig", "Sampling"]

Sampling = Literal["uniform", "dense"]


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Which frames and parts of a video a model sees."""

    num_frames: int = 16
    """Frames in a clip."""
    sampling: Sampling = "uniform"
    """Where they come from: "uniform" cuts the whole video into as many equal segments and takes a
    frame of each; "dense" takes every so many-th frame from some place on."""
    frame_stride: int = 4
    """With "dense", frames of the video from one frame of the clip to the next; at the video's end
    its last frame is held."""
    num_clips: int = 1
    """For evaluation: clips of each video, spread over it."""
    num_crops: int = 1
    """For evaluation: squares cut from each frame along its longer side, evenly from one end to the
    other; with 1 the middle. Scores are averaged over clips and crops."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "frame_stride", "num_clips", "num_crops"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"{name.replace('_', '-')} must be >= 1, got {value}")
        if self.sampling not in get_args(Sampling):
            known = " or ".join(get_args(Sampling))
            raise ValueError(f"sampling must be {known}, got {self.sampling!r}")

    @property
    def num_views(self) -> int:
        """Clips times crops: how often the model sees a video that is evaluated."""
        return self.num_clips * self.num_crops
