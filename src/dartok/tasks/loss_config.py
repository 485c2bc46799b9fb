"""What training lowers: settings only."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["LossConfig"]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What training lowers."""

    loss: Literal["ce", "bce"] = "ce"
    """Cross entropy over the classes, or a binary one for each class."""
    label_smoothing: float = 0.1
    """Share of the label's weight that is spread over all classes."""

    def __post_init__(self) -> None:
        if self.loss not in ("ce", "bce"):
            raise ValueError(f"loss must be ce or bce, got {self.loss!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"label-smoothing must be from 0 to below 1, got {self.label_smoothing}"
            )
