"""Where pictures come from: settings only."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

__all__ = ["DataConfig", "DataKind"]

DataKind = Literal["pictures", "videos", "label maps"]

_OF_TABLES = ("stream", "image_column", "label_column")
_PASSED_OVER: dict[DataKind, tuple[str, ...]] = {
    "pictures": ("root",),
    "videos": (*_OF_TABLES, "num_digits"),
    "label maps": (
        *_OF_TABLES,
        "classes",
        "num_samples",
        "val_num_samples",
        "root",
        "shuffle_buffer",
        "num_digits",
    ),
}
"""Settings that the readers of each kind do not look at."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from."""

    data: str
    """What to train on: a folder of class folders; a Parquet file, pattern or folder of them;
    hf:NAME or hf:NAME:SPLIT of the Hugging Face Hub; WebDataset shards, as a path, URL or pattern
    such as shards/{000..127}.tar, or a .txt file with one a line; or "digits" for the digits in
    clutter of the demo."""
    val: str | None = None
    """What to evaluate on, likewise; by default `val` or `test` beside `data`: the folder, the
    files named so instead of train, or the split."""
    stream: bool = False
    """Read Parquet files or a Hugging Face dataset as a stream, without the copy in Hugging Face's
    cache that reading by index needs. Shards are always a stream. The order of a stream depends on
    --workers."""
    classes: Path | None = None
    """Text file with one class a line, in the order of the numbers in Parquet files or shards; by
    default what the table notes, or classes.txt beside the shards."""
    num_samples: int | None = None
    """Pictures in all training shards, or in a Hugging Face stream; by default as sizes.json beside
    the shards says or the dataset notes, or counted once where shards are local."""
    val_num_samples: int | None = None
    """The same for what is evaluated on."""
    image_column: str = "image"
    """Column of a table that holds the pictures."""
    label_column: str = "label"
    """Column of a table that holds their classes."""
    root: Path | None = None
    """Folder that the paths in a list of videos start from; by default the one it lies in."""
    shuffle_buffer: int = 1000
    """Pictures of a training stream that each worker mixes in memory."""
    image_px: int | None = None
    """Side that pictures are resized and cropped to; by default the model's own."""
    workers: int = 2
    """Processes that read and augment pictures, for each training process."""
    max_bad_share: float = 0.01
    """The run stops when more than this share of the pictures is damaged."""
    num_digits: int = 4096
    """Canvases in an epoch of "digits"."""

    def __post_init__(self) -> None:
        _at_least("image-px", self.image_px, 1)
        _at_least("workers", self.workers, 0)
        _at_least("num-digits", self.num_digits, 1)
        _at_least("num-samples", self.num_samples, 1)
        _at_least("val-num-samples", self.val_num_samples, 1)
        _at_least("shuffle-buffer", self.shuffle_buffer, 1)
        if self.image_column == self.label_column:
            raise ValueError(
                f"image-column and label-column must differ, got {self.image_column!r} twice"
            )
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max-bad-share must be from 0 to 1, got {self.max_bad_share}")

    def check_kind(self, kind: DataKind) -> None:
        """Refuse settings that data of a kind would pass over.

        Raises:
            ValueError: Naming the first that is not at its default.
        """
        usual = {field.name: field.default for field in fields(self)}
        for name in _PASSED_OVER[kind]:
            if getattr(self, name) != usual[name]:
                flag = name.replace("_", "-")
                raise ValueError(
                    f"{flag} is not for {kind}, got {getattr(self, name)}; drop --{flag}"
                )


def _at_least(flag: str, value: int | None, lowest: int) -> None:
    if value is not None and value < lowest:
        raise ValueError(f"{flag} must be >= {lowest}, got {value}")
