"""How a model is measured: with its own pixels and statistics, or as others measured theirs."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from torch import nn

from dartok.core.notices import say_once
from dartok.data.augment import PixelConfig
from dartok.models.dials import tokenizer_of
from dartok.scorers.statistics import ScoreStatistics
from dartok.train.model import pixels_of

__all__ = ["EvalProtocol", "batch_statistics"]


class EvalProtocol(NamedTuple):
    """What may differ between two measurements of one model."""

    name: str
    image_px: int | None = None
    """Side of the pictures; None, here and below, for the model's own."""
    crop_share: float | None = None
    """The shorter side is resized to `image_px / crop_share`, then cropped."""
    interpolation: str | None = None
    """How pictures are resized."""
    batch_statistics: bool = False
    """Whether score maps are standardised over the batch (see `batch_statistics`)."""

    def pixels(self, model: nn.Module) -> PixelConfig:
        """What the pictures are made into; the normalisation is always the model's.

        Raises:
            ValueError: If the model's fixed grid does not fit that size.
        """
        own = pixels_of(model, self.image_px)
        return replace(
            own,
            crop_share=self.crop_share or own.crop_share,
            interpolation=self.interpolation or own.interpolation,
        )

    def check(self, model: nn.Module) -> None:
        """Say once if the model standardises no score map, and the batch size does not matter.

        Raises:
            ValueError: If batch statistics are asked of a model without regions.
        """
        if not self.batch_statistics:
            return
        tokenizer_of(model)
        if not _statistics_of(model):
            say_once(
                f"the score net of this model standardises nothing: of the {self.name} protocol "
                "only the pixels apply, not the batch statistics"
            )


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Standardise score maps over the batch, also in eval mode; as before at the end.

    The scores of an image then depend on its batch mates, as in the authors' code.

    Example:
        >>> import torch
        >>> statistics = ScoreStatistics().eval()
        >>> with batch_statistics(statistics):
        ...     statistics(torch.tensor([[[1.0, 2.0, 3.0]]]))
        tensor([[[-1.,  0.,  1.]]])
    """
    found = _statistics_of(model)
    before = [(statistics.source, bool(statistics.frozen)) for statistics in found]
    for statistics in found:
        statistics.source = "batch"
        statistics.frozen.fill_(False)
    try:
        yield
    finally:
        for statistics, (source, frozen) in zip(found, before, strict=True):
            statistics.source = source
            statistics.frozen.fill_(frozen)


def _statistics_of(model: nn.Module) -> list[ScoreStatistics]:
    return [module for module in model.modules() if isinstance(module, ScoreStatistics)]
