"""Pictures in tar shards, as the WebDataset library lays them out."""

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from dartok.data.images import decode_image
from dartok.data.labels import Labels, parse_class_names
from dartok.data.samples import RawSample, SourceError
from dartok.data.shard_list import is_local, open_shard, sizes_beside, text_beside

__all__ = ["PICTURES", "Members", "ShardSource"]

_LABEL = "cls"
_BROKEN = (OSError, EOFError, ValueError, tarfile.TarError, zlib.error)


class Members(NamedTuple):
    """What shards hold a label of each."""

    what: str
    """Word for one of them, for messages."""
    suffixes: tuple[str, ...]
    """Of their names, in small letters without the dot; the first that is there counts."""
    decode: Callable[[bytes, str], Any]
    """Reads one; the name is for the message."""


PICTURES = Members("picture", ("jpg", "jpeg", "png", "webp"), decode_image)


class ShardSource:
    """Tar files in which 17.jpg and 17.cls, side by side, are a picture and its label.

    Labels are numbers or names. Only the bytes of these two members are read: nothing is unpickled
    and nothing is run.

    Args:
        shards: Paths and URLs, such as `list_shards` gives.
        class_names: Classes to expect, such as those of the training pictures.
        own: Classes as the shards number them; by default classes.txt beside them.
        num_samples: Number of pictures in all shards; by default as sizes.json beside them says, or
            counted, which reads local shards through once.
        members: What is labelled, if not pictures.
    Raises:
        ImportError: Without webdataset, the extra `data`.
        ValueError: If the classes or the number are unknown, or a shard is broken.
    """

    def __init__(
        self,
        shards: Sequence[str],
        class_names: tuple[str, ...] | None = None,
        own: tuple[str, ...] | None = None,
        num_samples: int | None = None,
        members: Members = PICTURES,
    ) -> None:
        self._shards = list(shards)
        self._members = members
        own = own or _noted_names(shards[0])
        if own is None and class_names is None:
            raise ValueError(
                f"classes of {shards[0]} are unknown: no classes.txt is beside it; name them in a "
                "file, one a line, and give it as --classes"
            )
        self.class_names = class_names or own or ()
        self._labels = Labels(self.class_names, own, where=shards[0])
        self._num_samples = num_samples or _number_of_samples(self._shards, members)
        self.num_shards = len(self._shards)

    def __len__(self) -> int:
        return self._num_samples

    def read_shard(self, shard: int) -> Iterator[RawSample]:
        """The pictures of a tar file.

        Raises:
            SourceError: If it is broken, or a picture or label is missing.
        """
        what, suffixes, decode = self._members
        for sample in _samples(self._shards[shard], suffixes):
            key = sample["__key__"]
            assert isinstance(key, str)
            name = f"{PurePosixPath(self._shards[shard]).name}/{key}"
            pictures = [sample[suffix] for suffix in suffixes if suffix in sample]
            if not pictures or _LABEL not in sample:
                lacking = "label (.cls)" if pictures else f"{what} (.{', .'.join(suffixes)})"
                raise SourceError(
                    f"{name} must be a {what} and a label, got no {lacking}; add it or remove the "
                    "other"
                )
            data, label = pictures[0], sample[_LABEL]
            assert isinstance(data, bytes)
            assert isinstance(label, bytes)
            yield RawSample(name, self._labels.index(_parsed(label), name), data, decode)


def _samples(shard: str, suffixes: tuple[str, ...]) -> Iterator[dict[str, object]]:
    """What the library groups of a tar file's members."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    wanted = partial(_is_wanted, suffixes=suffixes)
    try:
        with closing(open_shard(shard)) as stream:
            source = [{"url": shard, "stream": stream}]
            yield from group_by_keys(tar_file_expander(source, select_files=wanted))
    except _BROKEN as error:
        raise _broken(shard, error) from error


def _broken(shard: str, error: Exception) -> SourceError:
    reason = str(error.args[0] if error.args else error).split("\n")[0]
    return SourceError(
        f"shard {shard} cannot be read ({reason or type(error).__name__}); fetch or write it again"
    )


def _is_wanted(member: str, suffixes: tuple[str, ...]) -> bool:
    key, suffix = _split(member)
    return key[-1:] not in ("", "/") and suffix in (*suffixes, _LABEL)


def _split(member: str) -> tuple[str, str]:
    """A member's name at the first dot after its folders, as the library splits it."""
    folder, slash, name = member.rpartition("/")
    stem, _, suffix = name.partition(".")
    return folder + slash + stem, suffix.lower()


def _parsed(label: bytes) -> int | str:
    text = label.decode("utf-8", "replace").strip()
    return int(text) if text.isdecimal() else text


def _noted_names(shard: str) -> tuple[str, ...] | None:
    text = text_beside(shard, "classes.txt")
    return None if text is None else parse_class_names(text, f"classes.txt beside {shard}")


def _number_of_samples(shards: list[str], members: Members) -> int:
    sizes = sizes_beside(shards)
    if sizes is not None:
        return sum(sizes)
    remote = [shard for shard in shards if not is_local(shard)]
    if remote:
        raise ValueError(
            f"num-samples must be given: {remote[0]} is not counted, and no sizes.json beside it "
            "names it; give --num-samples, or --val-num-samples for what a run evaluates on"
        )
    return sum(_count(shard, members.suffixes) for shard in shards)


def _count(shard: str, suffixes: tuple[str, ...]) -> int:
    """Samples in a local tar file, whose contents are passed over."""
    try:
        with tarfile.open(shard) as tar:
            members = (member.name for member in tar if member.isreg())
            keys = (_split(name)[0] for name in members if _is_wanted(name, suffixes))
            return sum(1 for _ in groupby(keys))
    except _BROKEN as error:
        raise _broken(shard, error) from error
