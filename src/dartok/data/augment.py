"""What pixels a model expects, and how training pictures are varied: settings only."""

from dataclasses import dataclass

__all__ = ["AugmentConfig", "PixelConfig"]


@dataclass(frozen=True, kw_only=True)
class PixelConfig:
    """What a model expects of its pixels."""

    size_px: int
    """Height of the picture, and its width unless `width_px` says otherwise."""
    mean: tuple[float, float, float]
    """Subtracted from red, green and blue in [0, 1]."""
    std: tuple[float, float, float]
    """They are then divided by this."""
    interpolation: str = "bicubic"
    """How pictures are resized."""
    crop_share: float = 0.875
    """For evaluation the shorter side is resized to `size_px / crop_share`, then cropped; pictures
    with label maps are not cropped."""
    width_px: int | None = None
    """Width of pictures with label maps, where it is not their height."""


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training pictures are varied. All of it is timm's."""

    min_crop: float = 0.35
    """Smallest share of the picture's area that a random crop keeps; 1 keeps about all of it."""
    hflip: float = 0.5
    """Probability of a horizontal flip."""
    color_jitter: float = 0.0
    """Largest change of brightness, contrast and saturation; unused with --auto-augment."""
    auto_augment: str | None = None
    """timm's name of a policy, such as rand-m9-mstd0.5-inc1."""
    random_erasing: float = 0.0
    """Probability that a rectangle is erased."""
    mixup: float = 0.0
    """Parameter of mixup's beta distribution; 0 for none."""
    cutmix: float = 0.0
    """Parameter of cutmix's beta distribution; 0 for none."""
    on_device: bool = False
    """Flip, normalise and erase whole batches on the device that trains; workers crop, vary colours
    and hand over bytes, a quarter of the memory."""
    repeats: int = 1
    """Copies of each picture, each augmented anew (repeated augmentation); an epoch keeps its
    length and has fewer different pictures."""

    def __post_init__(self) -> None:
        for name in ("min_crop", "hflip", "random_erasing"):
            _check_range(name, getattr(self, name), 1)
        for name in ("color_jitter", "mixup", "cutmix"):
            _check_range(name, getattr(self, name), float("inf"))
        if self.min_crop == 0:
            raise ValueError("min-crop must be > 0, got 0")
        if self.repeats < 1:
            raise ValueError(f"repeats must be >= 1, got {self.repeats}")
        if self.auto_augment is not None and self.color_jitter:
            raise ValueError(
                "color-jitter must be 0 with --auto-augment, which varies colours itself, "
                f"got {self.color_jitter}"
            )


def _check_range(name: str, value: float, highest: float) -> None:
    if not 0 <= value <= highest or value == float("inf"):
        rule = ">= 0 and finite" if highest == float("inf") else f"from 0 to {highest}"
        raise ValueError(f"{name.replace('_', '-')} must be {rule}, got {value}")
