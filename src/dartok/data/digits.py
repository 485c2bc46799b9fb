"""Handwritten digits scattered small in large cluttered canvases, made on the fly from a seed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["CanvasConfig", "Canvases", "DigitCanvases", "Split", "load_digit_pictures"]

Split = Literal["train", "test"]

_NUM_CLASSES = 10
_NUM_TEST_DIGITS = 360
_SPLIT_SEED = 0
"""Shuffles the digits before they are split: scikit-learn lists them 0, 1, 2, ... in turn."""

_GROUND = 0.2
_DIGIT_INK = (0.8, 1.0)
_CLUTTER_INK = (0.3, 0.8)
"""Least and most of the ink of a stamp, from 0, invisible, to 1, white."""


class Canvases(NamedTuple):
    """A batch of canvases."""

    images: Float[Tensor, "B 1 size size"]
    """Grey, in [0, 1]."""
    labels: Int[Tensor, "B"]
    """Which digit is on the canvas, 0 to 9."""
    boxes_xyxy: Float[Tensor, "B digits 4"]
    """Left, top, right, bottom of each digit, in [0, 1] of the canvas."""


class _Drawn(NamedTuple):
    ink: Float[Tensor, "count side side"]
    side_px: Float[Tensor, "count"]  # of the picture in the middle of the square


@dataclass(frozen=True, kw_only=True)
class CanvasConfig:
    """How a canvas is made: some digits, and around them what is not a digit."""

    size_px: int = 192
    """Side of the square canvas."""
    min_digit_px: int = 20
    """Side of the smallest digit."""
    max_digit_px: int = 28
    """Side of the largest digit."""
    num_digits: int = 1
    """Digits per canvas: the same one, as written by different hands."""
    num_strokes: int = 2
    """Lone pen strokes per canvas."""
    num_fragments: int = 2
    """Quarters of other digits per canvas."""
    blob_contrast: float = 0.05
    """Standard deviation of the smooth background."""
    noise: float = 0.02
    """Standard deviation of the noise of a pixel."""

    def __post_init__(self) -> None:
        if self.min_digit_px < 8:
            raise ValueError(f"min_digit_px must be >= 8, got {self.min_digit_px}")
        if not self.min_digit_px <= self.max_digit_px <= self.size_px:
            raise ValueError(
                f"max_digit_px must be from min_digit_px = {self.min_digit_px} to size_px = "
                f"{self.size_px}, got {self.max_digit_px}"
            )
        if self.num_digits < 1:
            raise ValueError(f"num_digits must be >= 1, got {self.num_digits}")
        for name in ("num_strokes", "num_fragments", "blob_contrast", "noise"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")


class DigitCanvases:
    """A source of canvases without end: the same seed and sizes give the same pictures.

    Each canvas shows one of the ten digits, small, in random places, sizes and slants, on a smooth
    grey background among pen strokes and quarters of other digits. The digits are scikit-learn's
    (8 x 8 pixels); those of the two splits are disjoint, also in the fragments.

    Args:
        config: How a canvas is made.
        split: "train" or "test": which handwritten digits are used.
    Raises:
        ImportError: Without scikit-learn, the extra `demo`.
        ValueError: If `split` is unknown.
    Example:
        >>> canvases = DigitCanvases(CanvasConfig(size_px=96), split="train").batch(2, seed=0)
        >>> canvases.images.shape, canvases.boxes_xyxy.shape
        (torch.Size([2, 1, 96, 96]), torch.Size([2, 1, 4]))
    """

    def __init__(self, config: CanvasConfig, *, split: Split) -> None:
        self.config = config
        self.split: Split = split
        self._digits, labels = load_digit_pictures(split)
        self._counts = labels.bincount(minlength=_NUM_CLASSES)
        self._order = labels.argsort(stable=True)  # all zeros, then all ones, ...

    def batch(self, batch_size: int, *, seed: int) -> Canvases:
        """`batch_size` canvases, the same for the same seed.

        Raises:
            ValueError: If `batch_size < 1`.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be >= 1, got {batch_size}")
        config, generator = self.config, torch.Generator().manual_seed(seed)
        ink = torch.zeros(batch_size, config.size_px**2)
        if config.num_strokes:
            _stamp(ink, _strokes(config, batch_size, generator), _CLUTTER_INK, generator)
        if config.num_fragments:
            quarters = _quarters(self._digits, config, batch_size, generator)
            _stamp(ink, quarters, _CLUTTER_INK, generator)
        labels = torch.randint(_NUM_CLASSES, (batch_size,), generator=generator)
        drawn = _enlarge(self._pick(labels, generator), config, generator)
        stamps = drawn.ink.unflatten(0, (batch_size, config.num_digits))
        corners_px = _stamp(ink, stamps, _DIGIT_INK, generator)
        ground = _background(config, batch_size, generator)
        images = torch.lerp(ground, torch.ones(()), ink).clamp_(0, 1)
        side_px = drawn.side_px.view(batch_size, config.num_digits, 1)
        return Canvases(
            images.view(batch_size, 1, config.size_px, config.size_px),
            labels,
            _boxes(corners_px, side_px, stamps.shape[-1]) / config.size_px,
        )

    def batches(self, batch_size: int, *, seed: int) -> Iterator[Canvases]:
        """Batches without end, each different; the same for the same seed."""
        root = np.random.SeedSequence(seed)
        while True:
            yield self.batch(batch_size, seed=int(root.spawn(1)[0].generate_state(1)[0]))

    def _pick(
        self, labels: Int[Tensor, "B"], generator: torch.Generator
    ) -> Float[Tensor, "B*digits 8 8"]:
        """Random handwritten digits of the given classes."""
        shape = (len(labels), self.config.num_digits)
        share = torch.rand(shape, generator=generator, dtype=torch.float64)
        member = (share * self._counts[labels, None]).long()
        first = (self._counts.cumsum(0) - self._counts)[labels, None]
        return self._digits[self._order[first + member].flatten()]


def load_digit_pictures(
    split: Split,
) -> tuple[Float[Tensor, "count 8 8"], Int[Tensor, "count"]]:
    """The digits of a split, ink in [0, 1], and their labels; read from scikit-learn, no download.

    Raises:
        ImportError: Without scikit-learn, the extra `demo`.
        ValueError: If `split` is unknown.
    Example:
        >>> digits, labels = load_digit_pictures("test")
        >>> digits.shape, labels.shape
        (torch.Size([360, 8, 8]), torch.Size([360]))
    """
    if split not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, got {split!r}")
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError("the digits need scikit-learn: pip install 'dartok[demo]'") from error
    pictures, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(_SPLIT_SEED).permutation(len(labels))
    chosen = order[:_NUM_TEST_DIGITS] if split == "test" else order[_NUM_TEST_DIGITS:]
    digits = torch.from_numpy(pictures[chosen]).float().view(-1, 8, 8) / 16
    return digits, torch.from_numpy(labels[chosen]).long()


def _uniform(low: float, high: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator) * (high - low) + low


def _background(
    config: CanvasConfig, batch_size: int, generator: torch.Generator
) -> Float[Tensor, "B size*size"]:
    """Smooth grey blobs under the noise of a camera."""
    side = config.size_px
    coarse = torch.randn(batch_size, 6, 6, generator=generator).clamp_(-2, 2)
    spread = F.interpolate(torch.eye(6)[None], size=side, mode="linear", align_corners=True)[0]
    smooth = torch.einsum("bij,ix,jy->bxy", coarse, spread, spread).flatten(1)
    noise = torch.randn(batch_size, side * side, generator=generator)
    return _GROUND + config.blob_contrast * smooth + config.noise * noise


def _strokes(
    config: CanvasConfig, batch_size: int, generator: torch.Generator
) -> Float[Tensor, "B strokes side side"]:
    """Short straight pen strokes, as long and as wide as those of a digit."""
    shape, side = (batch_size, config.num_strokes, 1, 1), config.max_digit_px
    offsets = torch.arange(side) - (side - 1) / 2
    angle = _uniform(0, torch.pi, shape, generator)
    half_length = _uniform(0.15, 0.4, shape, generator) * side
    half_width = _uniform(0.7, 1.5, shape, generator)
    along = offsets * angle.cos() + offsets[:, None] * angle.sin()
    across = offsets[:, None] * angle.cos() - offsets * angle.sin()
    distance = torch.hypot((along.abs() - half_length).clamp_min(0), across)
    return (half_width + 0.5 - distance).clamp(0, 1)


def _quarters(
    digits: Float[Tensor, "count 8 8"],
    config: CanvasConfig,
    batch_size: int,
    generator: torch.Generator,
) -> Float[Tensor, "B fragments side side"]:
    """Quarters of digits, at a digit's scale."""
    count = batch_size * config.num_fragments
    index = torch.randint(len(digits), (count,), generator=generator)
    quarters = digits[index].unfold(1, 4, 4).unfold(2, 4, 4).flatten(1, 2)
    choice = torch.randint(4, (count,), generator=generator)
    drawn = _enlarge(quarters[torch.arange(count), choice], config, generator)
    side = drawn.ink.shape[-1]
    return drawn.ink.view(batch_size, config.num_fragments, side, side)


def _enlarge(
    pictures: Float[Tensor, "count rows columns"], config: CanvasConfig, generator: torch.Generator
) -> _Drawn:
    """Pictures of (parts of) digits at a random size and slant, centred in equal squares."""
    count = len(pictures)
    side = config.max_digit_px * pictures.shape[-1] // 8
    scale = _uniform(config.min_digit_px / config.max_digit_px, 1, (count,), generator)
    slant = _uniform(-0.2, 0.2, (count,), generator)
    matrix = torch.zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale
    matrix[:, 0, 1] = slant / scale
    lattice = F.affine_grid(matrix, [count, 1, side, side], align_corners=False)
    ink = F.grid_sample(pictures[:, None], lattice, align_corners=False).squeeze(1)
    return _Drawn(ink, scale * side)


def _stamp(
    canvas: Float[Tensor, "B size*size"],
    ink: Float[Tensor, "B stamps side side"],
    ink_range: tuple[float, float],
    generator: torch.Generator,
) -> Int[Tensor, "B stamps 2"]:
    """Add each stamp's ink at a random place; return the corners (x, y) in px.

    Where stamps overlap the stronger ink shows.
    """
    batch_size, num_stamps, side = ink.shape[:3]
    size_px = math.isqrt(canvas.shape[1])
    shape = (batch_size, num_stamps, 2)
    corners_px = torch.randint(size_px - side + 1, shape, generator=generator)
    steps = torch.arange(side)
    lines = (corners_px[..., 1, None] + steps) * size_px
    columns = corners_px[..., 0, None] + steps
    pixels = lines.unsqueeze(-1) + columns.unsqueeze(-2)
    strength = _uniform(*ink_range, (batch_size, num_stamps, 1, 1), generator)
    canvas.scatter_reduce_(1, pixels.flatten(1), (ink * strength).flatten(1), "amax")
    return corners_px


def _boxes(
    corners_px: Int[Tensor, "B digits 2"], side_px: Float[Tensor, "B digits 1"], stamp_px: int
) -> Float[Tensor, "B digits 4"]:
    middle_px = corners_px + stamp_px / 2
    return torch.cat([middle_px - side_px / 2, middle_px + side_px / 2], dim=-1)
