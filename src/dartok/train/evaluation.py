"""Measure a model on the pictures of a source, over all processes and for several budgets."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from dartok.data.feed import eval_feed
from dartok.data.loading import BadSamples
from dartok.data.samples import AnySource, BadSample, Batch, Transform
from dartok.data.transforms import blank_image
from dartok.models.dials import tokenizer_of
from dartok.tasks.classification import Tally
from dartok.train.world import World

__all__ = ["evaluate", "evaluate_budgets"]

T = TypeVar("T")


@torch.no_grad()
def evaluate(
    model: nn.Module,
    source: AnySource,
    transform: Transform,
    *,
    batch_size: int,
    bad: BadSamples,
    world: World,
    workers: int = 0,
    precision: torch.dtype = torch.float32,
    on_batch: Callable[[Batch, Tensor], object] | None = None,
) -> Tally:
    """Every readable picture once, whatever the number of processes; the model keeps its mode.

    Args:
        model: Maps images to logits; on the world's device.
        source: Labelled pictures.
        transform: Picture to tensor.
        batch_size: Pictures per forward pass of each process.
        bad: Counts the damaged pictures.
        world: This process among all.
        workers: Processes that read, for each process.
        precision: Of the model's arithmetic.
        on_batch: Told each batch of this process and its logits `(B, K)`, as in `ImageResults.add`.
    Returns:
        The sums over all processes.
    Raises:
        ValueError: If too many pictures are damaged.
    """
    tally = Tally(num_classes=len(source.class_names), device=world.device)
    damaged: list[BadSample] = []
    was_training = model.training
    model.eval()
    batches = eval_feed(
        source, transform, batch_size, rank=world.rank, world_size=world.size, workers=workers
    )
    sharded = isinstance(model, FSDPModule)  # its processes must call it equally often
    for batch in world.in_step(batches) if sharded else batches:
        if sharded and (batch is None or not len(batch.labels)):
            _logits(model, blank_image(transform).to(world.device), precision)
        if batch is None:
            continue
        damaged += batch.bad
        logits = torch.empty(0, tally.num_classes)
        if len(batch.labels):
            images, labels = batch.images.to(world.device), batch.labels.to(world.device)
            logits = _logits(model, images, precision)
            tally.add(logits, labels)
        if on_batch is not None:
            on_batch(batch, logits)
    model.train(was_training)
    world.add_up(*tally.parts())
    for found in world.gather(damaged):
        assert isinstance(found, list)
        bad.add(found)
    return tally


def _logits(model: nn.Module, images: Tensor, precision: torch.dtype) -> Tensor:
    narrow = precision != torch.float32
    with torch.autocast(images.device.type, dtype=precision, enabled=narrow):
        return model(images)


def evaluate_budgets(
    model: nn.Module, budgets: Sequence[int], measure: Callable[[], T]
) -> dict[int, T]:
    """What `measure` gives at each number of tokens; the model's own number is set again after.

    Raises:
        ValueError: If the model has no regions, or a number is out of range.
    """
    tallies = {}
    for num_tokens in budgets:
        with tokenizer_of(model).at_num_tokens(num_tokens):
            tallies[num_tokens] = measure()
    return tallies
