"""Which objects regions still tell from what surrounds them, and down to which size."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dartok.tasks.segmentation.ceiling import RegionCounts, majority_class

__all__ = ["Objects", "join_objects", "objects_in", "resolved_by_class", "smallest_resolved_px"]

_RESOLVED_SHARE = 0.5
_FEWEST = 10
"""Objects that a share is taken of: one of two says nothing about a size."""
_BINS_PER_OCTAVE = 2


class Objects(NamedTuple):
    """Objects of label maps: connected pieces of one class."""

    label: Int[Tensor, "objects"]
    pixels: Int[Tensor, "objects"]
    covered: Int[Tensor, "objects"]
    """Of those pixels, the ones in regions whose most frequent class is the object's."""

    @property
    def sides_px(self) -> Float[Tensor, "objects"]:
        """Side of the square of the same area."""
        return self.pixels.double().sqrt()

    @property
    def resolved(self) -> Bool[Tensor, "objects"]:
        """Whether at least half of an object lies in regions of its class."""
        return self.covered >= _RESOLVED_SHARE * self.pixels


def objects_in(
    labels: Int[Tensor, "H W"],
    components: Int[Tensor, "H W"],
    region_map: Int[Tensor, "H W"],
    counts: RegionCounts,
    *,
    ignore: int = 255,
) -> Objects:
    """The objects of a picture, and how much of each lies in regions of its class.

    Args:
        labels: Classes; pieces of `ignore` are no objects.
        components: As `connected_components(labels)` gives them.
        region_map: Region of each pixel.
        counts: As `count_regions` gives them for these labels and regions.
        ignore: Label of no class.
    Example:
        >>> from dartok.tasks.segmentation.ceiling import count_regions
        >>> labels, regions = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
        >>> objects_in(labels, labels, regions, count_regions(labels, regions, 2)).covered
        tensor([3, 0])
    """
    count = int(components.max()) + 1
    right = majority_class(counts)[region_map] == labels
    label = labels.new_zeros(count, dtype=torch.long)
    label = label.scatter(0, components.flatten(), labels.flatten().long())
    pixels = torch.bincount(components.flatten(), minlength=count)
    covered = torch.bincount(components[right], minlength=count)
    known = label != ignore
    return Objects(label[known], pixels[known], covered[known])


def join_objects(parts: Sequence[Objects]) -> Objects:
    """The objects of several pictures."""
    label, pixels, covered = (torch.cat(column) for column in zip(*parts, strict=True))
    return Objects(label, pixels, covered)


def smallest_resolved_px(objects: Objects, share: float) -> float | None:
    """Side in pixels from which on at least that share of the objects is resolved.

    Objects are sorted into bins of size, two per doubling of the side; from the largest down, bins
    are taken together until they hold ten objects. The figure is the lower end of the last bins
    before the first in which too few objects are resolved. With few or thin large objects it may
    lie above sizes that are mostly resolved.

    Args:
        objects: Of all pictures together.
        share: From 0 to 1.
    Returns:
        A power of the square root of 2; None if too few of the largest are resolved.
    Example:
        >>> pixels = torch.tensor([16] * 10 + [64] * 10)
        >>> covered = torch.tensor([0] * 10 + [64] * 10)
        >>> smallest_resolved_px(Objects(torch.zeros(20), pixels, covered), 0.5)
        8.0
    """
    bins = (objects.sides_px.log2() * _BINS_PER_OCTAVE + 1e-9).floor().long()
    if len(bins) == 0:
        return None
    total = torch.bincount(bins).tolist()
    resolved = torch.bincount(bins[objects.resolved], minlength=len(total)).tolist()
    smallest: int | None = None
    seen = seen_resolved = 0
    filled = [size for size, number in enumerate(total) if number]
    for size in reversed(filled):
        seen, seen_resolved = seen + total[size], seen_resolved + resolved[size]
        if seen < _FEWEST and size > filled[0]:
            continue  # together with the next smaller ones
        if seen_resolved < share * seen:
            break
        smallest, seen, seen_resolved = size, 0, 0
    return None if smallest is None else 2.0 ** (smallest / _BINS_PER_OCTAVE)


def resolved_by_class(objects: Objects, num_classes: int) -> Float[Tensor, "classes"]:
    """Share of the objects of each class that are resolved; NaN for a class without any.

    Example:
        >>> objects = Objects(torch.tensor([0, 0]), torch.tensor([4, 4]), torch.tensor([1, 2]))
        >>> resolved_by_class(objects, 2)
        tensor([0.5000,    nan], dtype=torch.float64)
    """
    total = torch.bincount(objects.label, minlength=num_classes)
    resolved = torch.bincount(objects.label[objects.resolved], minlength=num_classes)
    return resolved.double() / total
