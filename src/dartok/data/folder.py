"""Pictures in a folder of class folders."""

from itertools import accumulate
from pathlib import Path

import numpy as np
from PIL import Image

from dartok.data.images import open_image

__all__ = ["FolderSource"]


class FolderSource:
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
        self.root = Path(root)
        folders = _class_folders(self.root)
        self.class_names = class_names or tuple(sorted(folders))
        _check_classes(self.root, folders, self.class_names)
        encoded: list[bytes] = []
        labels: list[int] = []
        for label, name in enumerate(self.class_names):
            paths = _pictures(folders[name]) if name in folders else []
            if name in folders and not paths:
                raise ValueError(
                    f"folder {folders[name]} holds no picture; remove it or fill its class"
                )
            encoded += (_encoded(path.relative_to(self.root)) for path in paths)
            labels += [label] * len(paths)
        # A million `Path`s would take 400 MB, which workers would copy page by page.
        self._names = b"".join(encoded)
        self._ends = np.fromiter(accumulate(map(len, encoded), initial=0), dtype=np.int64)
        self._labels = np.array(labels, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._labels)

    def label(self, index: int) -> int:
        """Class of a picture."""
        return int(self._labels[index])

    def name(self, index: int) -> str:
        """Path of a picture, from the folder on."""
        start, end = self._ends[index], self._ends[index + 1]
        return self._names[start:end].decode("utf-8", "surrogateescape")

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


def _check_classes(root: Path, folders: dict[str, Path], class_names: tuple[str, ...]) -> None:
    if len(class_names) < 2:
        found = f"only {class_names[0]!r}" if class_names else "none"
        raise ValueError(
            f"folder {root} must hold a folder of pictures for each of at least two classes, "
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


def _encoded(path: Path) -> bytes:
    """Names that are no UTF-8 come back too."""
    return path.as_posix().encode("utf-8", "surrogateescape")


def _pictures(folder: Path) -> list[Path]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    paths = (path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    return sorted(path for path in paths if not _is_hidden(path.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    """Also in a hidden folder, such as the copies that notebooks keep in .ipynb_checkpoints."""
    return any(part.startswith(".") for part in path.parts)
