"""Batches of pictures read by index: reproducible, and past damaged ones."""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import tee
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dartok.data.items import NUM_STAND_INS, Item, collate_of, unless_damaged
from dartok.data.order import Draw
from dartok.data.samples import (
    BadSample,
    Batch,
    DamagedError,
    Labelled,
    LabelledTransform,
    PictureSource,
    Source,
    Transform,
)

__all__ = ["BadSamples", "eval_batches", "seeded", "train_batches"]


def train_batches(
    source: PictureSource,
    transform: Transform | LabelledTransform,
    draws: Iterable[list[Draw]],
    *,
    seed: int,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """One batch per list of draws; for a damaged picture another one of the source stands in.

    What is random in `transform` is seeded by `seed` and the draw, so a batch is the same whichever
    worker makes it, and whenever.

    Args:
        source: Where pictures come from.
        transform: Picture to tensor.
        draws: Such as `TrainOrder.batches` gives.
        seed: Of the augmentation.
        workers: Processes that read and augment; 0 for this one.
        pin_memory: For faster copies to a GPU.
    Raises:
        ValueError: If the stand-ins of a damaged picture are all damaged, too.
    """
    asked, known = tee(draws)
    batches = _loader(_TrainItems(source, transform, seed), asked, workers, pin_memory)
    for draw, batch in zip(known, batches, strict=True):
        if len(batch.labels) < len(draw):  # not refused in a worker: it adds its traceback
            raise ValueError(
                f"no picture stands in for a damaged one: of {len(source)} pictures, "
                f"{min(NUM_STAND_INS, len(source))} were tried and all are damaged, such as "
                f"{batch.bad[-1].name} ({batch.bad[-1].reason}); mend or remove them"
            )
        yield batch


def eval_batches(
    source: PictureSource,
    transform: Transform | LabelledTransform,
    indices: range,
    batch_size: int,
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> Iterator[Batch]:
    """The pictures of some indices, in order, each once; damaged ones are left out and named.

    A batch may therefore hold fewer pictures, even none.
    """
    starts = range(0, len(indices), batch_size)
    lists = [list(indices[start : start + batch_size]) for start in starts]
    return iter(_loader(_EvalItems(source, transform), lists, workers, pin_memory))


class BadSamples:
    """Counts damaged pictures, and stops the run when they are too many.

    Args:
        num_samples: Pictures of the source.
        max_share: Share of them that may be damaged.
    Example:
        >>> bad = BadSamples(num_samples=100, max_share=0.01)
        >>> bad.add([BadSample("cat/1.jpg", "truncated")])
        ['cat/1.jpg']
        >>> bad.add([BadSample("cat/2.jpg", "truncated")])
        Traceback (most recent call last):
        ValueError: 2 of 100 pictures are damaged, more than max-bad-share = 0.01; ...
    """

    def __init__(self, *, num_samples: int, max_share: float) -> None:
        self.num_samples = num_samples
        self.max_share = max_share
        self.reasons: dict[str, str] = {}

    def add(self, bad: Iterable[BadSample]) -> list[str]:
        """Note damaged pictures; the names of those not seen before.

        Raises:
            ValueError: If more than the share are damaged; names the last and its reason.
        """
        new = {name: reason for name, reason in bad if name not in self.reasons}
        self.reasons |= new
        if new and len(self.reasons) / self.num_samples > self.max_share:
            last = next(reversed(new))
            raise ValueError(
                f"{len(self.reasons)} of {self.num_samples} pictures are damaged, more than "
                f"max-bad-share = {self.max_share:g}; last {last} ({new[last]}): "
                "mend or remove them, or raise --max-bad-share"
            )
        return list(new)


@contextmanager
def seeded(*key: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed PyTorch's, NumPy's and Python's global generators by some integers; restore them after.

    Libraries of augmentation draw from all three. The generator of `device`, if that is a GPU, is
    seeded too, and not restored: reading its state would stall it.
    """
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    word = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(word % 2**63)
    np.random.seed(word % 2**32)
    random.seed(word)
    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed(word % 2**63)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


class _Items(Dataset[Item]):
    def __init__(self, source: PictureSource, transform: Transform | LabelledTransform) -> None:
        self.source, self.transform = source, transform

    def _transformed(
        self, image: Any, index: int, bad: list[BadSample]
    ) -> Tensor | Labelled | None:
        """What a transform raises of its own, and not of damage, is a bug and not passed over."""
        make: Callable[[], Tensor | Labelled] = partial(self.transform, image)
        return unless_damaged(make, self.source.name(index), bad, DamagedError)


class _TrainItems(_Items):
    def __init__(
        self, source: PictureSource, transform: Transform | LabelledTransform, seed: int
    ) -> None:
        super().__init__(source, transform)
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Item:
        bad: list[BadSample] = []
        stride = max(1, len(self.source) // NUM_STAND_INS)  # damaged ones tend to be neighbours
        for attempt in range(min(NUM_STAND_INS, len(self.source))):
            index = (draw.sample + attempt * stride) % len(self.source)
            image = _read(self.source, index, bad)
            if image is None:
                continue
            with seeded(self.seed, draw.epoch, index, draw.repeat):
                made = self._transformed(image, index, bad)
            if made is not None:
                return _item(self.source, index, made, "", bad)
        return Item(None, 0, "", tuple(bad))


class _EvalItems(_Items):
    def __getitem__(self, index: int) -> Item:
        bad: list[BadSample] = []
        image = _read(self.source, index, bad)
        name = self.source.name(index)
        made = None if image is None else self._transformed(image, index, bad)
        if made is None:
            return Item(None, 0, name, tuple(bad))
        return _item(self.source, index, made, name, bad)


def _item(
    source: PictureSource, index: int, made: Tensor | Labelled, name: str, bad: list[BadSample]
) -> Item:
    """Labels are what came out of the transform, if they are maps, or what the source notes."""
    if isinstance(made, Labelled):
        return Item(made.image, made.labels, name, tuple(bad))
    assert isinstance(source, Source)
    return Item(made, source.label(index), name, tuple(bad))


def _read(source: PictureSource, index: int, bad: list[BadSample]) -> Any:
    return unless_damaged(partial(source.load, index), source.name(index), bad, ValueError)


def _loader(items: _Items, draws: Iterable[Any], workers: int, pin_memory: bool) -> DataLoader[Any]:
    return DataLoader(
        items,
        batch_sampler=draws,  # any iterable of lists serves
        num_workers=workers,
        collate_fn=collate_of(items.transform),
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the loader must not draw from the global generator
    )
