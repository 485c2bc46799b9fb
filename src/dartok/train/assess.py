"""Evaluate a model folder on a folder of pictures, for several budgets."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from dartok.core.tokenizer import Tokenizer
from dartok.data.loading import BadSamples
from dartok.data.transforms import eval_transform
from dartok.models.dials import tokenizer_of
from dartok.train.evaluation import evaluate, evaluate_budgets
from dartok.train.loop_config import Precision
from dartok.train.model import pixels_of
from dartok.train.package import Package, load_package
from dartok.train.run import choose_precision
from dartok.train.sources import source_to_evaluate
from dartok.train.world import World

__all__ = ["assess"]


def assess(
    folder: Path,
    data: str,
    *,
    budgets: Sequence[int],
    image_px: int | None,
    batch_size: int,
    workers: int,
    max_bad_share: float,
    precision: Precision,
    world: World,
) -> list[dict[str, float]]:
    """Measures of `Tally.measures`, and "num_tokens", for each budget.

    Args:
        folder: Of the model.
        data: Folder of class folders, or "digits".
        budgets: Numbers of tokens; none for the model's own.
        image_px: Side of the pictures; None for the model's own.
        batch_size: Pictures per forward pass of each process.
        workers: Processes that read, for each process.
        max_bad_share: Share of the pictures that may be damaged.
        precision: Of the model's arithmetic.
        world: This process among all.
    Raises:
        ValueError: If the model or the pictures cannot be read, or the model has no regions to give
            another number of.
    """
    package = load_package(folder)
    model = package.model.to(world.device)
    source = source_to_evaluate(data, package.class_names)
    measure = partial(
        evaluate,
        model,
        source,
        eval_transform(pixels_of(model, image_px)),
        batch_size=batch_size,
        bad=BadSamples(num_samples=len(source), max_share=max_bad_share),
        world=world,
        workers=workers,
        precision=choose_precision(precision, world.device),
    )
    if budgets:
        tallies = evaluate_budgets(model, budgets, measure)
    else:
        tallies = {_own_tokens(package): measure()}
    return [tally.measures() | {"num_tokens": number} for number, tally in tallies.items()]


def _own_tokens(package: Package) -> int:
    if any(isinstance(module, Tokenizer) for module in package.model.modules()):
        return tokenizer_of(package.model).num_tokens
    embed = getattr(package.model, "patch_embed", None)
    return int(getattr(embed, "num_patches", 0))
