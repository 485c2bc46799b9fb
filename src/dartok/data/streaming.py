"""Batches of a stream of shards: each process and worker reads a part of its own."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, islice, repeat
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from dartok.data.items import NUM_STAND_INS, Item, collate, collate_of, unless_damaged
from dartok.data.loading import seeded
from dartok.data.order import TrainOrder
from dartok.data.parts import read_epoch, read_part
from dartok.data.samples import (
    BadSample,
    Batch,
    DamagedError,
    RawSample,
    ShardedSource,
    SourceError,
    Transform,
)

__all__ = ["eval_stream", "train_stream"]


def train_stream(
    source: ShardedSource,
    transform: Transform,
    order: TrainOrder,
    start: int,
    stop: int,
    *,
    shuffle_buffer: int,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The micro-batches of one process for the steps from `start` to before `stop`.

    They are a function of the seed, the step, and the numbers of processes and workers: each worker
    makes whole micro-batches in turn, from its part of the shards. Every epoch of
    `order.steps_per_epoch` steps begins the stream anew, so a run that resumes passes over the
    bytes of one epoch at most. A worker whose part is shorter than its share of the steps begins
    its part again; what is left of a longer one is dropped.

    For a damaged picture the next readable one stands in, which comes again in its own turn.

    Args:
        source: Where pictures come from.
        transform: Picture to tensor; what is random in it is seeded by the place in the stream.
        order: Batch size, seed, processes and repeats; `order.num_samples` sets the epoch's length.
        start: First step.
        stop: Step after the last one.
        shuffle_buffer: Pictures that each worker mixes in memory.
        workers: Processes that read and augment; 0 for this one.
        pin_memory: For faster copies to a GPU.
    Raises:
        ValueError: If a shard is broken, a part is empty, or the stand-ins are all damaged, too.
    """
    stream = _TrainStream(source, transform, order, start, stop, shuffle_buffer)
    return _batches(stream, workers, pin_memory)


def eval_stream(
    source: ShardedSource,
    transform: Transform,
    batch_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """One process's share of all pictures, each once; damaged ones are left out and named.

    Raises:
        ValueError: If a shard is broken.
    """
    stream = _EvalStream(source, transform, batch_size, rank, world_size)
    return _batches(stream, workers, pin_memory)


def _batches(
    stream: "IterableDataset[Batch | str]", workers: int, pin_memory: bool
) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        stream,
        batch_size=None,  # the stream's items are batches
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the loader must not draw from the global generator
    )
    for batch in loader:
        if isinstance(batch, str):  # not raised in a worker: it adds its traceback
            raise ValueError(batch)
        yield batch


def _as_it_is(batch: Any) -> Any:
    return batch


def _worker() -> tuple[int, int]:
    """Number of this worker and how many there are."""
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def _decoded(sample: RawSample, bad: list[BadSample]) -> Any:
    decode = partial(sample.decode, sample.data, sample.name)
    return unless_damaged(decode, sample.name, bad, ValueError)


def _transformed(
    transform: Transform, image: Any, sample: RawSample, bad: list[BadSample]
) -> Tensor | None:
    return unless_damaged(partial(transform, image), sample.name, bad, DamagedError)


@dataclass
class _EvalStream(IterableDataset[Batch | str]):
    source: ShardedSource
    transform: Transform
    batch_size: int
    rank: int
    world_size: int

    def __iter__(self) -> Iterator[Batch | str]:
        """Batches; last of all the message, if the source cannot be read on."""
        worker, num_workers = _worker()
        part, num_parts = self.rank * num_workers + worker, self.world_size * num_workers
        samples = read_part(self.source, range(self.source.num_shards), part, num_parts)
        stack = collate_of(self.transform)
        try:
            while chunk := list(islice(samples, self.batch_size)):
                yield stack([self._item(sample) for sample in chunk])
        except SourceError as error:
            yield str(error)

    def _item(self, sample: RawSample) -> Item:
        bad: list[BadSample] = []
        image = _decoded(sample, bad)
        made = None if image is None else _transformed(self.transform, image, sample, bad)
        return Item(made, sample.label, sample.name, tuple(bad))


@dataclass
class _TrainStream(IterableDataset[Batch | str]):
    source: ShardedSource
    transform: Transform
    order: TrainOrder
    start: int
    stop: int
    buffer: int

    def __iter__(self) -> Iterator[Batch | str]:
        """This worker's batches; last of all the message, if there cannot be more."""
        worker, num_workers = _worker()
        accumulate = self.order.accumulate
        length = self.order.steps_per_epoch * accumulate
        number, stop = self.start * accumulate + worker, self.stop * accumulate
        try:
            while number < stop:
                epoch, first = divmod(number, length)
                turns = range(first, min(length, stop - epoch * length), num_workers)
                yield from islice(self._of_epoch(epoch, first, num_workers), len(turns))
                number += len(turns) * num_workers
        except SourceError as error:
            yield str(error)

    def _of_epoch(self, epoch: int, first: int, num_workers: int) -> Iterator[Batch]:
        """Every `num_workers`-th batch of an epoch from the one numbered `first` on, endlessly.

        They come from the part of the worker that would have made `first` had the epoch been begun
        at its start, whichever worker makes them now.
        """
        done, turn = divmod(first, num_workers)
        part, num_parts = self.order.rank * num_workers + turn, self.order.world_size * num_workers
        samples = read_epoch(
            self.source, part, num_parts, seed=self.order.seed, epoch=epoch, buffer=self.buffer
        )
        repeats = self.order.num_repeats
        chosen = islice(samples, epoch % repeats, None, repeats)  # other pictures each epoch
        copies = chain.from_iterable(repeat(each, repeats) for each in chosen)
        size = self.order.micro_batch_size
        items = self._items(islice(copies, done * size, None), (epoch, part), done * size)
        while True:
            yield collate(list(islice(items, size)))

    def _items(
        self, samples: Iterator[RawSample], key: tuple[int, int], start: int
    ) -> Iterator[Item]:
        """One item for each sample, so that a place in the stream is found without decoding."""
        ahead: deque[RawSample] = deque()
        for position in count(start):
            yield self._item(samples, ahead, (*key, position))
            ahead.popleft()

    def _item(
        self, samples: Iterator[RawSample], ahead: deque[RawSample], key: tuple[int, int, int]
    ) -> Item:
        bad: list[BadSample] = []
        for attempt in range(NUM_STAND_INS * self.order.num_repeats):
            if attempt == len(ahead):
                ahead.append(next(samples))
            sample = ahead[attempt]
            image = _decoded(sample, bad)
            if image is None:
                continue
            with seeded(self.order.seed, *key):
                made = _transformed(self.transform, image, sample, bad)
            if made is not None:
                return Item(made, sample.label, "", tuple(bad))
        raise SourceError(
            f"no picture stands in for a damaged one: {NUM_STAND_INS} in a row are damaged, such "
            f"as {bad[-1].name} ({bad[-1].reason}); mend or remove them"
        )
