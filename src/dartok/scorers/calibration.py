"""Freeze score statistics on a set of pictures, so that results no longer depend on the batch."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dartok.core.tokenizer import Tokenizer, check_images
from dartok.scorers.features import FeatureScorer

__all__ = ["calibrate"]


@torch.no_grad()
def calibrate(model: nn.Module, images: Tensor | Iterable[Tensor | tuple[Tensor, ...]]) -> None:
    """Freeze the score statistics of `model` at those of a set of pictures.

    The authors standardise scores over each batch, also at inference, so an image's result depends
    on its batch mates. After calibration it does not: mean and variance of the score logits over
    all these pictures are used in eval mode. Scorers without such statistics are left as they are.

    Args:
        model: An adapted model, a tokenizer or a scorer.
        images: Pictures `(B, C, H, W)` normalised as for the model, or an iterable of such batches;
            a batch may be a tuple whose first entry is the pictures, as a data loader gives.
    Raises:
        ValueError: If the model has neither tokenizer nor scorer, if there is no picture, or if one
            is not finite or not floating point.
    Example:
        >>> from dartok.scorers import create_scorer
        >>> scorer = create_scorer("pixels", statistics="batch").eval()
        >>> calibrate(scorer, torch.rand(4, 3, 64, 64))
        >>> bool(scorer.statistics.frozen)
        True
    """
    scorers = [module for module in model.modules() if isinstance(module, FeatureScorer)]
    if not scorers:
        if not any(isinstance(module, Tokenizer) for module in model.modules()):
            raise ValueError(
                f"model must hold a dartok tokenizer or scorer, got {type(model).__name__}"
            )
        return
    moments = {scorer: _Moments() for scorer in scorers}
    for batch in [images] if isinstance(images, Tensor) else images:
        pictures = batch if isinstance(batch, Tensor) else batch[0]
        check_images(pictures, pictures.shape[1], (1, 1))
        for scorer in scorers:
            moments[scorer].add(scorer.logits(pictures.to(scorer.statistics.mean.device)))
    for scorer in scorers:
        scorer.statistics.freeze(*moments[scorer].result())


class _Moments:
    """Mean and unbiased variance of values seen in parts."""

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.squares = 0.0

    def add(self, values: Tensor) -> None:
        values = values.double()
        self.count += values.numel()
        self.total += float(values.sum())
        self.squares += float(values.square().sum())

    def result(self) -> tuple[float, float]:
        if self.count == 0:
            raise ValueError("images must hold at least one batch of pictures, got none")
        mean = self.total / self.count
        return mean, (self.squares - self.count * mean**2) / max(1, self.count - 1)
