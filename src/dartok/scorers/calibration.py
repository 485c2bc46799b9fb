"""Set on some pictures what a model should not learn from each batch anew."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from dartok.core.budget import AutoBudget
from dartok.core.modes import in_eval_mode
from dartok.core.scoring import Scored, check_images
from dartok.core.tokenizer import Tokenizer
from dartok.scorers.features import FeatureScorer

__all__ = ["calibrate", "calibrate_num_tokens"]

Pictures = Tensor | Iterable[Tensor | tuple[Tensor, ...]]

_HALVINGS = 60  # of the interval that holds the mass of a token: finer than float32 tells apart


@torch.no_grad()
def calibrate(model: nn.Module, images: Pictures) -> None:
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
        if not any(isinstance(module, Scored) for module in model.modules()):
            raise ValueError(
                f"model must hold a dartok tokenizer or scorer, got {type(model).__name__}"
            )
        return
    moments = {scorer: _Moments() for scorer in scorers}
    for pictures in _batches(images):
        check_images(pictures, pictures.shape[1], (1, 1))
        for scorer in scorers:
            moments[scorer].add(scorer.logits(pictures.to(scorer.statistics.mean.device)))
    for scorer in scorers:
        scorer.statistics.freeze(*moments[scorer].result())


@torch.no_grad()
def calibrate_num_tokens(model: nn.Module, images: Pictures) -> float:
    """Set the mass that a token is worth, so that the mean count over pictures is the one wanted.

    For models set to `num_tokens="auto"`. The mass of one token is searched by halving: the mean
    count falls with it, in steps. Take pictures like those to come, some hundreds at least: the
    mean over others differs by chance, by about the deviation of the counts over the root of the
    number of pictures.

    Args:
        model: An adapted model or a tokenizer.
        images: Pictures `(B, C, H, W)` normalised as for the model, or an iterable of such batches;
            a batch may be a tuple whose first entry is the pictures, as a data loader gives.
    Returns:
        The mean count over these pictures; it differs from the wanted one where few pictures meet
        large steps, or where `least` and `most` are in the way.
    Raises:
        ValueError: If the model has no budget for each image, or there is no picture.
    Example:
        >>> import dartok
        >>> tokenizer = dartok.RegionTokenizer(embed_dim=8, num_tokens=64)
        >>> dartok.set_num_tokens(tokenizer, "auto")
        >>> abs(calibrate_num_tokens(tokenizer, torch.rand(200, 3, 64, 64)) - 64) < 2
        True
    """
    tokenizers = [module for module in model.modules() if isinstance(module, Tokenizer)]
    if not tokenizers or tokenizers[0].budget is None:
        raise ValueError(
            f"model must have a budget for each image, got {type(model).__name__} without; "
            "call dartok.set_num_tokens(model, 'auto') first"
        )
    tokenizer, budget = tokenizers[0], tokenizers[0].budget
    device = budget.mass_per_token.device
    with in_eval_mode(tokenizer):  # as the counts will be taken; statistics stay
        masses = [tokenizer.scores(batch.to(device)).mean((1, 2)) for batch in _batches(images)]
    if not masses:
        raise ValueError("images must hold at least one batch of pictures, got none")
    mass = torch.cat(masses).to(budget.mass_per_token)
    low, high = mass.min() / (2 * budget.most), 2 * mass.max() / budget.least
    for _ in range(_HALVINGS):
        middle = (low * high).sqrt()
        too_many = budget.counts_at(mass, middle).double().mean() > budget.mean
        low, high = torch.where(too_many, middle, low), torch.where(too_many, high, middle)
    nearest = min((low, high), key=lambda bound: _miss(budget, mass, bound))
    budget.mass_per_token.copy_(nearest)
    return float(budget.counts_at(mass, nearest).double().mean())


def _miss(budget: AutoBudget, mass: Tensor, mass_per_token: Tensor) -> float:
    return abs(float(budget.counts_at(mass, mass_per_token).double().mean()) - budget.mean)


def _batches(images: Pictures) -> Iterator[Tensor]:
    for batch in [images] if isinstance(images, Tensor) else images:
        yield batch if isinstance(batch, Tensor) else batch[0]


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
