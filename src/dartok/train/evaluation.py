"""Measure a model on the pictures of a source, over all processes and for several budgets."""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from dartok.data.clips.transforms import blank_clip
from dartok.data.feed import eval_feed
from dartok.data.loading import BadSamples
from dartok.data.samples import AnySource, BadSample, Batch, ClipTransform, Transform
from dartok.data.transforms import blank_image
from dartok.models.dials import tokenizer_of
from dartok.tasks.classification import Tally
from dartok.train.world import World

__all__ = ["evaluate", "evaluate_budgets", "view_logits"]

T = TypeVar("T")

_VIEWS_NDIM = 6
"""Of views of clips, `(B, views, T, C, H, W)`."""


@torch.no_grad()
def evaluate(
    model: nn.Module,
    source: AnySource,
    transform: Transform | ClipTransform,
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
        model: Maps images or clips to logits; on the world's device.
        source: Labelled pictures, or videos.
        transform: Picture to tensor; of a video several views, whose shares are averaged.
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
            _logits(model, _blank(transform).to(world.device), precision)
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
        return view_logits(model, images) if images.ndim == _VIEWS_NDIM else model(images)


def view_logits(model: nn.Module, views: Float[Tensor, "B views T C H W"]) -> Float[Tensor, "B K"]:
    """`log(mean over the views of softmax(logits))` of videos that are shown in several views.

    Source: the testing of Kinetics, arXiv:1711.07971.

    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
        >>> view_logits(model, torch.rand(2, 3, 1, 3, 2, 2)).shape
        torch.Size([2, 5])
    """
    logits = model(views.flatten(0, 1)).unflatten(0, views.shape[:2])
    return logits.float().log_softmax(-1).logsumexp(1) - math.log(views.shape[1])


def _blank(transform: Any) -> Tensor:
    of_clips = hasattr(transform, "sample_shape")
    return blank_clip(transform) if of_clips else blank_image(transform)


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
