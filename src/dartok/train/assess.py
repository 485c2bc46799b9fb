"""Evaluate a model folder on a folder of pictures, for several budgets and protocols."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dartok.core.tokenizer import Tokenizer
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.clips.opening import open_clips
from dartok.data.clips.transforms import eval_clip_transform
from dartok.data.loading import BadSamples
from dartok.data.samples import AnySource, ClipTransform, Transform
from dartok.data.source_config import DataConfig
from dartok.data.transforms import eval_transform
from dartok.models.dials import tokenizer_of
from dartok.tasks.classification import Tally
from dartok.tasks.segmentation.segmenter import Segmenter
from dartok.train.evaluation import evaluate, evaluate_budgets
from dartok.train.image_results import ImageResults
from dartok.train.loop_config import Precision
from dartok.train.package import Package, load_package
from dartok.train.protocols import EvalProtocol, batch_statistics
from dartok.train.run import choose_precision
from dartok.train.segmenting import evaluate_maps, open_split
from dartok.train.sources import source_to_evaluate
from dartok.train.world import World

__all__ = ["Row", "assess"]

Row = dict[str, float | str]
"""Measures of `Tally.measures`, "protocol", "batch_size" and "num_tokens"."""


def assess(
    folder: Path,
    data: DataConfig,
    *,
    budgets: Sequence[int],
    protocols: Sequence[EvalProtocol],
    batch_size: int,
    precision: Precision,
    world: World,
    per_image: Path | None = None,
    windows: bool = False,
    clip: Mapping[str, int] | None = None,
) -> list[Row]:
    """A row for each protocol at each budget.

    Args:
        folder: Of the model.
        data: Labelled pictures, and how they are read.
        budgets: Numbers of tokens; none for the model's own.
        protocols: How each is measured.
        batch_size: Pictures per forward pass of each process.
        precision: Of the model's arithmetic.
        world: This process among all.
        windows: Whether label maps are told through overlapping windows.
        clip: Settings of `ClipConfig` in place of the model's own, for a model of videos.
        per_image: Parquet file to write of every picture (see `ImageResults`); None for none.
    Raises:
        ValueError: If the model or the pictures cannot be read, or the model has no regions to give
            another number of.
    """
    package = load_package(folder)
    model = package.model.to(world.device)
    if isinstance(model, Segmenter):
        if per_image is not None or any(protocol.batch_statistics for protocol in protocols):
            raise ValueError("per-image and paper are for classifiers; drop them")
        return _of_maps(package, data, budgets, protocols[0], batch_size, precision, world, windows)
    if clip and package.clip is None:
        raise ValueError(f"{_flag(clip)} is for a model of videos, got one of pictures; drop it")
    _check_protocols(package, protocols, windows=windows)
    source = _source_of(package, data)
    for protocol in protocols:
        protocol.check(model)
    run = partial(
        evaluate,
        model,
        source,
        batch_size=batch_size,
        bad=BadSamples(num_samples=len(source), max_share=data.max_bad_share),
        world=world,
        workers=data.workers,
        precision=choose_precision(precision, world.device),
    )
    results = None if per_image is None else ImageResults(per_image, source.class_names)

    def measure() -> list[Row]:
        found = [
            _measure(package, protocol, run, results, clip, batch_size) for protocol in protocols
        ]
        return [row | {"batch_size": batch_size} for row in found]

    of_budget = evaluate_budgets(model, budgets, measure) if budgets else {0: measure()}
    if results is not None:
        results.write(world)
    return [row for rows in of_budget.values() for row in rows]


def _of_maps(
    package: Package,
    data: DataConfig,
    budgets: Sequence[int],
    protocol: EvalProtocol,
    batch_size: int,
    precision: Precision,
    world: World,
    windows: bool,
) -> list[Row]:
    """A row for each budget, with "iou/CLASS" of each class."""
    data.check_kind("label maps")
    source = open_split(data.data, "val")
    if source.class_names != package.class_names:
        raise ValueError(
            f"{data.data} must have the model's {len(package.class_names)} classes, got "
            f"{len(source.class_names)} that are not they; name the data set it was trained on"
        )

    def measure() -> Row:
        tally = evaluate_maps(
            package.model,
            source,
            protocol.pixels(package.model),
            batch_size=batch_size,
            bad=BadSamples(num_samples=len(source), max_share=data.max_bad_share),
            world=world,
            workers=data.workers,
            precision=choose_precision(precision, world.device),
            windows=windows,
        )
        ious = {f"iou/{name}": value for name, value in tally.ious().items()}
        num_tokens = _num_tokens(package.model)
        return {"num_tokens": num_tokens, "batch_size": batch_size, **tally.measures(), **ious}

    found = evaluate_budgets(package.model, budgets, measure) if budgets else {0: measure()}
    return list(found.values())


def _check_protocols(package: Package, protocols: Sequence[EvalProtocol], *, windows: bool) -> None:
    if windows:
        kind = "pictures" if package.clip is None else "videos"
        raise ValueError(f"windows is for label maps, got a classifier of {kind}; drop --windows")
    if package.clip is not None and any(protocol.batch_statistics for protocol in protocols):
        raise ValueError("paper is for models of pictures, got one of videos; drop --paper")


def _source_of(package: Package, data: DataConfig) -> AnySource:
    if package.clip is None:
        data.check_kind("pictures")
        return source_to_evaluate(data, package.class_names)
    data.check_kind("videos")
    return open_clips(
        data.data,
        package.class_names,
        classes=data.classes,
        root=data.root,
        num_samples=data.num_samples,
    )


def _flag(settings: Mapping[str, int]) -> str:
    return next(iter(settings)).replace("_", "-")


def _measure(
    package: Package,
    protocol: EvalProtocol,
    run: Callable[..., Tally],
    results: ImageResults | None,
    clip: Mapping[str, int] | None,
    batch_size: int,
) -> Row:
    model, pixels = package.model, protocol.pixels(package.model)
    options: dict[str, Any] = {}
    num_tokens = _num_tokens(model)
    transform: Transform | ClipTransform = eval_transform(pixels)
    if package.clip is not None:
        settings: dict[str, Any] = {**asdict(package.clip), **(clip or {})}
        frames = ClipConfig(**settings)
        transform = eval_clip_transform(pixels, frames)
        options["batch_size"] = max(1, batch_size // frames.num_views)
    on_batch = None
    if results is not None:
        on_batch = partial(results.add, num_tokens=num_tokens, protocol=protocol.name)
    with batch_statistics(model) if protocol.batch_statistics else nullcontext():
        tally = run(transform, on_batch=on_batch, **options)
    return {"protocol": protocol.name, "num_tokens": num_tokens, **tally.measures()}


def _num_tokens(model: nn.Module) -> int:
    if any(isinstance(module, Tokenizer) for module in model.modules()):
        return tokenizer_of(model).num_tokens
    embed = getattr(model, "patch_embed", None)
    return int(getattr(embed, "num_patches", 0))
