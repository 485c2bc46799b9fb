"""The best mIoU that is possible where every region gets one class, before anything is trained."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = [
    "Ceiling",
    "RegionCounts",
    "attained_iou",
    "ceiling",
    "count_regions",
    "highest_iou",
    "join_counts",
    "majority_class",
]

_NUM_ROUNDS = 8
"""Labellings tried; on CamVid the mIoU of later ones differs by less than 1e-4."""


class RegionCounts(NamedTuple):
    """Pixels of each class in each region of one picture or many: one entry where there are any."""

    region: Int[Tensor, "entries"]
    """Increasing."""
    label: Int[Tensor, "entries"]
    pixels: Int[Tensor, "entries"]
    valid: Int[Tensor, "regions"]
    """Pixels of each region in all, without ignored ones."""


class Ceiling(NamedTuple):
    """What regions can reach, per class; NaN for a class that has no pixel."""

    highest: Float[Tensor, "classes"]
    """No labelling of the regions has a higher IoU of that class."""
    attained: Float[Tensor, "classes"]
    """IoU of one good labelling of the regions, made with the true labels in sight."""

    @property
    def miou(self) -> float:
        """The ceiling: mean of `highest` over the classes that have pixels."""
        return float(self.highest.nanmean())

    @property
    def attained_miou(self) -> float:
        """Mean of `attained`; never above the ceiling."""
        return float(self.attained.nanmean())


def count_regions(
    labels: Int[Tensor, "H W"],
    region_map: Int[Tensor, "H W"],
    num_regions: int,
    *,
    ignore: int = 255,
) -> RegionCounts:
    """Count the pixels of each class in each region of a picture.

    Args:
        labels: Classes from 0; pixels of `ignore` are left out.
        region_map: Region of each pixel, as `Regions.label_map` gives it.
        num_regions: N.
        ignore: Label of no class.
    Example:
        >>> labels, regions = torch.tensor([[1, 1, 0, 255]]), torch.tensor([[0, 0, 0, 1]])
        >>> counts = count_regions(labels, regions, 2)
        >>> counts.label, counts.pixels, counts.valid
        (tensor([0, 1]), tensor([1, 2]), tensor([3, 0]))
    """
    labels = labels.long()
    ignored = labels == ignore
    num_labels = int(labels.masked_fill(ignored, 0).max()) + 1
    cells = region_map * (num_labels + 1) + labels.masked_fill(ignored, num_labels)
    counts = torch.bincount(cells.flatten(), minlength=num_regions * (num_labels + 1))
    counts = counts.view(num_regions, num_labels + 1)[:, :-1]
    region, label = counts.nonzero(as_tuple=True)
    return RegionCounts(region, label, counts[region, label], counts.sum(1))


def join_counts(parts: Sequence[RegionCounts]) -> RegionCounts:
    """The counts of several pictures as those of one: the regions of each follow the last's.

    Example:
        >>> one = count_regions(torch.zeros(1, 2), torch.tensor([[0, 1]]), 2)
        >>> join_counts([one, one]).region
        tensor([0, 1, 2, 3])
    """
    firsts = torch.tensor([0, *(len(part.valid) for part in parts)]).cumsum(0)
    regions = [part.region + first for part, first in zip(parts, firsts[:-1], strict=True)]
    label, pixels, valid = (torch.cat(column) for column in list(zip(*parts, strict=True))[1:])
    return RegionCounts(torch.cat(regions), label, pixels, valid)


def highest_iou(counts: RegionCounts, num_classes: int) -> Float[Tensor, "classes"]:
    """The highest IoU of each class on its own, over all sets of regions that could be given to it.

    A set S of regions has `IoU_c(S) = sum_S pixels_c / (P_c + sum_S (valid - pixels_c))` with P_c
    the pixels of class c in all. The ratio of two linear functions of the set is largest on the
    regions above some threshold of purity `pixels_c / valid`, so the best of the prefixes of the
    regions in order of purity is the best of all sets. The mean over the classes bounds the mIoU of
    every labelling of the regions from above: each class's own best set need not leave the other
    classes theirs.

    Args:
        counts: Of all pictures together: IoU is a ratio of sums over the data set.
        num_classes: K.
    Returns:
        Float64; NaN for a class without pixels.
    Example:
        >>> labels, regions = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
        >>> highest_iou(count_regions(labels, regions, 2), 2)
        tensor([0.7500, 0.5000], dtype=torch.float64)
    """
    valid = counts.valid[counts.region]
    order = (counts.pixels.double() / valid).argsort(descending=True)
    order = order[counts.label[order].argsort(stable=True)]
    sizes = torch.bincount(counts.label, minlength=num_classes).tolist()
    highest = torch.full((num_classes,), torch.nan, dtype=torch.float64)
    for label, entries in enumerate(order.split(sizes)):
        if len(entries):
            right = counts.pixels[entries].cumsum(0)
            wrong = (valid[entries] - counts.pixels[entries]).cumsum(0)
            highest[label] = (right.double() / (right[-1] + wrong).double()).max()
    return highest


def majority_class(counts: RegionCounts) -> Int[Tensor, "regions"]:
    """The class of most pixels of each region, of several the first; -1 where none is known.

    Example:
        >>> labels, regions = torch.tensor([[1, 1, 0, 255]]), torch.tensor([[0, 0, 0, 1]])
        >>> majority_class(count_regions(labels, regions, 2))
        tensor([ 1, -1])
    """
    chosen = _best_entries(counts, counts.pixels.double())
    classes = torch.full_like(counts.valid, -1)
    return classes.scatter(0, counts.region[chosen], counts.label[chosen])


def attained_iou(counts: RegionCounts, num_classes: int) -> Float[Tensor, "classes"]:
    """IoU of each class when regions are labelled well: what the ceiling is at least.

    From the class of most pixels of each region on, regions are labelled anew by the derivative of
    the mIoU, `(pixels_c - IoU_c * (valid - pixels_c)) / U_c` with union U_c, which favours rare
    classes, several times over; the best labelling seen is kept.

    Args:
        counts: Of all pictures together.
        num_classes: K.
    Returns:
        Float64; NaN for a class without pixels.
    Example:
        >>> labels, regions = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
        >>> attained_iou(count_regions(labels, regions, 2), 2)
        tensor([0.6667, 0.5000], dtype=torch.float64)
    """
    present = counts.pixels.new_zeros(num_classes).scatter_add(0, counts.label, counts.pixels)
    wrong = (counts.valid[counts.region] - counts.pixels).double()
    gain = counts.pixels.double()
    best = present.new_full((num_classes,), -1, dtype=torch.float64)
    for _ in range(_NUM_ROUNDS):
        iou, union = _iou(counts, _best_entries(counts, gain), present)
        if iou.nanmean() > best.nanmean():
            best = iou
        gain = (counts.pixels - iou[counts.label] * wrong) / union[counts.label]
    return best


def ceiling(counts: RegionCounts, num_classes: int) -> Ceiling:
    """Both bounds: what no labelling of the regions exceeds, and what one of them reaches.

    Example:
        >>> labels, regions = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]])
        >>> reached = ceiling(count_regions(labels, regions, 2), 2)
        >>> reached.miou, round(reached.attained_miou, 3)
        (0.625, 0.583)
    """
    return Ceiling(highest_iou(counts, num_classes), attained_iou(counts, num_classes))


def _best_entries(counts: RegionCounts, gain: Float[Tensor, "entries"]) -> Int[Tensor, "regions"]:
    """The entry of the highest gain in each region that has entries; of several the first."""
    top = torch.full(counts.valid.shape, -torch.inf, dtype=gain.dtype)
    top = top.scatter_reduce(0, counts.region, gain, "amax")
    winners = (gain == top[counts.region]).nonzero().squeeze(1)
    first = torch.ones_like(winners, dtype=torch.bool)
    first[1:] = counts.region[winners].diff() != 0
    return winners[first]


def _iou(
    counts: RegionCounts, chosen: Int[Tensor, "regions"], present: Int[Tensor, "classes"]
) -> tuple[Float[Tensor, "classes"], Float[Tensor, "classes"]]:
    """IoU of each class, and the union. No region takes a class without pixels: 0 / 0 is NaN."""
    label, pixels = counts.label[chosen], counts.pixels[chosen]
    right = torch.zeros_like(present).scatter_add(0, label, pixels)
    taken = torch.zeros_like(present).scatter_add(0, label, counts.valid[counts.region[chosen]])
    union = (present + taken - right).double()
    return right / union, union
