"""Where videos come from: folders of class folders, lists, and shards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dartok.data.clips.clip_list import read_clip_list
from dartok.data.clips.video import (
    VIDEO_SUFFIXES,
    Video,
    check_decoder,
    decode_video,
    open_video,
)
from dartok.data.folder import ClassFolders, files_below
from dartok.data.labels import Labels, distinct_names
from dartok.data.names import PackedNames
from dartok.data.shards import Members, ShardSource

__all__ = ["VIDEOS", "ClipFolder", "ClipList", "clip_shards"]

VIDEOS = Members("video", tuple(suffix[1:] for suffix in VIDEO_SUFFIXES), decode_video)
"""What shards of videos hold."""


class ClipFolder(ClassFolders):
    """A folder with one folder of videos per class, named after it; classes in sorted order.

    Videos are found at any depth below a class folder. In a class folder without any video file,
    each folder of pictures is a video, its pictures the frames.

    Args:
        root: The folder.
        class_names: Classes to expect, such as those of the training folder; None for the folders'
            own names. A class without a folder is allowed then, a folder without a class is not.
    Raises:
        ImportError: Without PyAV, the extra `video`.
        ValueError: If the folder is missing, holds fewer than two classes, an empty one, or one
            that is not expected.
    Example:
        >>> ClipFolder("missing")
        Traceback (most recent call last):
        ValueError: folder missing does not exist; check the path
    """

    def __init__(self, root: str | Path, class_names: tuple[str, ...] | None = None) -> None:
        check_decoder()
        super().__init__(root, class_names, "video", _videos)

    def load(self, index: int) -> Video:
        """A video, of which nothing is decoded yet.

        Raises:
            ValueError: If it is seen to be damaged; names the file.
        """
        return open_video(self.root / self.name(index))


class ClipList:
    """The videos that a text file lists with their labels; see `read_clip_list`.

    Files are not looked for before they are read: a missing one is passed over and named then.

    Args:
        path: Of the list.
        root: Folder that its paths start from; by default the one that the list lies in.
        class_names: Classes to expect, such as those of the training videos.
        own: Classes as the list numbers them. Without either, the labels themselves are the names
            of the classes: numbers in their order, names in alphabetical order.
    Raises:
        ImportError: Without PyAV, the extra `video`.
        ValueError: If it cannot be read, or a label is none of the classes.
    """

    def __init__(
        self,
        path: str | Path,
        root: str | Path | None = None,
        class_names: tuple[str, ...] | None = None,
        own: tuple[str, ...] | None = None,
    ) -> None:
        check_decoder()
        path = Path(path)
        self.root = path.parent if root is None else Path(root)
        listed = read_clip_list(path)
        where = f"list {path}"
        names = class_names or own or distinct_names((each.label for each in listed), where)
        labels = Labels(names, own, where=where)
        self.class_names = names
        self._names = PackedNames(each.path for each in listed)
        self._labels = np.array(
            [labels.index(each.label, each.path) for each in listed], dtype=np.int32
        )

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> int:
        """Class of a video."""
        return int(self._labels[index])

    def name(self, index: int) -> str:
        """Path of a video, as the list has it."""
        return self._names[index]

    def load(self, index: int) -> Video:
        """A video, of which nothing is decoded yet.

        Raises:
            ValueError: If it is missing, or seen to be damaged; names the file.
        """
        return open_video(self.root / self.name(index))


def clip_shards(
    shards: Sequence[str],
    class_names: tuple[str, ...] | None = None,
    own: tuple[str, ...] | None = None,
    num_samples: int | None = None,
) -> ShardSource:
    """Tar files in which 17.mp4 and 17.cls, side by side, are a video and its label.

    Each worker holds the bytes of as many videos as it mixes in memory.

    Args:
        shards: Paths and URLs, such as `list_shards` gives.
        class_names: Classes to expect, such as those of the training videos.
        own: Classes as the shards number them; by default classes.txt beside them.
        num_samples: Number of videos in all shards; see `ShardSource`.
    Raises:
        ImportError: Without PyAV or webdataset, the extras `video` and `data`.
        ValueError: If the classes or the number are unknown, or a shard is broken.
    """
    check_decoder()
    return ShardSource(shards, class_names, own, num_samples, VIDEOS)


def _videos(folder: Path) -> list[Path]:
    """Files, or else folders of frames."""
    from torchvision.datasets.folder import IMG_EXTENSIONS

    files = files_below(folder, VIDEO_SUFFIXES)
    if files:
        return files
    folders = {path.parent for path in files_below(folder, IMG_EXTENSIONS)}
    return sorted(folders - {folder})
