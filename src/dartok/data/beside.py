"""What to evaluate on, where only the training data are named."""

from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = ["data_beside"]

_EVAL_NAMES = ("val", "valid", "validation", "test")


def data_beside(data: str, is_there: Callable[[str], bool]) -> str:
    """What lies beside the training data under a name for evaluation.

    The folder `val`, `valid`, `validation` or `test`; for files, their name or their folder's with
    one of these for "train".

    Args:
        data: A folder, a file or a pattern of files.
        is_there: Whether a name leads to data.
    Raises:
        ValueError: If there is none.
    Example:
        >>> data_beside("pets/train-{0..7}.tar", lambda name: "validation" in name)
        'pets/validation-{0..7}.tar'
    """
    found = next((name for name in _names_beside(data) if is_there(name)), None)
    if found is None:
        raise ValueError(
            f"val must name what to evaluate on: none of {', '.join(_EVAL_NAMES)} is beside "
            f"{data}; give --val"
        )
    return found


def _names_beside(data: str) -> Iterator[str]:
    path = Path(data)
    if path.is_dir():
        yield from (str(path.with_name(name)) for name in _EVAL_NAMES if name != path.name)
        return
    for name in _EVAL_NAMES:
        if "train" in path.name:
            yield str(path.with_name(path.name.replace("train", name)))
        elif "train" in path.parent.name:
            folder = path.parent.with_name(path.parent.name.replace("train", name))
            yield str(folder / path.name)
