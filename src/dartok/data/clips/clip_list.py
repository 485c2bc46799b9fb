"""Lists of videos with their labels, as data sets of actions come with."""

import csv
from pathlib import Path
from typing import NamedTuple

__all__ = ["ListedVideo", "read_clip_list"]

_HEADERS = frozenset({"label", "labels", "class", "label_id"})
"""Last field of a first line that names the columns."""
_KINETICS = ["label", "youtube_id", "time_start", "time_end"]
"""First columns of the official lists of Kinetics."""


class ListedVideo(NamedTuple):
    """A line of a list."""

    path: str
    label: int | str
    """Number or name of the class."""


def read_clip_list(path: Path) -> list[ListedVideo]:
    """The videos that a text file lists, one a line, in order.

    A line is a path and a label, with commas between them if the first line has one, else tabs,
    else spaces. With commas or tabs, fields may be quoted. A whole number between path and label,
    as lists of frame folders have it, is passed over, since frames are counted; so is a first line
    that names the columns. The official lists of Kinetics, with a column `youtube_id`, stand for
    the files `<youtube_id>_<start>_<end>.mp4`, seconds in six digits.

    Raises:
        ValueError: If it cannot be read, is empty, or a line has no path and label; names the line.
    Example:
        >>> read_clip_list(Path("missing.csv"))
        Traceback (most recent call last):
        ValueError: list missing.csv cannot be read (No such file or directory); check the path
    """
    lines = _lines(path)
    if not lines:
        raise ValueError(f"list {path} must hold a path and a label a line, got no line")
    separator = next((sign for sign in ",\t" if sign in lines[0].text), None)
    rows = [_Row(number, _fields(text, separator)) for number, text in lines]
    head = [field.lower() for field in rows[0].fields]
    if head[: len(_KINETICS)] == _KINETICS:
        return [_of_kinetics(row, path) for row in rows[1:]]
    return [_listed(row, path) for row in (rows[1:] if head[-1] in _HEADERS else rows)]


class _Line(NamedTuple):
    number: int
    text: str


class _Row(NamedTuple):
    number: int
    fields: list[str]


def _lines(path: Path) -> list[_Line]:
    """Those that are not blank, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"list {path} must be text in UTF-8 ({error}); save it so") from error
    except OSError as error:
        raise ValueError(
            f"list {path} cannot be read ({error.strerror}); check the path"
        ) from error
    lines = (_Line(number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [line for line in lines if line.text]


def _fields(text: str, separator: str | None) -> list[str]:
    if separator is None:
        return _spaced(text)
    (fields,) = csv.reader([text], delimiter=separator)
    return [field.strip() for field in fields]


def _spaced(line: str) -> list[str]:
    """Fields with spaces between them; the path may hold spaces of its own."""
    head, _, label = line.rpartition(" ")
    before, _, number = head.rpartition(" ")
    if before and number.isdecimal():
        return [before.strip(), number, label]
    return [head.strip(), label] if head else [label]


def _listed(row: _Row, path: Path) -> ListedVideo:
    fields = row.fields
    three = len(fields) == 3 and fields[1].isdecimal()
    if not (len(fields) == 2 or three) or not fields[0] or not fields[-1]:
        raise ValueError(
            f"line {row.number} of list {path} must be a path and a label, with a comma, tab or "
            f"space between them, got {' | '.join(fields)!r}; mend it"
        )
    label = fields[-1]
    return ListedVideo(fields[0], int(label) if label.isdecimal() else label)


def _of_kinetics(row: _Row, path: Path) -> ListedVideo:
    fields = row.fields
    if len(fields) < len(_KINETICS) or not (fields[2].isdecimal() and fields[3].isdecimal()):
        raise ValueError(
            f"line {row.number} of list {path} must be {', '.join(_KINETICS)}, the times in whole "
            f"seconds, got {' | '.join(fields)!r}; mend it"
        )
    label, video, start, end = fields[: len(_KINETICS)]
    return ListedVideo(f"{video}_{int(start):06}_{int(end):06}.mp4", label)
