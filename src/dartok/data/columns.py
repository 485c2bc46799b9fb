"""The two columns of a table that are read: the picture and its label."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Columns", "picture_bytes"]


class Columns(NamedTuple):
    """Names of the columns that hold the picture and its label."""

    image: str = "image"
    label: str = "label"

    def check(self, there: Sequence[str], where: str) -> None:
        """Refuse a table without them.

        Raises:
            ValueError: Naming the columns that are there.
        """
        for flag, column in (("image-column", self.image), ("label-column", self.label)):
            if column not in there:
                raise ValueError(
                    f"{flag} must be a column of {where}, got {column!r}; there are "
                    f"{', '.join(there)}"
                )


def picture_bytes(cell: object) -> bytes:
    """The image file in a cell: bytes, or as Hugging Face holds it, with bytes or a path.

    Empty, and so a damaged picture, where there is neither.
    """
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, dict):
        return b""
    data, path = cell.get("bytes"), cell.get("path")
    if isinstance(data, bytes):
        return data
    try:
        return Path(path).read_bytes() if isinstance(path, str) and Path(path).is_file() else b""
    except (OSError, ValueError):  # no permission; a name that no file can have
        return b""
