"""Pictures in local Parquet files, read as a stream of row groups."""

import glob
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dartok.data.columns import Columns, picture_bytes
from dartok.data.labels import Labels, distinct_names
from dartok.data.samples import RawSample, SourceError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

__all__ = ["ParquetStream", "list_parquet"]

_ROWS_AT_ONCE = 16


def list_parquet(data: str) -> list[Path]:
    """The Parquet files that a path, a pattern with * and ?, or a folder names, sorted.

    Raises:
        ValueError: If there are none.
    """
    root = Path(data)
    pattern = str(root / "*.parquet") if root.is_dir() else data
    paths = [root] if root.is_file() else [Path(path) for path in sorted(glob.glob(pattern))]
    if not paths:
        raise ValueError(f"data must name Parquet files, got {data}, which matches none")
    return paths


class ParquetStream:
    """The rows of Parquet files, each row group a shard; labels are read once at the start.

    Args:
        paths: The files.
        columns: Which of their columns hold pictures and labels.
        class_names: Classes to expect, such as those of the training pictures.
        own: Classes as the files number them; by default as Hugging Face notes them in the files.
            Without either the classes are the distinct labels, sorted.
    Raises:
        ImportError: Without pyarrow, the extra `data`.
        ValueError: If a file is no Parquet file, lacks a column, or there are fewer than two
            classes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        columns: Columns,
        class_names: tuple[str, ...] | None = None,
        own: tuple[str, ...] | None = None,
    ) -> None:
        self._paths, self._columns = list(paths), columns
        self._groups: list[tuple[int, int, int]] = []  # file, group, first row
        self._num_rows = 0
        for number, path in enumerate(self._paths):
            self._add_groups(number, path)
        own = own or self._noted_names()
        names = class_names or own or distinct_names(self._all_labels(), str(self._paths[0]))
        self._labels = Labels(names, own, where=str(self._paths[0]))
        self.class_names = names
        self.num_shards = len(self._groups)

    def __len__(self) -> int:
        return self._num_rows

    def read_shard(self, shard: int) -> Iterator[RawSample]:
        """The rows of a row group.

        Raises:
            SourceError: If it is broken, or a label is none of the classes.
        """
        number, group, row = self._groups[shard]
        for image, label in self._cells(self._paths[number], group):
            name = f"{self._paths[number].name} row {row}"
            yield RawSample(name, self._labels.index(label, name), picture_bytes(image))
            row += 1

    def _add_groups(self, number: int, path: Path) -> None:
        with _open(path) as file:
            self._columns.check(file.schema_arrow.names, str(path))
            row = 0
            for group in range(file.metadata.num_row_groups):
                self._groups.append((number, group, row))
                row += file.metadata.row_group(group).num_rows
            self._num_rows += row

    def _noted_names(self) -> tuple[str, ...] | None:
        with _open(self._paths[0]) as file:
            note = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        names = note.get("info", {}).get("features", {}).get(self._columns.label, {}).get("names")
        return tuple(names) if names else None

    def _all_labels(self) -> Iterator[object]:
        for path in self._paths:
            with _open(path) as file:
                for rows in file.iter_batches(columns=[self._columns.label], use_threads=False):
                    yield from rows.column(0).unique().to_pylist()

    def _cells(self, path: Path, group: int) -> Iterator[tuple[object, object]]:
        import pyarrow as pa

        image, label = self._columns
        with _open(path) as file:
            batches = file.iter_batches(
                _ROWS_AT_ONCE, row_groups=[group], columns=[image, label], use_threads=False
            )  # a forked worker must not wait for its parent's threads
            while True:
                try:
                    rows = next(batches, None)
                except (OSError, pa.ArrowException) as error:
                    raise SourceError(
                        f"row group {group} of {path} cannot be read ({_first_line(error)}); "
                        "write the file again"
                    ) from error
                if rows is None:
                    return
                columns = (rows.column(image).to_pylist(), rows.column(label).to_pylist())
                yield from zip(*columns, strict=True)


def _open(path: Path) -> "ParquetFile":
    try:
        import pyarrow as pa
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError("Parquet files need pyarrow: pip install 'dartok[data]'") from error
    try:
        file: Any = ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise ValueError(
            f"{path} cannot be read as a Parquet file ({_first_line(error)}); write it again"
        ) from error
    return file


def _first_line(error: Exception) -> str:
    return str(error).split("\n")[0]
