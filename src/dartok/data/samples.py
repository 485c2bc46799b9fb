"""What a source of labelled pictures is: counted, named, and read one picture at a time."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor

__all__ = ["BadSample", "Batch", "Source", "Transform"]

Transform = Callable[[Image], Tensor]
"""A picture as the model expects it: `(3, H, W)`, normalised."""


class Source(Protocol):
    """Labelled pictures that can be read in any order."""

    class_names: tuple[str, ...]
    """Name of each class; a label is an index into them."""

    def __len__(self) -> int:
        """Number of pictures."""

    def label(self, index: int) -> int:
        """Class of a picture, without reading it."""

    def name(self, index: int) -> str:
        """What to call a picture in a message: its path, where it has one."""

    def load(self, index: int) -> Image:
        """Read a picture; ValueError if it is damaged."""


class BadSample(NamedTuple):
    """A picture that could not be read."""

    name: str
    reason: str


class Batch(NamedTuple):
    """Images, normalised as the model expects, and their classes."""

    images: Float[Tensor, "B C H W"]
    labels: Int[Tensor, "B"] | Float[Tensor, "B classes"]
    """Classes, or after mixing their shares."""
    bad: tuple[BadSample, ...] = ()
    """Pictures that could not be read; another one, or none, stands in for each."""
    names: tuple[str, ...] = ()
    """Name of each picture, where the source was asked for it."""

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on a device."""
        images, labels = (part.to(device, non_blocking=True) for part in self[:2])
        return self._replace(images=images, labels=labels)
