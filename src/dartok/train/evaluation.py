"""Measure a model on the pictures of a source, over all processes and for several budgets."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from dartok.data.loading import BadSamples, eval_batches
from dartok.data.order import share_of_rank
from dartok.data.samples import BadSample, Source, Transform
from dartok.models.dials import set_num_tokens, tokenizer_of
from dartok.tasks.classification import Tally
from dartok.train.world import World

__all__ = ["evaluate", "evaluate_budgets"]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    bad: BadSamples,
    world: World,
    workers: int = 0,
    precision: torch.dtype = torch.float32,
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
    Returns:
        The sums over all processes.
    Raises:
        ValueError: If too many pictures are damaged.
    """
    tally = Tally(num_classes=len(source.class_names), device=world.device)
    indices = share_of_rank(len(source), world.rank, world.size)
    damaged: list[BadSample] = []
    was_training = model.training
    model.eval()
    for batch in eval_batches(source, transform, indices, batch_size, workers=workers):
        damaged += batch.bad
        if len(batch.labels):
            images, labels = batch.images.to(world.device), batch.labels.to(world.device)
            narrow = precision != torch.float32
            with torch.autocast(images.device.type, dtype=precision, enabled=narrow):
                logits = model(images)
            tally.add(logits, labels)
    model.train(was_training)
    world.add_up(*tally.parts())
    for found in world.gather(damaged):
        assert isinstance(found, list)
        bad.add(found)
    return tally


def evaluate_budgets(
    model: nn.Module, budgets: Sequence[int], measure: Callable[[], Tally]
) -> dict[int, Tally]:
    """What `measure` gives at each number of tokens; the model's own number is set again after.

    Raises:
        ValueError: If the model has no regions, or a number is out of range.
    """
    tokenizer = tokenizer_of(model)
    own = tokenizer.num_tokens, tokenizer.num_rows
    tallies = {}
    for num_tokens in budgets:
        set_num_tokens(model, num_tokens)
        tallies[num_tokens] = measure()
    tokenizer.set_num_tokens(*own)
    return tallies
