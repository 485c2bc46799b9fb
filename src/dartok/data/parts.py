"""Which part of a stream of shards each process and worker reads: all of it, nothing twice."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np

from dartok.data.samples import RawSample, ShardedSource, SourceError

__all__ = ["Slice", "read_epoch", "read_part", "slices_of_part"]


class Slice(NamedTuple):
    """Every `step`-th picture of a shard, from the one numbered `first` on."""

    shard: int
    first: int
    step: int


def slices_of_part(num_shards: int, part: int, num_parts: int) -> list[Slice]:
    """What one of several parts reads of some shards; together they read each picture once.

    As many whole shards are dealt out as all parts can have. Each of the rest is shared by some
    parts, which take its pictures in turn.

    Example:
        >>> slices_of_part(3, 0, 2)
        [Slice(shard=0, first=0, step=1), Slice(shard=2, first=0, step=2)]
        >>> slices_of_part(3, 1, 2)
        [Slice(shard=1, first=0, step=1), Slice(shard=2, first=1, step=2)]
    """
    num_dealt = num_shards // num_parts * num_parts
    slices = [Slice(shard, 0, 1) for shard in range(part, num_dealt, num_parts)]
    rest = num_shards - num_dealt
    if rest:
        num_sharing = len(range(part % rest, num_parts, rest))
        slices.append(Slice(num_dealt + part % rest, part // rest, num_sharing))
    return slices


def read_part(
    source: ShardedSource, order: Sequence[int], part: int, num_parts: int
) -> Iterator[RawSample]:
    """The pictures of one of several parts, shards in the given order."""
    for place, first, step in slices_of_part(len(order), part, num_parts):
        yield from islice(source.read_shard(order[place]), first, None, step)


def read_epoch(
    source: ShardedSource, part: int, num_parts: int, *, seed: int, epoch: int, buffer: int
) -> Iterator[RawSample]:
    """A part's pictures of an epoch, mixed; begun again, mixed anew, for as long as it is read.

    Shards are dealt out in another order each epoch, the same one for all parts. Up to `buffer`
    pictures of the part wait in memory, and a random one of them is the next.

    Raises:
        SourceError: If the part holds no picture.
    """
    order = np.random.default_rng((seed, epoch)).permutation(source.num_shards).tolist()
    passes = 0
    while True:
        rng = np.random.default_rng((seed, epoch, part, passes))
        sample = None
        for sample in _mixed(read_part(source, order, part, num_parts), buffer, rng):
            yield sample
        if sample is None:
            raise SourceError(
                f"the stream must hold a picture for each of the {num_parts} processes times "
                f"workers, got none for number {part + 1}; lower --workers"
            )
        passes += 1


def _mixed(
    samples: Iterator[RawSample], buffer: int, rng: np.random.Generator
) -> Iterator[RawSample]:
    waiting = list(islice(samples, buffer))
    for sample in samples:
        place = rng.integers(buffer)
        yield waiting[place]
        waiting[place] = sample
    for place in rng.permutation(len(waiting)):
        yield waiting[place]
