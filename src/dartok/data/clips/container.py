"""Video files through PyAV: an index of the frames first, then only those that are asked for."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from dartok.data.clips.completeness import is_cut_off
from dartok.data.samples import DamagedError

if TYPE_CHECKING:
    from av import Packet, VideoFrame, VideoStream
    from av.container import InputContainer

__all__ = ["VideoFile", "check_decoder"]

_FORMATS = "asf,avi,flv,gif,matroska,webm,mov,mp4,mpeg,mpegts,ogg"
"""Of FFmpeg's: those that hold frames themselves. A list of other files or addresses is none."""
_GUESSED_TIMES = frozenset({"avi"})
"""Formats without times of their own: what FFmpeg makes up does not tell the order of frames."""
_SHOWN_BIT = 0x10
"""In the first byte of a frame of VP8; hidden ones are only predicted from."""
_NEAR = 16
"""Frames that are decoded and dropped rather than leapt over: a leap begins the decoder anew."""


class VideoFile:
    """The first video stream of a file.

    Frames are told apart by their time stamps, where all have one of their own; reading begins at
    the last key frame before the frame asked for. Otherwise they are counted by decoding all, and
    reading begins at the first. Decoding takes one thread.

    Args:
        name: For messages.
        open_bytes: Opens the file anew, at its beginning; it must be able to seek.
    Raises:
        ImportError: Without PyAV, the extra `video`.
        DamagedError: If it holds no video, or is damaged or cut off as far as is seen.
    """

    def __init__(self, name: str, open_bytes: Callable[[], IO[bytes]]) -> None:
        check_decoder()
        self.name = name
        self._open_bytes = open_bytes
        with self._opened() as (container, stream):
            self.fps = float(stream.average_rate) if stream.average_rate else None
            self._coded_size = stream.height, stream.width
            self._index = _index_of_times(container, stream)
        if self._index is None:
            self.num_frames = self._count()
        else:
            self.num_frames = len(self._index.times)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Height and width of the first frame as it is shown, in pixels."""
        height, width = self.frames([0]).shape[-2:]
        return height, width

    def frames(self, indices: Sequence[int]) -> UInt8[Tensor, "T 3 H W"]:
        """Some frames in RGB, upright, by their place in display order, in the order asked for.

        Raises:
            DamagedError: If one cannot be decoded.
            ValueError: If an index is none of a frame.
        """
        wanted = sorted({int(index) for index in indices})
        if not wanted or wanted[0] < 0 or wanted[-1] >= self.num_frames:
            raise ValueError(
                f"frames of {self.name} must be some from 0 to {self.num_frames - 1}, got {wanted}"
            )
        found = self._read(wanted)
        pixels = np.stack([found[int(index)] for index in indices])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def _read(self, wanted: list[int]) -> dict[int, UInt8[np.ndarray, "H W 3"]]:
        """From key frames on, or, where that does not give them all, from the beginning.

        Some encoders call frames key that those after them do not make do with.
        """
        found: dict[int, UInt8[np.ndarray, "H W 3"]] = {}
        if self._index is not None:
            try:
                found = self._collect(self._index.runs(wanted))
            except DamagedError:
                found = {}
        if len(found) < len(wanted):
            found = self._collect([_Run(0, wanted)])
        if len(found) < len(wanted):
            lost = next(index for index in wanted if index not in found)
            raise DamagedError(
                f"video {self.name} cannot be read (its frame {lost} of {self.num_frames} does not "
                "come); it may be damaged: play it in a viewer and save it again"
            )
        return found

    def _collect(self, runs: list["_Run"]) -> dict[int, UInt8[np.ndarray, "H W 3"]]:
        found = {}
        with self._opened() as (container, stream):
            for run in runs:
                if run.key:
                    assert self._index is not None
                    container.seek(self._index.times[run.key], stream=stream)
                wanted = set(run.wanted)
                for place, frame in self._placed(_frames(container, stream)):
                    if place in wanted:
                        found[place] = self._pixels(frame)
                    if place >= run.wanted[-1]:
                        break
        return found

    def _placed(self, frames: Iterator["VideoFrame"]) -> Iterator[tuple[int, "VideoFrame"]]:
        """Frames with their place in display order."""
        if self._index is None:
            yield from enumerate(frames)
            return
        for frame in frames:
            place = self._index.place(frame.pts)
            if place is not None:
                yield place, frame

    def _pixels(self, frame: "VideoFrame") -> UInt8[np.ndarray, "H W 3"]:
        height, width = self._coded_size  # a stream may change its size
        # One thread: to start more takes longer than to convert a frame, and workers are many.
        pixels = frame.to_ndarray(format="rgb24", width=width, height=height, threads=1)
        return np.rot90(pixels, round(frame.rotation / 90))

    def _count(self) -> int:
        with self._opened() as (container, stream):
            count = sum(1 for _ in _frames(container, stream))
            if not count:
                raise ValueError("it holds no frame")
            return count

    @contextmanager
    def _opened(self) -> Iterator[tuple["InputContainer", "VideoStream"]]:
        """The file, and its stream of frames; what FFmpeg finds wrong becomes a DamagedError."""
        import av

        try:
            with closing(self._open_bytes()) as file:
                if is_cut_off(file):
                    raise ValueError("it is cut off")
                with av.open(
                    file, "r", options={"format_whitelist": _FORMATS}, metadata_errors="replace"
                ) as container:
                    yield container, _stream(container)
        except (av.FFmpegError, OSError, EOFError, ValueError) as error:
            raise DamagedError(
                f"video {self.name} cannot be read ({_reason(error)}); it may be damaged or not a "
                "video: play it in a viewer and save it again"
            ) from error


class _Run(NamedTuple):
    """Frames that are read in one go."""

    key: int
    """Place of the key frame to begin at; 0 for the beginning of the file."""
    wanted: list[int]
    """Their places, in order."""


class _Index:
    """When each frame is shown, and from which of them on reading can begin."""

    def __init__(self, times: list[int], keys: list[int]) -> None:
        self.times = sorted(times)
        self._places = {time: place for place, time in enumerate(self.times)}
        self._keys = sorted(self._places[time] for time in keys if time in self._places)

    def place(self, time: int | None) -> int | None:
        """Place of a frame in display order; None if it is none of the video."""
        return None if time is None else self._places.get(time)

    def runs(self, wanted: list[int]) -> list[_Run]:
        """Cut the frames asked for into runs: a new one where a key frame lies far enough ahead."""
        runs: list[_Run] = []
        for place in wanted:
            before = bisect_right(self._keys, place)
            key = self._keys[before - 1] if before else 0
            if not runs or key > runs[-1].wanted[-1] + _NEAR:
                runs.append(_Run(key if runs or key > _NEAR else 0, [place]))
            else:
                runs[-1].wanted.append(place)
        return runs


def check_decoder() -> None:
    """Refuse to begin without what decodes videos.

    Raises:
        ImportError: Without PyAV, the extra `video`.
    """
    try:
        import av  # noqa: F401
    except ImportError as error:
        raise ImportError("videos need PyAV: pip install 'dartok[video]'") from error


def _stream(container: "InputContainer") -> "VideoStream":
    """The first one that is no cover of an audio file, set up to decode."""
    from av.stream import Disposition

    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & Disposition.attached_pic
    ]
    if not streams:
        raise ValueError("it holds no video")
    stream = streams[0]
    if stream.codec_context is None:
        raise ValueError("it is coded in a way that this FFmpeg does not know")
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"err_detect": "explode"}  # nothing is made up
    return stream


def _index_of_times(container: "InputContainer", stream: "VideoStream") -> _Index | None:
    """From the packets, without decoding; None where they do not tell the frames."""
    packets = [packet for packet in container.demux(stream) if packet.size]
    if any(packet.is_corrupt for packet in packets):
        raise ValueError("it is damaged or cut off")
    if not packets:
        raise ValueError("it holds no frame")
    codec = stream.codec_context.name
    shown = [packet for packet in packets if not packet.is_discard and _is_shown(packet, codec)]
    times = [packet.pts for packet in shown if packet.pts is not None]
    keys = [packet.pts for packet in packets if packet.is_keyframe and packet.pts is not None]
    guessed = container.format.name in _GUESSED_TIMES and len(keys) < len(packets)
    untold = len(set(times)) < len(shown) or not packets[0].is_keyframe
    return None if guessed or untold or not times else _Index(times, keys)


def _is_shown(packet: "Packet[VideoStream]", codec: str) -> bool:
    return codec != "vp8" or bool(bytes(packet)[0] & _SHOWN_BIT)


def _frames(container: "InputContainer", stream: "VideoStream") -> Iterator["VideoFrame"]:
    """From where the container stands to the end, in display order."""
    for packet in container.demux(stream):
        yield from packet.decode()


def _reason(error: Exception) -> str:
    import av

    if isinstance(error, OSError | av.FFmpegError) and error.strerror:
        return error.strerror
    return str(error).split("\n")[0] or type(error).__name__
