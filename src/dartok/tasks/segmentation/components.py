"""Objects in a label map: connected pieces of one class."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

__all__ = ["connected_components"]


def connected_components(labels: Int[Tensor, "H W"]) -> Int[Tensor, "H W"]:
    """Number the connected pieces of equal label; pixels connect to all eight neighbours.

    Runs of equal label within a row are found first; runs of neighbouring rows that touch are then
    joined until nothing changes.

    Returns:
        Numbers from 0, in the order in which the pieces begin, row by row.
    Example:
        >>> connected_components(torch.tensor([[7, 0, 7], [0, 7, 0]]))
        tensor([[0, 1, 0],
                [1, 0, 1]])
    """
    starts = torch.ones_like(labels, dtype=torch.bool)
    starts[:, 1:] = labels.diff(dim=1) != 0
    runs = (starts.flatten().cumsum(0) - 1).view(labels.shape)
    first, second = _touching(labels, runs)
    joined = _joined(int(runs[-1, -1]) + 1, first, second)
    return torch.unique(joined, return_inverse=True)[1][runs]


def _touching(labels: Tensor, runs: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of runs of equal label in neighbouring rows, by edge or corner."""
    width = labels.shape[1]
    pairs = []
    for step in (-1, 0, 1):
        above = slice(max(0, -step), width - max(0, step))
        below = slice(max(0, step), width - max(0, -step))
        pairs.append(_pairs(labels, runs, above, below))
    return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])


def _pairs(labels: Tensor, runs: Tensor, above: slice, below: slice) -> tuple[Tensor, Tensor]:
    first, second = runs[:-1, above], runs[1:, below]
    same = labels[:-1, above] == labels[1:, below]
    return first[_new(first, second, same)], second[_new(first, second, same)]


def _new(first: Tensor, second: Tensor, same: Tensor) -> Bool[Tensor, "rows columns"]:
    """Only where a pair differs from the one to its left: runs touch along many pixels."""
    changes = (first.diff(dim=1) != 0) | (second.diff(dim=1) != 0)
    return same & F.pad(changes, (1, 0), value=True)


def _joined(count: int, first: Tensor, second: Tensor) -> Int[Tensor, "runs"]:
    """For each run the lowest run that it is connected to."""
    lowest = torch.arange(count)
    while True:
        one, other = lowest[first], lowest[second]
        if torch.equal(one, other):
            return lowest
        lowest.scatter_reduce_(0, torch.maximum(one, other), torch.minimum(one, other), "amin")
        while not torch.equal(lowest, lowest[lowest]):
            lowest = lowest[lowest]
