"""Predictions as a folder of Parquet files."""

from pathlib import Path
from typing import TYPE_CHECKING

from dartok.core.files import write_beside
from dartok.data.samples import BadSample
from dartok.train.prediction import Prediction

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = ["PredictionParts", "predictions_of", "table_of"]

_ROWS = 65536


def table_of(found: list[Prediction | BadSample]) -> "Table":
    """One row per picture: "image", "class", "top", "shares", "error".

    "top" are the names of the likeliest classes and "shares" their softmax values; of a picture
    that could not be read, "error" is the reason and the others are missing.
    """
    import pyarrow

    schema = pyarrow.schema(
        [
            ("image", pyarrow.string()),
            ("class", pyarrow.string()),
            ("top", pyarrow.list_(pyarrow.string())),
            ("shares", pyarrow.list_(pyarrow.float64())),
            ("error", pyarrow.string()),
        ]
    )
    return pyarrow.Table.from_pylist([_row(each) for each in found], schema=schema)


def predictions_of(table: "Table") -> list[Prediction | BadSample]:
    """What `table_of` made a table of, but for what the model saw."""
    return [
        Prediction(row["image"], tuple(row["top"]), tuple(row["shares"]))
        if row["error"] is None
        else BadSample(row["image"], row["error"])
        for row in table.to_pylist()
    ]


class PredictionParts:
    """Writes `part-00000.parquet` and so on, each at once, with the columns of `table_of`.

    Args:
        folder: Made if missing.
        rows: Of a file; the last one may have fewer.
    Raises:
        ValueError: If the folder holds Parquet files already, or is a file.
        ImportError: Without pyarrow; names the extra.
    """

    def __init__(self, folder: Path, *, rows: int = _ROWS) -> None:
        try:
            import pyarrow  # noqa: F401  # not first missed when a part is full
        except ImportError as error:
            raise ImportError("out-parquet needs pyarrow: pip install 'dartok[data]'") from error
        if folder.is_file() or next(folder.glob("*.parquet"), None) is not None:
            raise ValueError(f"out-parquet {folder} must be a new or empty folder; choose another")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.rows = folder, rows
        self._held: list[Prediction | BadSample] = []
        self._number = 0

    def add(self, found: Prediction | BadSample) -> None:
        """Take one; it is written with the others of its part."""
        self._held.append(found)
        if len(self._held) == self.rows:
            self.close()

    def close(self) -> None:
        """Write what is held."""
        from pyarrow import parquet

        if not self._held:
            return
        table = table_of(self._held)
        path = self.folder / f"part-{self._number:05}.parquet"
        write_beside(path, lambda target: parquet.write_table(table, target))
        self._held, self._number = [], self._number + 1


def _row(found: Prediction | BadSample) -> dict[str, object]:
    if isinstance(found, BadSample):
        return {"image": found.name, "error": found.reason}
    top, shares = list(found.classes), list(found.shares)
    return {"image": found.name, "class": top[0], "top": top, "shares": shares}
