"""Where pictures come from: settings only."""

from dataclasses import dataclass

__all__ = ["DataConfig"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where pictures come from."""

    data: str
    """Folder of class folders to train on, or "digits" for the digits in clutter of the demo."""
    val: str | None = None
    """Folder of class folders to evaluate on; by default `val` or `test` beside `data`."""
    image_px: int | None = None
    """Side that pictures are resized and cropped to; by default the model's own."""
    workers: int = 2
    """Processes that read and augment pictures, for each training process."""
    max_bad_share: float = 0.01
    """The run stops when more than this share of the pictures is damaged."""
    num_digits: int = 4096
    """Canvases in an epoch of "digits"."""

    def __post_init__(self) -> None:
        _at_least("image-px", self.image_px, 1)
        _at_least("workers", self.workers, 0)
        _at_least("num-digits", self.num_digits, 1)
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"max-bad-share must be from 0 to 1, got {self.max_bad_share}")


def _at_least(flag: str, value: int | None, lowest: int) -> None:
    if value is not None and value < lowest:
        raise ValueError(f"{flag} must be >= {lowest}, got {value}")
