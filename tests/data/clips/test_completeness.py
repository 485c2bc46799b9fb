"""Lengths that files claim of themselves, in each of the ways that they are written."""

from io import BytesIO

import pytest

from dartok.data.clips.completeness import is_cut_off

KIND = b"\0\0\0\x10ftypmp42\0\0\0\0"
LONG = b"\0\0\0\x01mdat" + (24).to_bytes(8, "big") + b"12345678"
OPEN = b"\0\0\0\0mdat" + bytes(30)
EBML = b"\x1a\x45\xdf\xa3\x83abc\x18\x53\x80\x67"


@pytest.mark.parametrize(
    "data",
    [
        KIND + b"\0\0\0\x0cmdat1234",
        KIND + LONG,
        EBML + b"\x84data",
        EBML + b"\x01\0\0\0\0\0\0\x04data",
        b"RIFF\x08\0\0\0AVI data",
        b"GIF89a" + bytes(100) + b";\0\0",
    ],
    ids=["box", "long-box", "short-segment", "segment", "riff", "gif"],
)
def test_a_file_is_cut_off_where_a_byte_lacks_and_whole_otherwise(data):
    file = BytesIO(data)
    assert not is_cut_off(file)
    assert file.tell() == 0
    assert is_cut_off(BytesIO(data.rstrip(b"\0")[:-1]))


@pytest.mark.parametrize(
    "data",
    [KIND + OPEN, EBML + b"\xffdata", EBML + b"\x01" + b"\xff" * 7, EBML[:7], b"", b"words", LONG],
    ids=["last-box", "live", "long-live", "header", "empty", "text", "no-kind"],
)
def test_what_does_not_say_how_long_it_is_is_not_cut_off(data):
    assert not is_cut_off(BytesIO(data))


def test_what_follows_is_not_needed():
    assert not is_cut_off(BytesIO(b"RIFF\x08\0\0\0AVI data" + bytes(50)))
    assert not is_cut_off(BytesIO(KIND + LONG + b"\0\0"))
