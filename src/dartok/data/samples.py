"""What a source of labelled pictures is: read one by one in any order, or shard by shard."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from PIL.Image import Image
from torch import Tensor

from dartok.data.images import decode_image

__all__ = [
    "AnySource",
    "BadSample",
    "Batch",
    "ClipTransform",
    "DamagedError",
    "Labelled",
    "LabelledTransform",
    "PictureSource",
    "RawSample",
    "Shaped",
    "ShardedSource",
    "Source",
    "SourceError",
    "Transform",
]

Transform = Callable[[Image], Tensor]
"""A picture as the model expects it: `(3, H, W)`, normalised."""

ClipTransform = Callable[[Any], Tensor]
"""A video as the model expects it: a clip `(T, 3, H, W)`, or several, `(views, T, 3, H, W)`."""


@runtime_checkable
class Shaped(Protocol):
    """A transform to something else than a picture, which says what a batch of none looks like."""

    sample_shape: tuple[int, ...]
    """Of what it makes; 0 where that depends on the sample."""


class Labelled(NamedTuple):
    """A picture with the class of each of its pixels, as tensors."""

    image: Float[Tensor, "3 H W"]
    """As the model expects it."""
    labels: Int[Tensor, "height width"]
    """Of the same picture; for evaluation at its own size, not at the model's."""


LabelledTransform = Callable[[Any], Labelled]
"""What a source of label maps loads, as the model expects it."""


class PictureSource(Protocol):
    """Pictures that can be read in any order."""

    class_names: tuple[str, ...]
    """Name of each class; a label is an index into them."""

    def __len__(self) -> int:
        """Number of pictures."""

    def name(self, index: int) -> str:
        """What to call a picture in a message: its path, where it has one."""

    def load(self, index: int) -> Any:
        """Read a picture, with its labels where they are maps; ValueError if it is damaged."""


@runtime_checkable
class Source(PictureSource, Protocol):
    """Pictures, or videos, that each have one label."""

    def label(self, index: int) -> int:
        """Class of a picture, without reading it."""


class RawSample(NamedTuple):
    """A picture of a stream, not yet decoded."""

    name: str
    label: int
    data: bytes
    """Of the image file; empty where the source holds none."""
    decode: Callable[[bytes, str], Any] = decode_image
    """Reads the data, the name being for the message; ValueError if they are damaged."""


class DamagedError(ValueError):
    """What was loaded is found damaged only now that a transform reads more of it, as of a video.

    It is passed over, named and counted as what cannot be loaded is.
    """


class SourceError(ValueError):
    """A source cannot be read on; one line that names what is wrong and what to do."""


@runtime_checkable
class ShardedSource(Protocol):
    """Labelled pictures in shards, each of which is read from its beginning."""

    class_names: tuple[str, ...]
    """Name of each class; a label is an index into them."""
    num_shards: int

    def __len__(self) -> int:
        """Number of pictures in all shards."""

    def read_shard(self, shard: int) -> Iterator[RawSample]:
        """The pictures of a shard, always in the same order; SourceError if it is broken."""


AnySource = Source | ShardedSource


class BadSample(NamedTuple):
    """A picture that could not be read."""

    name: str
    reason: str


class Batch(NamedTuple):
    """Images, normalised as the model expects, and their classes."""

    images: Float[Tensor, "B C H W"]
    labels: Int[Tensor, "B"] | Float[Tensor, "B classes"] | Int[Tensor, "B H W"]
    """Classes, after mixing their shares; or those of the pixels."""
    bad: tuple[BadSample, ...] = ()
    """Pictures that could not be read; another one, or none, stands in for each."""
    names: tuple[str, ...] = ()
    """Name of each picture, where the source was asked for it."""

    def to(self, device: torch.device) -> "Batch":
        """The batch with its tensors on a device."""
        images, labels = (part.to(device, non_blocking=True) for part in self[:2])
        return self._replace(images=images, labels=labels)
