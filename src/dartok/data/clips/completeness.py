"""Whether a video file is cut off, by the lengths that it claims itself.

FFmpeg reads a file that is cut off between two frames as a shorter video, without a word.
"""

import os
import struct
from typing import IO

__all__ = ["is_cut_off"]

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_RIFF, _RIFF_HEADER_BYTES = b"RIFF", 8
_GIF = b"GIF8"
_GIF_END = b";"
_BOX_HEADER_BYTES, _LONG_BOX_HEADER_BYTES = 8, 16


def is_cut_off(file: IO[bytes]) -> bool:
    """Whether an MP4, QuickTime, Matroska, WebM, AVI or GIF file ends too early; else False.

    Only headers and the file's length are read; the file is left at its beginning.

    Args:
        file: Of bytes, that can seek.
    Example:
        >>> from io import BytesIO
        >>> is_cut_off(BytesIO(b"GIF89a;")), is_cut_off(BytesIO(b"GIF89a"))
        (False, True)
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(_BOX_HEADER_BYTES)
    try:
        if head[4:] == b"ftyp":
            return _boxes_end(file, length) > length
        if head.startswith(_EBML):
            return _segment_end(file) > length
        if head.startswith(_RIFF):
            return int.from_bytes(head[4:], "little") + _RIFF_HEADER_BYTES > length
        return head.startswith(_GIF) and not _ends_as_gif(file, length)
    finally:
        file.seek(0)


def _boxes_end(file: IO[bytes], length: int) -> int:
    """Where the last box of the outer level says that it ends."""
    place = 0
    while place + _BOX_HEADER_BYTES <= length:
        file.seek(place)
        header = file.read(_LONG_BOX_HEADER_BYTES)
        (size,) = struct.unpack(">I", header[:4])
        if size == 1 and len(header) == _LONG_BOX_HEADER_BYTES:
            (size,) = struct.unpack(">Q", header[8:])
        if size < _BOX_HEADER_BYTES:  # up to the end, or no box
            break
        place += size
    return place


def _segment_end(file: IO[bytes]) -> int:
    """Where the segment after the header says that it ends; 0 if it does not."""
    file.seek(len(_EBML))
    header_size = _number(file) or 0
    file.seek(header_size, os.SEEK_CUR)
    if file.read(len(_SEGMENT)) != _SEGMENT:
        return 0
    size = _number(file)
    return 0 if size is None else file.tell() + size


def _number(file: IO[bytes]) -> int | None:
    """A number of EBML, whose first byte tells its length; None for "unknown"."""
    first = file.read(1)
    if not first or first == b"\0":
        return None
    num_bytes = 9 - first[0].bit_length()
    bits = 7 * num_bytes
    number = int.from_bytes(first + file.read(num_bytes - 1), "big") & ((1 << bits) - 1)
    return None if number == (1 << bits) - 1 else number


def _ends_as_gif(file: IO[bytes], length: int) -> bool:
    file.seek(max(0, length - 64))
    return file.read().rstrip(b"\0").endswith(_GIF_END)
