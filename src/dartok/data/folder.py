"""Pictures in a folder of class folders."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from dartok.data.images import open_image
from dartok.data.names import PackedNames

__all__ = ["ClassFolders", "FolderSource", "files_below"]


class ClassFolders:
    """A folder with one folder per class, named after it; classes in sorted order.

    Args:
        root: The folder.
        class_names: Classes to expect, such as those of the training folder; None for the folders'
            own names. A class without a folder is allowed then, a folder without a class is not.
        what: Word for what a class folder holds, for messages.
        find: What a class folder holds, sorted.
    Raises:
        ValueError: If the folder is missing, holds fewer than two classes, an empty one, or one
            that is not expected.
    """

    def __init__(
        self,
        root: str | Path,
        class_names: tuple[str, ...] | None,
        what: str,
        find: Callable[[Path], list[Path]],
    ) -> None:
        self.root = Path(root)
        folders = _class_folders(self.root)
        self.class_names = class_names or tuple(sorted(folders))
        _check_classes(self.root, folders, self.class_names, what)
        names: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(self.class_names):
            paths = find(folders[name]) if name in folders else []
            if name in folders and not paths:
                raise ValueError(
                    f"folder {folders[name]} holds no {what}; remove it or fill its class"
                )
            names += (path.relative_to(self.root).as_posix() for path in paths)
            labels += [label] * len(paths)
        self._names = PackedNames(names)
        self._labels = np.array(labels, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> int:
        """Class of what is at an index."""
        return int(self._labels[index])

    def name(self, index: int) -> str:
        """Path of what is at an index, from the folder on."""
        return self._names[index]


class FolderSource(ClassFolders):
    """A folder with one folder of pictures per class, named after it; classes in sorted order.

    Pictures are found at any depth below a class folder, in any format that torchvision lists.

    Args:
        root: The folder.
        class_names: Classes to expect, such as those of the training folder; None for the folders'
            own names. A class without a folder is allowed then, a folder without a class is not.
    Raises:
        ValueError: If the folder is missing, holds fewer than two classes, an empty one, or one
            that is not expected.
    Example:
        >>> FolderSource("missing")
        Traceback (most recent call last):
        ValueError: folder missing does not exist; check the path
    """

    def __init__(self, root: str | Path, class_names: tuple[str, ...] | None = None) -> None:
        super().__init__(root, class_names, "picture", _pictures)

    def load(self, index: int) -> Image.Image:
        """A picture in RGB, upright.

        Raises:
            ValueError: If it is damaged; names the file.
        """
        return open_image(self.root / self.name(index))


def _class_folders(root: Path) -> dict[str, Path]:
    if not root.exists():
        raise ValueError(f"folder {root} does not exist; check the path")
    if not root.is_dir():
        raise ValueError(f"folder {root} is a file; name the folder that holds the class folders")
    return {path.name: path for path in root.iterdir() if path.is_dir() and path.name[0] != "."}


def _check_classes(
    root: Path, folders: dict[str, Path], class_names: tuple[str, ...], what: str
) -> None:
    if len(class_names) < 2:
        found = f"only {class_names[0]!r}" if class_names else "none"
        raise ValueError(
            f"folder {root} must hold a folder of {what}s for each of at least two classes, "
            f"got {found}; see dartok train --help"
        )
    unknown = sorted(set(folders) - set(class_names))
    if unknown:
        raise ValueError(
            f"folder {root} holds the class {unknown[0]!r}, which is none of the "
            f"{len(class_names)} expected ones; rename or remove it"
        )
    if not folders:
        raise ValueError(f"folder {root} holds no class folder; one folder per class is needed")


def files_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Files at any depth with a suffix of some, in whichever case, sorted; hidden ones aside."""
    paths = (path for path in folder.rglob("*") if path.suffix.lower() in suffixes)
    return sorted(path for path in paths if not _is_hidden(path.relative_to(folder)))


def _pictures(folder: Path) -> list[Path]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return files_below(folder, IMG_EXTENSIONS)


def _is_hidden(path: Path) -> bool:
    """Also in a hidden folder, such as the copies that notebooks keep in .ipynb_checkpoints."""
    return any(part.startswith(".") for part in path.parts)
