"""Which tar files a pattern or a list names, and the small text files beside them."""

import glob
import json
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

__all__ = ["is_local", "list_shards", "open_shard", "sizes_beside", "text_beside"]

_SCHEMES = ("file", "ftps", "gs", "hf", "http", "https", "sftp")
_UNQUOTED = frozenset(" \t\n\r'\"`$;|<>\\")
"""What no URL holds unless percent-encoded: these could be taken for a command."""
_COMMAND = "pipe"
"""Scheme of a shell command whose output is the shard: run only where the user wrote it."""


def list_shards(data: str) -> list[str]:
    """The shards of a path, URL or pattern, or of a text file with one path or URL a line.

    Braces as in `{000..127}` are spelt out everywhere, * and ? in local paths; a path in a text
    file is meant from its folder on. `pipe:COMMAND` runs a shell command and reads what it prints;
    a text file, which may come from elsewhere, must not hold any.

    Raises:
        ImportError: Without webdataset, the extra `data`.
        ValueError: If a local shard is missing, or an entry is of a kind that is not read.
    """
    if data.endswith(".txt"):
        shards = _listed(Path(data))
    else:
        shards = [shard for each in _spelt_out(data) for shard in _matches(each)]
    for shard in shards:
        _check(shard, data)
    return shards


def is_local(shard: str) -> bool:
    """Whether a shard is a path."""
    return urlsplit(shard).scheme == ""


def open_shard(shard: str) -> IO[bytes]:
    """A shard or a file beside it as a stream of bytes.

    Raises:
        ImportError: Without webdataset, the extra `data`.
        OSError: If it cannot be opened.
    """
    _check_library()
    from webdataset.gopen import gopen

    stream: IO[bytes] = gopen(shard)
    return stream


def text_beside(shard: str, name: str) -> str | None:
    """A text file in the folder of a shard, None if there is none."""
    if urlsplit(shard).scheme == _COMMAND:
        return None
    folder, slash, _ = shard.rpartition("/")
    try:
        with closing(open_shard(f"{folder}{slash}{name}")) as stream:
            return stream.read().decode("utf-8") or None
    except OSError:
        return None


def sizes_beside(shards: list[str]) -> list[int] | None:
    """Pictures in each shard after sizes.json beside them, None if one is not in it.

    Raises:
        ValueError: If the file does not hold numbers by name.
    """
    folders: dict[str, dict[str, int]] = {}
    sizes: list[int] = []
    for shard in shards:
        folder = shard.rpartition("/")[0]
        if folder not in folders:
            folders[folder] = _parse_sizes(text_beside(shard, "sizes.json"), folder)
        size = folders[folder].get(PurePosixPath(shard).name)
        if size is None:
            return None
        sizes.append(size)
    return sizes


def _listed(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"list of shards {path} cannot be read ({error}); check it") from error
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise ValueError(f"list of shards {path} must hold a path or URL a line, got none")
    return [str(path.parent / entry) if is_local(entry) else entry for entry in entries]


def _spelt_out(pattern: str) -> list[str]:
    _check_library()
    from braceexpand import braceexpand

    try:
        return list(braceexpand(pattern))
    except ValueError as error:
        raise ValueError(f"data must close each of its braces, got {pattern!r}") from error


def _matches(shard: str) -> list[str]:
    if not is_local(shard) or Path(shard).exists():
        return [shard]
    return sorted(glob.glob(shard)) or [shard]


def _check(shard: str, data: str) -> None:
    scheme = urlsplit(shard).scheme
    if scheme == _COMMAND and data.startswith("pipe:"):
        return
    if scheme and scheme not in _SCHEMES:
        raise ValueError(
            f"shards of {data} must be paths or URLs of {', '.join(_SCHEMES)}, got {shard!r}"
        )
    if scheme and not _UNQUOTED.isdisjoint(shard):
        raise ValueError(
            f"shards of {data} must be URLs without spaces, quotes and signs of a shell, got "
            f"{shard!r}; percent-encode them"
        )
    if not scheme and not Path(shard).is_file():
        raise ValueError(f"shard {shard} of {data} does not exist; check the path")


def _parse_sizes(text: str | None, folder: str) -> dict[str, int]:
    try:
        sizes = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ValueError(f"sizes.json in {folder} is no JSON ({error}); mend it") from error
    if not isinstance(sizes, dict) or not all(type(size) is int for size in sizes.values()):
        raise ValueError(
            f"sizes.json in {folder} must hold a whole number for each shard's name, as in "
            '{"000.tar": 1000}; mend or remove it'
        )
    return sizes


def _check_library() -> None:
    try:
        import webdataset  # noqa: F401
    except ImportError as error:
        raise ImportError("tar shards need webdataset: pip install 'dartok[data]'") from error
