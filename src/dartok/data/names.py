"""Many names in little memory."""

from collections.abc import Iterable
from itertools import accumulate

import numpy as np

__all__ = ["PackedNames"]


class PackedNames:
    """Texts by index, kept as one run of bytes.

    A million `Path`s would take 400 MB, which workers would copy page by page.

    Args:
        names: In order; those that are no UTF-8, as the names of files may be, come back too.
    Example:
        >>> PackedNames(["cat/1.mp4", "dog/1.mp4"])[1]
        'dog/1.mp4'
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._bytes = b"".join(encoded)
        self._ends = np.fromiter(accumulate(map(len, encoded), initial=0), dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        start, end = self._ends[index], self._ends[index + 1]
        return self._bytes[start:end].decode("utf-8", "surrogateescape")
