"""Class names, and what the label in a file, a number or a name, means among them."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from dartok.data.samples import SourceError

__all__ = ["Labels", "distinct_names", "parse_class_names", "read_class_names"]


class Labels:
    """Turns labels as files hold them into indices into class names.

    Args:
        class_names: The classes to tell apart, such as those of the training pictures.
        own: Classes as the file numbers them, if it is known; by default as `class_names` do. Where
            those are numbers themselves, a number is taken for a name then.
        where: What to call the file in a message.
    Raises:
        ValueError: If there are fewer than two classes.
    Example:
        >>> labels = Labels(("cat", "dog"), own=("dog", "cat"), where="train.parquet")
        >>> labels.index("dog", "row 1"), labels.index(0, "row 2")
        (1, 1)
    """

    def __init__(
        self, class_names: tuple[str, ...], own: tuple[str, ...] | None = None, *, where: str
    ) -> None:
        if len(class_names) < 2:
            raise ValueError(
                f"{where} must hold at least two classes, got {len(class_names)}; name them in a "
                "file, one a line, and give it as --classes"
            )
        self.class_names = class_names
        named_by_numbers = all(name.isdecimal() for name in class_names)
        self._own = own or (None if named_by_numbers else class_names)
        self._index = {name: index for index, name in enumerate(class_names)}

    def index(self, label: object, name: str) -> int:
        """Index of a label into the class names.

        Raises:
            SourceError: If it is none of the classes.
        """
        known = self._index.get(self._called(label))
        if known is None:
            raise SourceError(
                f"label of {name} must be one of the {len(self._index)} classes, "
                f"{_listed(self.class_names)}, or the number of one, got {label!r}; "
                "mend or remove it"
            )
        return known

    def _called(self, label: object) -> str:
        if isinstance(label, int) and not isinstance(label, bool) and self._own is not None:
            return self._own[label] if 0 <= label < len(self._own) else ""
        return str(label) if isinstance(label, int | str) else ""


def read_class_names(path: Path) -> tuple[str, ...]:
    """Class names from a text file, one a line, in the order of their numbers.

    Raises:
        ValueError: If the file cannot be read, or names fewer than two classes or one twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"classes must name a text file with one class a line, got {path} ({error})"
        ) from error
    return parse_class_names(text, str(path))


def parse_class_names(text: str, where: str) -> tuple[str, ...]:
    """The lines of a text that are not empty.

    Raises:
        ValueError: If they name fewer than two classes or one twice.
    """
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if len(names) < 2:
        raise ValueError(f"classes {where} must name at least two, one a line, got {len(names)}")
    most_frequent, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(
            f"classes {where} must name each once, got {most_frequent!r} {times} times"
        )
    return names


def distinct_names(labels: Iterable[object], where: str) -> tuple[str, ...]:
    """Class names from labels that are all numbers or all names: sorted, each once.

    Raises:
        ValueError: If they are neither.
    Example:
        >>> distinct_names([10, 2, 10], "train.parquet")
        ('2', '10')
    """
    found = set(labels)
    numbers = [label for label in found if isinstance(label, int) and not isinstance(label, bool)]
    texts = [label for label in found if isinstance(label, str)]
    if len(found) not in (len(numbers), len(texts)):
        other = next(label for label in found if not isinstance(label, str))
        raise ValueError(
            f"labels of {where} must be all whole numbers or all names, got {other!r} among them; "
            "choose another --label-column"
        )
    return tuple(map(str, sorted(numbers))) if numbers else tuple(sorted(texts))


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown}, ..."
