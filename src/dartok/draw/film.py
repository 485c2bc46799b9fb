"""Write films: pictures one after the other, in a file that browsers play."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import UInt8
from PIL import Image

__all__ = ["check_encoder", "save_film"]

_CODEC = "libx264"
_OPTIONS = {"crf": "18", "preset": "veryfast", "profile": "high"}
"""The thin lines of regions survive this rate factor; higher ones smear them."""
_KEY_FRAME_S = 2
"""Seconds from one frame that playing can begin at to the next."""
_BT709 = 1
"""Of FFmpeg's colour spaces, primaries and curves: what browsers take a film to be in."""
_LIMITED_RANGE = 1
"""Of FFmpeg's ranges: black is 16, white 235."""
_LARGEST_DENOMINATOR = 1001
"""Of a rate: those of broadcasting, such as 30000/1001, are kept exactly."""
_MOST_FPS = 1000
_LONGEST_PX = 4096
"""Of a side: decoders in hardware go no further."""


def save_film(pictures: Iterable[Image.Image], path: str | Path, *, fps: float) -> int:
    """Write pictures as an MP4 film that every browser plays: H.264, 4:2:0, seekable at once.

    The pictures are taken one at a time, so that a film of any length needs the memory of a few
    pictures. H.264 in 4:2:0 has even sides: an odd one gets its last row or column twice. The file
    is written beside its place and then renamed, so that no half film is ever seen under `path`,
    and an older file stays whole if making or writing the pictures fails.

    Args:
        pictures: At least one, all of one size, at most 4096 px a side.
        path: A file ending in .mp4, in a folder that exists.
        fps: Pictures per second, up to 1000; kept as the nearest fraction with a denominator of at
            most 1001, so 30000/1001 is exact.
    Returns:
        How many pictures were written.
    Raises:
        ImportError: Without PyAV, the extra `video`, or if it was built without the encoder.
        ValueError: If the suffix is another, the rate is out of range, there is no picture, they
            differ in size or are too large, or the file cannot be written there.
    Example:
        >>> save_film([Image.new("RGB", (2, 2))], "regions.avi", fps=25)
        Traceback (most recent call last):
        ValueError: film must end in .mp4, got regions.avi
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"film must end in .mp4, got {path}")
    rate = _rate(fps)
    check_encoder()
    remaining = iter(pictures)
    first = next(remaining, None)
    if first is None:
        raise ValueError("pictures must be at least one, got none")
    if max(first.size) > _LONGEST_PX:
        raise ValueError(
            f"pictures must be at most {_LONGEST_PX} px a side, got {_sides(first.size)} px; "
            "make them smaller"
        )
    with _Film(path, first.size, rate) as film:
        film.add(first)
        for picture in remaining:
            film.add(picture)
        film.finish()
    return film.count


def check_encoder() -> None:
    """Refuse to begin without what encodes films.

    Raises:
        ImportError: Without PyAV, the extra `video`, or if it was built without libx264.
    """
    try:
        import av
    except ImportError as error:
        raise ImportError("films need PyAV: pip install 'dartok[video]'") from error
    if _CODEC not in av.codecs_available:
        raise ImportError(
            f"films need the encoder {_CODEC}, which this PyAV was built without; its wheels have "
            "it: pip install --force-reinstall --only-binary av av"
        )


class _Film:
    """A film that is being written beside its place, until it is finished."""

    def __init__(self, path: Path, size: tuple[int, int], rate: Fraction) -> None:
        import av

        self.count = 0
        self._path, self._size, self._rate = path, size, rate
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        with self._told():  # nothing is written before the first picture
            self._file = av.open(
                str(self._beside), "w", format="mp4", options={"movflags": "+faststart"}
            )
            stream = self._file.add_stream(_CODEC, rate=rate, options=_OPTIONS)
        assert isinstance(stream, av.VideoStream)
        self._stream = stream
        coder = stream.codec_context
        coder.width, coder.height = (side + side % 2 for side in size)
        coder.pix_fmt = "yuv420p"
        coder.gop_size = max(1, round(_KEY_FRAME_S * rate))
        coder.color_range = _LIMITED_RANGE
        coder.colorspace = coder.color_primaries = coder.color_trc = _BT709

    def __enter__(self) -> Self:
        return self

    def add(self, picture: Image.Image) -> None:
        """Encode the next picture, and write what is ready."""
        from av import VideoFrame

        if picture.size != self._size:
            raise ValueError(
                f"pictures must be of one size, got {_sides(self._size)} px and then "
                f"{_sides(picture.size)} px; resize them"
            )
        rgb = VideoFrame.from_ndarray(_even(np.asarray(picture.convert("RGB"))), format="rgb24")
        frame = rgb.reformat(
            format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE
        )
        frame.pts, frame.time_base = self.count, 1 / self._rate
        with self._told():
            self._file.mux(self._stream.encode(frame))
        self.count += 1

    def finish(self) -> None:
        """Write what the encoder holds back and the index, and move the file to its place."""
        with self._told():
            self._file.mux(self._stream.encode(None))
            self._file.close()
            self._beside.replace(self._path)

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # the first thing that went wrong is told already
            self._file.close()
        with suppress(OSError):
            self._beside.unlink()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What goes wrong with the file, in one line."""
        try:
            yield
        except OSError as error:  # also those of FFmpeg
            reason = error.strerror or str(error)
            raise ValueError(
                f"cannot write film {self._path} ({reason}); choose a folder that you may write "
                "to, with room for it"
            ) from error


def _even(pixels: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """An odd side has its last row or column twice."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def _rate(fps: float) -> Fraction:
    if 0 < fps <= _MOST_FPS:
        rate = Fraction(fps).limit_denominator(_LARGEST_DENOMINATOR)
        if rate > 0:
            return rate
    raise ValueError(f"fps must be from 1/{_LARGEST_DENOMINATOR} to {_MOST_FPS}, got {fps}")


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
