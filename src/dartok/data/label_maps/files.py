"""Find the files of a data set: folders, lists, and the label map of each picture."""

from pathlib import Path

from dartok.data.label_maps.pictures import PathPair

__all__ = ["existing_folder", "first_folder", "pairs_by_stem", "pictures_in", "read_lines"]


def existing_folder(folder: Path, reason: str) -> Path:
    """The folder; a ValueError that gives the reason for needing it where it is missing."""
    if not folder.is_dir():
        raise ValueError(f"folder {folder} is missing: {reason}; check the path or the split")
    return folder


def first_folder(root: Path, *below: str, holds: tuple[str, ...]) -> Path | None:
    """The first of the root and folders below it that holds all of some folders or files."""
    candidates = (root, *(root / name for name in below))
    return next((c for c in candidates if all((c / name).exists() for name in holds)), None)


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie in a folder or below it, sorted; hidden ones are none.

    Raises:
        ValueError: If there are none.
    """
    from torchvision.datasets.folder import IMG_EXTENSIONS

    paths = (path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    found = sorted(p for p in paths if not _is_hidden(p.relative_to(folder)))
    if not found:
        raise ValueError(f"folder {folder} holds no picture; fill it or name another split")
    return found


def pairs_by_stem(root: Path, images: Path, labels: Path) -> list[PathPair]:
    """Each picture below `images` with the PNG of the same path below `labels`.

    Raises:
        ValueError: If there is no picture, or one has no label map.
    """
    known = {path.relative_to(labels) for path in labels.rglob("*.png")}
    pairs = []
    for image in pictures_in(images):
        wanted = image.relative_to(images).with_suffix(".png")
        if wanted not in known:
            raise ValueError(missing_labels(image, labels / wanted))
        pairs.append(PathPair(_below(root, image), _below(root, labels / wanted)))
    return pairs


def missing_labels(image: Path, labels: Path) -> str:
    """What to say of a picture without labels."""
    return f"picture {image} has no label map {labels}; add it or remove the picture"


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without the blanks around them.

    Raises:
        ValueError: If it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"list {path} cannot be read ({error}); check the path") from error
    return [line.strip() for line in lines if line.strip()]


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
