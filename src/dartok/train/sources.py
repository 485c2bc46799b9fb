"""The sources of pictures that a configuration names."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from dartok.data.beside import data_beside
from dartok.data.columns import Columns
from dartok.data.digit_source import DigitSource
from dartok.data.digits import CanvasConfig, Split
from dartok.data.folder import FolderSource
from dartok.data.hub import HubName, HubStream, TableSource, eval_split, open_hub, open_parquet
from dartok.data.labels import read_class_names
from dartok.data.parquet import ParquetStream, list_parquet
from dartok.data.samples import AnySource
from dartok.data.shard_list import list_shards
from dartok.data.shards import ShardSource
from dartok.data.source_config import DataConfig

__all__ = ["DIGITS", "eval_source", "source_to_evaluate", "train_source"]

DIGITS = "digits"
"""Name of the embedded digits, instead of a folder."""

Kind = Literal["digits", "folder", "hub", "parquet", "shards"]

_NUM_TEST_DIGITS = 1024
_CANVAS_PX = 192
_SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".txt")


def train_source(config: DataConfig) -> AnySource:
    """What to train on.

    Raises:
        ValueError: If it is missing, holds no pictures of at least two classes, or a setting does
            not apply to it.
        ImportError: If a package is missing that reads it.
    """
    _check_settings(config)
    if config.data == DIGITS:
        return _digits("train", config.num_digits)
    return _open(config.data, config, None, "train", config.num_samples)


def eval_source(config: DataConfig, class_names: tuple[str, ...]) -> AnySource:
    """What to evaluate on, with the classes of the training pictures.

    Raises:
        ValueError: If there is none, or it holds other classes.
        ImportError: If a package is missing that reads it.
    """
    data = config.val or _beside(config.data)
    settings = replace(config, data=data, val=None, num_samples=config.val_num_samples)
    return source_to_evaluate(settings, class_names)


def source_to_evaluate(config: DataConfig, class_names: tuple[str, ...]) -> AnySource:
    """Pictures to evaluate on, which `config.data` names, with the classes of a model.

    Args:
        config: Where they are and how they are read; of "digits" the test digits.
        class_names: Classes of the model.
    Raises:
        ValueError: If they are missing or of other classes.
        ImportError: If a package is missing that reads them.
    """
    data = config.data
    if data == DIGITS:
        return _digits("test", _NUM_TEST_DIGITS)
    split = HubName.parse(data).split if _kind(data) == "hub" else None
    if _kind(data) == "hub" and split is None:
        split = eval_split(HubName.parse(data).name)
    return _open(data, config, class_names, split or "", config.num_samples)


def _kind(data: str) -> Kind:
    """What the words of a command mean; only a folder is looked into."""
    if data == DIGITS:
        return "digits"
    if data.startswith("hf:") and not data.startswith("hf://"):
        return "hub"
    if data.startswith("pipe:") or data.endswith(_SHARD_SUFFIXES):
        return "shards"
    if data.endswith(".parquet") or next(Path(data).glob("*.parquet"), None) is not None:
        return "parquet"
    return "folder"


def _check_settings(config: DataConfig) -> None:
    """Refuse what would be passed over."""
    kind = _kind(config.data)
    if config.stream and kind not in ("hub", "parquet", "shards"):
        raise ValueError(
            f"stream needs Parquet files or a Hugging Face dataset, got {config.data}; "
            "leave out --stream"
        )
    if config.classes is not None and kind in ("digits", "folder"):
        raise ValueError(
            f"classes are named by the folders or digits of {config.data}, got the file "
            f"{config.classes}; leave out --classes"
        )
    if config.num_samples is not None and not (
        kind == "shards" or (kind == "hub" and config.stream)
    ):
        raise ValueError(
            f"num-samples is for shards and Hugging Face streams, got {config.num_samples} for "
            f"{config.data}, whose pictures are counted; leave out --num-samples"
        )


def _open(
    data: str,
    config: DataConfig,
    class_names: tuple[str, ...] | None,
    split: str,
    num_samples: int | None,
) -> AnySource:
    kind = _kind(data)
    if kind == "folder":
        return FolderSource(data, class_names)
    own = None if config.classes is None else read_class_names(config.classes)
    if kind == "shards":
        return ShardSource(list_shards(data), class_names, own, num_samples)
    columns = Columns(config.image_column, config.label_column)
    if kind == "parquet":
        paths = list_parquet(data)
        if config.stream:
            return ParquetStream(paths, columns, class_names, own)
        table = open_parquet(paths)
    else:
        name = HubName.parse(data)
        table = open_hub(name.name, name.split or split, stream=config.stream)
    if kind == "hub" and config.stream:
        return HubStream(table, columns, data, class_names, own, num_samples)
    return TableSource(table, columns, data, class_names, own)


def _digits(split: Split, number: int) -> DigitSource:
    return DigitSource(CanvasConfig(size_px=_CANVAS_PX), split=split, num_canvases=number)


def _beside(data: str) -> str:
    """What lies where the training pictures do, under a name for evaluation."""
    kind = _kind(data)
    if kind == "digits":
        return data
    if kind == "hub":
        return f"hf:{HubName.parse(data).name}"
    return data_beside(data, _is_there)


def _is_there(data: str) -> bool:
    kind = _kind(data)
    if kind == "folder":
        return Path(data).is_dir()
    try:
        return bool(list_shards(data) if kind == "shards" else list_parquet(data))
    except ValueError:
        return False
