"""Videos, of which only the frames that are asked for are decoded."""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Protocol

import torch
from jaxtyping import UInt8
from torch import Tensor

from dartok.data.clips.container import VideoFile, check_decoder
from dartok.data.clips.frame_folder import FrameFolder, frames_in

__all__ = ["VIDEO_SUFFIXES", "BlankVideo", "Video", "check_decoder", "decode_video", "open_video"]

VIDEO_SUFFIXES = (
    *(".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
    *(".ogv", ".ts", ".webm", ".wmv"),
)
"""Of the files in a folder that are taken for videos."""


class Video(Protocol):
    """Frames that can be read in any order."""

    name: str
    """For messages: the path."""
    fps: float | None
    """Frames per second on average, None where that is not known."""

    @property
    def num_frames(self) -> int:
        """How many there are, `>= 1`."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame as it is shown, in pixels."""

    def frames(self, indices: Sequence[int]) -> UInt8[Tensor, "T 3 H W"]:
        """Some frames in RGB, upright, by their place in display order, in the order asked for.

        Raises:
            DamagedError: If one cannot be decoded.
            ValueError: If an index is none of a frame.
        """


def open_video(path: str | Path) -> Video:
    """A video file in a format that FFmpeg reads, or a folder of pictures, numbered by their names.

    Only the local file is read: an address or a list of other files is none. The frames are counted
    as they are, whatever the file says; what is damaged is refused, never completed.

    Args:
        path: Of the file or folder.
    Raises:
        ImportError: Without PyAV, the extra `video`.
        ValueError: If it is missing, holds no video, or is damaged or cut off as far as is seen
            without decoding it. Names the file and the remedy.
    Example:
        >>> open_video("missing.mp4")
        Traceback (most recent call last):
        ValueError: video missing.mp4 does not exist; check the path
    """
    path = Path(path)
    if path.is_dir():
        return FrameFolder(str(path), frames_in(path))
    if not path.exists():
        raise ValueError(f"video {path} does not exist; check the path")
    return VideoFile(str(path), lambda: path.open("rb"))


def decode_video(data: bytes, name: str) -> Video:
    """The bytes of a video file as `open_video` reads them; `name` is for the message.

    Raises:
        ImportError: Without PyAV, the extra `video`.
        ValueError: As `open_video`.
    """
    return VideoFile(name, partial(BytesIO, data))


class BlankVideo:
    """A black frame, for what needs a clip of the right shape.

    Example:
        >>> BlankVideo().frames([0, 0]).shape
        torch.Size([2, 3, 64, 64])
    """

    name = "blank"
    fps: float | None = None
    num_frames = 1
    size = (64, 64)

    def frames(self, indices: Sequence[int]) -> UInt8[Tensor, "T 3 H W"]:
        """As many as asked for."""
        return torch.zeros(len(indices), 3, *self.size, dtype=torch.uint8)
