"""Pictures in Hugging Face datasets, and in Parquet files read by index through them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from dartok.data.columns import Columns, picture_bytes
from dartok.data.images import decode_image
from dartok.data.labels import Labels, distinct_names
from dartok.data.samples import RawSample, SourceError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

__all__ = ["HubName", "HubStream", "TableSource", "eval_split", "open_hub", "open_parquet"]

_EVAL_SPLITS = ("validation", "valid", "val", "test")
_ROWS_AT_ONCE = 16


class HubName(NamedTuple):
    """A dataset and a split of it, such as `hf:ylecun/mnist:train`."""

    name: str
    split: str | None

    @staticmethod
    def parse(data: str) -> "HubName":
        """From `hf:NAME` or `hf:NAME:SPLIT`.

        Raises:
            ValueError: If there is no name.
        Example:
            >>> HubName.parse("hf:ylecun/mnist:train[:10%]")
            HubName(name='ylecun/mnist', split='train[:10%]')
        """
        name, _, split = data.removeprefix("hf:").partition(":")
        if not name:
            raise ValueError(f"data must be hf:NAME or hf:NAME:SPLIT, got {data!r}")
        return HubName(name, split or None)


def open_hub(name: str, split: str, *, stream: bool) -> Any:
    """A `datasets.Dataset` of the Hugging Face Hub or of a local folder, or an `IterableDataset`.

    By index it is downloaded to Hugging Face's cache; as a stream only what is read is.

    Raises:
        ImportError: Without datasets, the extra `data`.
        ValueError: If it cannot be opened, or has no such split.
    """
    return _load(f"hf:{name}:{split}", name, split=split, streaming=stream)


def open_parquet(paths: Sequence[Path]) -> Any:
    """Parquet files as a `datasets.Dataset`: read by index, from a copy in Hugging Face's cache.

    Raises:
        ImportError: Without datasets, the extra `data`.
        ValueError: If the files cannot be read.
    """
    files = [str(path) for path in paths]
    return _load(files[0], "parquet", split="train", streaming=False, data_files=files)


def eval_split(name: str) -> str:
    """The split of a dataset to evaluate on: the first of validation, val and test.

    Raises:
        ImportError: Without datasets, the extra `data`.
        ValueError: If there is none.
    """
    datasets = _library()
    try:
        there = datasets.get_dataset_split_names(name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise _unopened(f"hf:{name}", error) from error
    found = [split for split in _EVAL_SPLITS if split in there]
    if not found:
        raise ValueError(
            f"val must name a split to evaluate on: hf:{name} has {', '.join(there)} and none of "
            f"{', '.join(_EVAL_SPLITS)}; give --val hf:{name}:SPLIT"
        )
    return found[0]


class TableSource:
    """A table with a column of pictures and one of labels, read by index.

    Args:
        table: The table.
        columns: Which columns they are.
        where: What to call the table in a message.
        class_names: Classes to expect, such as those of the training pictures.
        own: Classes as the table numbers them; by default as it notes them itself. Without either
            the classes are the distinct labels, sorted.
    Raises:
        ValueError: If a column is missing, a label is none of the classes, or there are fewer than
            two of them.
    """

    def __init__(
        self,
        table: "Dataset",
        columns: Columns,
        where: str,
        class_names: tuple[str, ...] | None = None,
        own: tuple[str, ...] | None = None,
    ) -> None:
        columns.check(table.column_names, where)
        self._where = where
        cells = table[columns.label][:]
        own = own or _noted_names(table, columns)
        self.class_names = class_names or own or distinct_names(cells, where)
        labels = Labels(self.class_names, own, where=where)
        indices = (labels.index(cell, self.name(row)) for row, cell in enumerate(cells))
        self._labels = np.fromiter(indices, dtype=np.int32, count=len(cells))
        self._column = columns.image
        self._pictures = _undecoded(table.select_columns([columns.image]), columns)

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> int:
        """Class of a picture."""
        return int(self._labels[index])

    def name(self, index: int) -> str:
        """The table and the row."""
        return f"{self._where} row {index}"

    def load(self, index: int) -> Image.Image:
        """A picture in RGB, upright.

        Raises:
            ValueError: If it is damaged; names the row.
        """
        return decode_image(picture_bytes(self._pictures[index][self._column]), self.name(index))


class HubStream:
    """A dataset of the Hugging Face Hub as a stream of its files.

    Args:
        table: The dataset, opened as a stream.
        columns: Which of its columns hold pictures and labels.
        where: What to call it in a message.
        class_names: Classes to expect, such as those of the training pictures.
        own: Classes as the dataset numbers them; by default as it notes them itself.
        num_samples: Number of pictures, where the dataset does not note it.
    Raises:
        ValueError: If a column is missing, or the classes or the number of pictures are unknown.
    """

    def __init__(
        self,
        table: "IterableDataset",
        columns: Columns,
        where: str,
        class_names: tuple[str, ...] | None = None,
        own: tuple[str, ...] | None = None,
        num_samples: int | None = None,
    ) -> None:
        if table.column_names is None:
            raise ValueError(f"columns of {where} are unknown as a stream; leave out --stream")
        columns.check(table.column_names, where)
        own = own or _noted_names(table, columns)
        if own is None and class_names is None:
            raise ValueError(
                f"classes of {where} are not noted in it; name them in a file, one a line, and "
                "give it as --classes, or leave out --stream"
            )
        self.class_names = class_names or own or ()
        self._labels = Labels(self.class_names, own, where=where)
        self._num_samples = num_samples or _noted_number(table, where)
        self._where, self._columns = where, columns
        self._table = _undecoded(table.select_columns(list(columns)), columns)
        self.num_shards = int(self._table.num_shards)

    def __len__(self) -> int:
        return self._num_samples

    def read_shard(self, shard: int) -> Iterator[RawSample]:
        """The rows of a file.

        Raises:
            SourceError: If a label is none of the classes, or the rows cannot be read.
        """
        table = self._table.shard(num_shards=self.num_shards, index=shard)
        row = 0
        for rows in self._rows(table, shard):
            for image, label in zip(*(rows[column] for column in self._columns), strict=True):
                name = f"{self._where} shard {shard} row {row}"
                yield RawSample(name, self._labels.index(label, name), picture_bytes(image))
                row += 1

    def _rows(self, table: Any, shard: int) -> Iterator[dict[str, list[Any]]]:
        several = table.iter(_ROWS_AT_ONCE)  # `iter(table)` would split it among workers again
        while True:
            try:
                rows = next(several, None)
            except Exception as error:  # network, format: no common class
                reason = str(error).split("\n")[0] or type(error).__name__
                raise SourceError(
                    f"shard {shard} of {self._where} cannot be read ({reason}); go on by --resume"
                ) from error
            if rows is None:
                return
            yield rows


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError(
            "Hugging Face datasets, and Parquet files without --stream, need datasets: "
            "pip install 'dartok[data]'"
        ) from error
    return datasets


def _load(
    where: str, name: str, *, split: str, streaming: bool, data_files: list[str] | None = None
) -> Any:
    datasets = _library()
    try:
        return datasets.load_dataset(name, split=split, streaming=streaming, data_files=data_files)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise _unopened(where, error) from error


def _unopened(where: str, error: Exception) -> ValueError:
    reason = str(error).split("\n")[0]
    return ValueError(
        f"{where} cannot be opened ({reason}); check the name, the split and the network"
    )


def _noted_names(table: Any, columns: Columns) -> tuple[str, ...] | None:
    names = getattr((table.features or {}).get(columns.label), "names", None)
    return tuple(names) if names else None


def _noted_number(table: "IterableDataset", where: str) -> int:
    splits = table.info.splits or {}
    number = splits[str(table.split)].num_examples if str(table.split) in splits else 0
    if not number:
        raise ValueError(
            f"num-samples must be given for {where}, which does not note its number of pictures; "
            "give --num-samples, or --val-num-samples for what a run evaluates on, or leave out "
            "--stream"
        )
    return int(number)


def _undecoded(table: Any, columns: Columns) -> Any:
    """The table with pictures as the bytes of their files, to be decoded by our rules."""
    datasets = _library()
    if isinstance((table.features or {}).get(columns.image), datasets.Image):
        return table.cast_column(columns.image, datasets.Image(decode=False))
    return table
