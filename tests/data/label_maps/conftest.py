"""Tiny data sets of every layout."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a picture or a label map below `tmp_path`, making the folders it lies in."""

    def _write(path: str, pixels: object, *, palette: bool = False) -> None:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.asarray(pixels))
        if palette:
            image.putpalette([level for level in range(256) for _ in range(3)])
        image.save(target)

    return _write


@pytest.fixture
def picture() -> np.ndarray:
    return np.full((2, 3, 3), 90, dtype=np.uint8)


@pytest.fixture
def stored() -> Callable[..., np.ndarray]:
    """A label map of 2 x 3 pixels."""
    return lambda *numbers, dtype=np.uint8: np.array(numbers, dtype=dtype).reshape(2, 3)
