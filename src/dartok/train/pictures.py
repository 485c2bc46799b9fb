"""Pictures without labels: files, and the rows of Parquet files."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from PIL import Image

from dartok.data.clips.video import VIDEO_SUFFIXES
from dartok.data.columns import picture_bytes
from dartok.data.folder import files_below
from dartok.data.images import decode_image, open_image

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

__all__ = ["Part", "Picture", "find_pictures", "find_videos", "list_parts", "read_pictures"]

_PARQUET = ".parquet"
_ROWS_AT_ONCE = 16


class Picture(NamedTuple):
    """A picture, not yet decoded."""

    name: str
    """Path of its file; of a row, that of the table with the row's number."""
    content: Path | bytes

    def open(self) -> Image.Image:
        """In RGB, upright.

        Raises:
            ValueError: If it is damaged.
        """
        if isinstance(self.content, Path):
            return open_image(self.content)
        return decode_image(self.content, self.name)


class Part(NamedTuple):
    """What is read at a time: a picture file, or a row group of a Parquet file."""

    path: Path
    row_group: int | None = None
    first_row: int = 0
    """Number of its first row in the file."""


def find_pictures(patterns: Sequence[str]) -> list[Path]:
    """The files that some paths, folders (at any depth) or patterns name, each once.

    In a folder only picture files are looked for; Parquet files must be named, or matched by a
    pattern.

    Raises:
        ValueError: If one of them names no picture.
    Example:
        >>> find_pictures(["no/such/*.jpg"])
        Traceback (most recent call last):
        ValueError: images no/such/*.jpg name no picture; check the path
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            paths = files_below(path, _suffixes())
        elif path.exists():
            paths = [path]
        else:
            paths = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
        if not paths:
            raise ValueError(f"images {pattern} name no picture; check the path")
        found.update(dict.fromkeys(paths))
    return list(found)


def find_videos(patterns: Sequence[str]) -> list[Path]:
    """The video files that some paths, folders (at any depth) or patterns name, each once.

    A folder of pictures without a video is itself a video, its pictures the frames.

    Raises:
        ValueError: If one of them names no video.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            paths = files_below(path, VIDEO_SUFFIXES) or sorted(
                {frame.parent for frame in files_below(path, _suffixes())}
            )
        else:
            paths = (
                [path] if path.exists() else sorted(map(Path, glob.glob(pattern, recursive=True)))
            )
        if not paths:
            raise ValueError(f"videos {pattern} name no video; check the path")
        found.update(dict.fromkeys(paths))
    return list(found)


def list_parts(paths: Sequence[Path], *, column: str) -> list[Part]:
    """The picture files among some paths, and the row groups of the Parquet files.

    Args:
        paths: Such as `find_pictures` gives.
        column: Of the Parquet files, with the pictures.
    Raises:
        ValueError: If a Parquet file is damaged or has no such column.
        ImportError: If there are Parquet files, without pyarrow; names the extra.
    """
    parts: list[Part] = []
    for path in paths:
        parts += _row_groups(path, column) if path.suffix == _PARQUET else [Part(path)]
    return parts


def read_pictures(parts: Iterable[Part], *, column: str) -> Iterator[Picture]:
    """The pictures of some parts, in order; a cell holds a file's bytes, as Hugging Face's do."""
    for part in parts:
        if part.row_group is None:
            yield Picture(str(part.path), part.path)
            continue
        with _open_table(part.path) as table:
            batches = table.iter_batches(
                _ROWS_AT_ONCE, row_groups=[part.row_group], columns=[column], use_threads=False
            )
            cells = (cell for batch in batches for cell in batch.column(0).to_pylist())
            for row, cell in enumerate(cells, part.first_row):
                yield Picture(f"{part.path} row {row}", picture_bytes(cell))


def _row_groups(path: Path, column: str) -> Iterator[Part]:
    with _open_table(path) as table:
        names = table.schema_arrow.names
        if column not in names:
            raise ValueError(
                f"image-column must be a column of {path}, got {column!r}; there are "
                f"{', '.join(names)}"
            )
        row = 0
        for group in range(table.metadata.num_row_groups):
            yield Part(path, group, row)
            row += table.metadata.row_group(group).num_rows


def _open_table(path: Path) -> "ParquetFile":
    try:
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'dartok[data]'") from error
    try:
        table: Any = ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(
            f"{path} cannot be read as a Parquet file ({reason}); write it again"
        ) from error
    return table


def _suffixes() -> tuple[str, ...]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return tuple(IMG_EXTENSIONS)
