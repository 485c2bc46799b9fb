"""Single pictures on their way into a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

from dartok.data.samples import BadSample, Batch

__all__ = ["NUM_STAND_INS", "Item", "collate"]

NUM_STAND_INS = 16
"""Pictures tried, a damaged one and those in its place, before giving up."""


class Item(NamedTuple):
    """A picture as a tensor, None if neither it nor a stand-in could be read."""

    image: Tensor | None
    label: int | Tensor
    """Class, or those of the pixels."""
    name: str
    bad: tuple[BadSample, ...]


def collate(items: list[Item]) -> Batch:
    """The readable pictures of some as a batch, with all that was damaged."""
    read = [item for item in items if item.image is not None]
    images = [item.image for item in read if item.image is not None]
    labels = [torch.as_tensor(item.label, dtype=torch.int64) for item in read]
    return Batch(
        torch.stack(images) if images else torch.empty(0, 3, 0, 0),
        torch.stack(labels) if labels else torch.empty(0, dtype=torch.int64),
        tuple(sample for item in items for sample in item.bad),
        tuple(item.name for item in read if item.name),
    )
