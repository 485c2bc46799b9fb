"""Which picture comes when: a function of the seed, the step and the rank, and of nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

__all__ = ["Draw", "TrainOrder", "share_of_rank"]


class Draw(NamedTuple):
    """One picture at one time: its augmentation is a function of this and the seed."""

    sample: int
    """Index of the picture in its source."""
    epoch: int
    """How often the source has been gone through."""
    repeat: int
    """Number of this copy, from 0, where an epoch repeats pictures."""


@dataclass(frozen=True, kw_only=True)
class TrainOrder:
    """The micro-batches of one process, from any step on.

    Each epoch is a new permutation of the pictures, cut into steps of `batch_size`; what is left
    over is dropped. A step's pictures are dealt to the processes in turn, so that several processes
    see together what one would. Nothing is remembered: the order resumes exactly at any step.
    """

    num_samples: int
    batch_size: int
    """Pictures per step, of all processes and micro-batches."""
    seed: int
    num_repeats: int = 1
    """Copies of each picture that an epoch shows, one after the other, so that they share a step
    unless it ends between them (repeated augmentation, arXiv:1901.09335). The epoch keeps its
    length, as timm's does: it shows `num_samples / num_repeats` of the pictures, other ones each
    time."""
    rank: int = 0
    world_size: int = 1
    accumulate: int = 1
    """Micro-batches per step."""

    def __post_init__(self) -> None:
        if self.batch_size % (self.world_size * self.accumulate):
            raise ValueError(
                f"batch-size must be a multiple of the {self.world_size} processes times "
                f"--accumulate {self.accumulate}, got {self.batch_size}; change --batch-size"
            )
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"batch-size must be at most the {self.num_samples} training pictures of an epoch, "
                f"got {self.batch_size}; lower --batch-size"
            )

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in an epoch, however often it repeats a picture."""
        return self.num_samples // self.batch_size

    @property
    def micro_batch_size(self) -> int:
        """Pictures in each micro-batch of this process."""
        return self.batch_size // (self.world_size * self.accumulate)

    def batches(self, start: int, stop: int) -> Iterator[list[Draw]]:
        """Micro-batches of the steps from `start` to before `stop`, `accumulate` for each step."""
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for step in range(start, stop):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = np.random.default_rng((self.seed, epoch)).permutation(self.num_samples)
            first = step % self.steps_per_epoch * self.batch_size
            places = range(first, first + self.batch_size)[self.rank :: self.world_size]
            size = self.micro_batch_size
            for start_of in range(0, len(places), size):
                yield [self._draw(order, epoch, place) for place in places[start_of:][:size]]

    def _draw(self, order: np.ndarray, epoch: int, place: int) -> Draw:
        return Draw(int(order[place // self.num_repeats]), epoch, place % self.num_repeats)


def share_of_rank(num_samples: int, rank: int, world_size: int) -> range:
    """Indices that one process evaluates: every `world_size`-th, so that each is seen once.

    Example:
        >>> [list(share_of_rank(5, rank, 2)) for rank in (0, 1)]
        [[0, 2, 4], [1, 3]]
    """
    return range(num_samples)[rank::world_size]
