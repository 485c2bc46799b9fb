"""Batches of any source, whether it is read by index or as a stream."""

from collections.abc import Iterator
from typing import cast

from dartok.data.loading import eval_batches, train_batches
from dartok.data.order import TrainOrder, share_of_rank
from dartok.data.samples import (
    AnySource,
    Batch,
    LabelledTransform,
    PictureSource,
    ShardedSource,
    Transform,
)
from dartok.data.streaming import eval_stream, train_stream

__all__ = ["eval_feed", "train_feed"]


def train_feed(
    source: AnySource | PictureSource,
    transform: Transform | LabelledTransform,
    order: TrainOrder,
    start: int,
    stop: int,
    *,
    shuffle_buffer: int = 1000,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The micro-batches of one process for the steps from `start` to before `stop`.

    Read by index they are a function of the seed, the step and the rank; those of a stream also
    depend on the numbers of processes and workers. Either way they are the same whether a run is
    broken off and resumed or not.

    Args:
        source: Where pictures come from.
        transform: Picture to tensor.
        order: Which picture comes when; of a stream, how many do.
        start: First step.
        stop: Step after the last one.
        shuffle_buffer: Pictures of a stream that each worker mixes in memory.
        workers: Processes that read and augment; 0 for this one.
        pin_memory: For faster copies to a GPU.
    Raises:
        ValueError: If the stand-ins of a damaged picture are all damaged, too, or a stream breaks.
    """
    if isinstance(source, ShardedSource):
        return train_stream(
            source,
            cast(Transform, transform),  # label maps come by index only
            order,
            start,
            stop,
            shuffle_buffer=shuffle_buffer,
            workers=workers,
            pin_memory=pin_memory,
        )
    draws = order.batches(start, stop)
    return train_batches(
        source, transform, draws, seed=order.seed, workers=workers, pin_memory=pin_memory
    )


def eval_feed(
    source: AnySource | PictureSource,
    transform: Transform | LabelledTransform,
    batch_size: int,
    *,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """One process's share of the pictures, each once; damaged ones are left out and named.

    Raises:
        ValueError: If a stream breaks.
    """
    if isinstance(source, ShardedSource):
        return eval_stream(
            source,
            cast(Transform, transform),
            batch_size,
            rank=rank,
            world_size=world_size,
            workers=workers,
            pin_memory=pin_memory,
        )
    indices = share_of_rank(len(source), rank, world_size)
    return eval_batches(
        source, transform, indices, batch_size, workers=workers, pin_memory=pin_memory
    )
