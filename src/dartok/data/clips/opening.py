"""Open what a command names as videos: a folder, a list or shards, told apart by its look."""

from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from dartok.data.beside import data_beside
from dartok.data.clips.sources import ClipFolder, ClipList, clip_shards
from dartok.data.labels import read_class_names
from dartok.data.samples import AnySource
from dartok.data.shard_list import list_shards

__all__ = ["clips_beside", "open_clips"]

_TARS = (".tar", ".tar.gz", ".tgz")
_LISTS = (".csv", ".tsv", ".txt")


def open_clips(
    data: str,
    class_names: tuple[str, ...] | None = None,
    *,
    classes: Path | None = None,
    root: Path | None = None,
    num_samples: int | None = None,
) -> AnySource:
    """Videos with labels, to train or evaluate on.

    Args:
        data: A folder of class folders; a .csv, .tsv or .txt list of videos and labels; or
            WebDataset shards, as a path, URL or pattern, or a .txt file with one a line.
        class_names: Classes to expect, such as those of a model; None for those of the data.
        classes: Text file with one class a line, in the order of the numbers in a list or shards;
            by default the numbers are the names, or classes.txt beside the shards.
        root: Folder that the paths of a list start from; by default the one that it lies in.
        num_samples: Videos in all shards; by default as sizes.json beside them says, or counted.
    Raises:
        ImportError: If a package is missing that reads it.
        ValueError: If it is missing or of other classes, or a setting does not apply to it.
    Example:
        >>> open_clips("missing")
        Traceback (most recent call last):
        ValueError: folder missing does not exist; check the path
    """
    _refuse_pictures(data)
    kind = _kind(data)
    if classes is not None and kind == "folder":
        raise ValueError(
            f"classes are named by the folders of {data}, got the file {classes}; leave out "
            "--classes"
        )
    if root is not None and kind != "list":
        raise ValueError(f"root is for a list of videos, got {root} for {data}; leave it out")
    if num_samples is not None and kind != "shards":
        raise ValueError(
            f"num-samples is for shards, got {num_samples} for {data}, whose videos are counted; "
            "leave out --num-samples"
        )
    own = None if classes is None else read_class_names(classes)
    if kind == "shards":
        return clip_shards(list_shards(data), class_names, own, num_samples)
    if kind == "list":
        return ClipList(data, root, class_names, own)
    return ClipFolder(data, class_names)


def clips_beside(data: str) -> str:
    """What to evaluate on: what lies beside the training videos under a name for it.

    The folder `val`, `valid`, `validation` or `test`; for files, their name or their folder's with
    one of these for "train".

    Raises:
        ValueError: If there is none.
    """
    return data_beside(data, _is_there)


def _kind(data: str) -> Literal["folder", "list", "shards"]:
    """What the words of a command mean; only a list is looked into."""
    if data.startswith("pipe:") or data.endswith(_TARS):
        return "shards"
    if data.endswith(_LISTS):
        return "shards" if _lists_shards(Path(data)) else "list"
    return "folder"


def _refuse_pictures(data: str) -> None:
    if data == "digits" or data.startswith("hf:") or data.endswith(".parquet"):
        raise ValueError(
            f"videos are a folder of class folders, a list (.csv, .tsv, .txt) or shards, got {data}"
            "; write a list of their files"
        )


def _lists_shards(path: Path) -> bool:
    """Whether the first line that is no comment is a tar file or an address."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = (line.strip() for line in file)
            first = next((line for line in lines if line and not line.startswith("#")), "")
    except OSError:
        return False
    return first.endswith(_TARS) or urlsplit(first).scheme != ""


def _is_there(data: str) -> bool:
    kind = _kind(data)
    if kind != "shards":
        return Path(data).is_dir() if kind == "folder" else Path(data).is_file()
    try:
        return bool(list_shards(data))
    except ValueError:
        return False
