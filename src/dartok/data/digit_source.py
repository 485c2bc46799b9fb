"""The digits in clutter as a source of a fixed number of labelled pictures."""

from PIL import Image

from dartok.data.digits import CanvasConfig, Canvases, DigitCanvases, Split

__all__ = ["DigitSource"]

_FIRST_TEST_SEED = 1_000_000_000
"""Away from the seeds of training canvases."""


class DigitSource:
    """`num_canvases` canvases of `DigitCanvases`, the same ones each time, as grey RGB pictures.

    Args:
        config: How a canvas is made.
        split: "train" or "test"; no handwritten digit is in both.
        num_canvases: How many.
    Raises:
        ImportError: Without scikit-learn, the extra `demo`.
        ValueError: If `split` is unknown or `num_canvases < 1`.
    Example:
        >>> source = DigitSource(CanvasConfig(size_px=96), split="train", num_canvases=8)
        >>> len(source), source.load(3).size, source.class_names[source.label(3)]
        (8, (96, 96), '7')
    """

    class_names = tuple(str(digit) for digit in range(10))

    def __init__(self, config: CanvasConfig, *, split: Split, num_canvases: int) -> None:
        if num_canvases < 1:
            raise ValueError(f"num_canvases must be >= 1, got {num_canvases}")
        self._canvases = DigitCanvases(config, split=split)
        self._first_seed = _FIRST_TEST_SEED if split == "test" else 0
        self._num_canvases = num_canvases
        self._last: tuple[int, Canvases] | None = None

    def __len__(self) -> int:
        return self._num_canvases

    def label(self, index: int) -> int:
        """The digit on a canvas."""
        return int(self._canvas(index).labels)

    def name(self, index: int) -> str:
        """The split and number of a canvas."""
        return f"digits/{self._canvases.split}/{index}"

    def box(self, index: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the digit in [0, 1]; of the first one if there are several.

        Example:
            >>> source = DigitSource(CanvasConfig(size_px=64), split="train", num_canvases=1)
            >>> left, top, right, bottom = source.box(0)
            >>> 20 / 64 <= right - left <= 28 / 64
            True
        """
        left, top, right, bottom = self._canvas(index).boxes_xyxy[0, 0].tolist()
        return left, top, right, bottom

    def load(self, index: int) -> Image.Image:
        """Draw a canvas."""
        canvas = self._canvas(index).images[0, 0]
        return Image.fromarray((canvas * 255).round().byte().numpy()).convert("RGB")

    def _canvas(self, index: int) -> Canvases:
        """Kept until another is asked for: a picture and its label are one drawing."""
        if self._last is None or self._last[0] != index:
            self._last = index, self._canvases.batch(1, seed=self._first_seed + index)
        return self._last[1]
