"""Single pictures on their way into a batch."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from dartok.data.samples import BadSample, Batch, Shaped

__all__ = ["NUM_STAND_INS", "Item", "collate", "collate_of", "unless_damaged"]

Made = TypeVar("Made")

NUM_STAND_INS = 16
"""Pictures tried, a damaged one and those in its place, before giving up."""


class Item(NamedTuple):
    """A picture or clip as a tensor, None if neither it nor a stand-in could be read."""

    image: Tensor | None
    label: int | Tensor
    """Class, or those of the pixels."""
    name: str
    bad: tuple[BadSample, ...]


def unless_damaged(
    make: Callable[[], Made], name: str, bad: list[BadSample], damage: type[ValueError]
) -> Made | None:
    """What `make` gives, or None and a note among the bad samples where it raises `damage`."""
    try:
        return make()
    except damage as error:
        bad.append(BadSample(name, str(error)))
        return None


def collate(items: list[Item], sample_shape: tuple[int, ...] = (3, 0, 0)) -> Batch:
    """The readable pictures of some as a batch, with all that was damaged.

    Args:
        items: Of equal shape where they could be read.
        sample_shape: Of one of them, for a batch of none.
    """
    read = [item for item in items if item.image is not None]
    images = [item.image for item in read if item.image is not None]
    labels = [torch.as_tensor(item.label, dtype=torch.int64) for item in read]
    return Batch(
        torch.stack(images) if images else torch.empty(0, *sample_shape),
        torch.stack(labels) if labels else torch.empty(0, dtype=torch.int64),
        tuple(sample for item in items for sample in item.bad),
        tuple(item.name for item in read if item.name),
    )


def collate_of(transform: object) -> Callable[[list[Item]], Batch]:
    """`collate` for what a transform makes: a picture, unless it says otherwise."""
    if isinstance(transform, Shaped):
        return partial(collate, sample_shape=transform.sample_shape)
    return collate
