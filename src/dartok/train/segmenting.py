"""The job of telling the class of each pixel: its part in a training run, and its evaluation."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.data.augment import PixelConfig
from dartok.data.feed import eval_feed
from dartok.data.label_maps import IGNORE, MapSource, open_label_maps
from dartok.data.label_maps.transforms import eval_map_transform, train_map_transform
from dartok.data.loading import BadSamples
from dartok.data.samples import BadSample, Batch, LabelledTransform
from dartok.models.recipes import Recipe
from dartok.models.registry import SEGMENTER
from dartok.scorers.weights import load_strictly, read_state
from dartok.tasks.objective import Objective
from dartok.tasks.segmentation.inference import sliding_logits
from dartok.tasks.segmentation.objective import map_objective
from dartok.tasks.segmentation.segmenter import Segmenter
from dartok.tasks.segmentation.tally import MapTally
from dartok.train.config import TrainConfig
from dartok.train.model import choose_parts, pixels_of, region_args
from dartok.train.world import World

__all__ = ["SegmentingJob", "class_shares", "evaluate_maps", "open_split"]

_LOOKED_AT = 500
"""Label maps from which the shares of the classes are taken."""
_COLOURS = "label_colours"


class SegmentingJob:
    """Pictures to the class of each pixel.

    Args:
        config: Everything about the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def train_source(self) -> MapSource:
        """`--data`, the split "train" unless another is named."""
        return open_split(self.config.data.data, "train")

    def eval_source(self, class_names: tuple[str, ...]) -> MapSource:
        """`--val`, or the split "val" of the training pictures' data set."""
        data = self.config.data
        source = open_split(data.val or _root_of(data.data), "val")
        if source.class_names != class_names:
            raise ValueError(
                f"val must have the {len(class_names)} classes of data, got other ones, "
                f"{len(source.class_names)}; give a --val of the same data set"
            )
        return source

    def recipe(self, num_classes: int) -> Recipe:
        """Of an adapted host with a decoder."""
        model, task = self.config.model, self.config.task
        # The fixed grid: a lattice, whatever the aspect of a picture.
        fixed = {"scorer": "uniform", "partition": "grid"}
        encoder: dict[str, Any] = {"host": model.model, **fixed}
        if model.budget is not None:
            encoder = region_args(model)
        if model.drop_path:
            encoder["drop_path_rate"] = model.drop_path
        args = {"encoder": encoder, "num_classes": num_classes, "decoder": task.decoder}
        return Recipe(SEGMENTER, args | {"detail": task.detail})

    def build(self, recipe: Recipe) -> nn.Module:
        """The model with the weights to start from.

        Raises:
            ValueError: If it cannot be built from these options, or the file does not fit.
        """
        config = self.config.model
        weights = {
            "host_pretrained": config.pretrained,
            "scorer_weights": config.scorer_weights if config.budget is not None else None,
        }
        try:
            model: nn.Module = timm.create_model(
                recipe.name, **recipe.args, encoder_weights=weights
            )
        except (TypeError, RuntimeError, AssertionError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"model {config.model!r} cannot be built ({reason})") from error
        assert isinstance(model, Segmenter)
        model.train_stride = self.config.task.loss_stride
        if config.checkpoint is not None:
            source = f"checkpoint {config.checkpoint} as {config.model}"
            load_strictly(model, read_state(config.checkpoint), source=source)
        choose_parts(model, config.parts)
        return model

    def pixels(self, model: nn.Module) -> PixelConfig:
        """Crops of `--image-px` by `--crop-width-px`."""
        pixels = pixels_of(model, self.config.data.image_px)
        return replace(pixels, width_px=self.config.task.crop_width_px or pixels.width_px)

    def train_transform(self, pixels: PixelConfig) -> LabelledTransform:
        """A random part at a random scale."""
        task = self.config.task
        return train_map_transform(
            self.config.augment, pixels, min_scale=task.min_scale, max_scale=task.max_scale
        )

    def objective(
        self, model: nn.Module, source: MapSource, pixels: PixelConfig, device: torch.device
    ) -> Objective:
        """Of pixels, overlap and where the regions lie."""
        task = self.config.task
        needed = task.class_balance or task.score_boundary
        shares = class_shares(source) if needed else None
        return map_objective(task, self.config.loss, shares)

    def evaluate(
        self,
        model: nn.Module,
        source: MapSource,
        pixels: PixelConfig,
        *,
        batch_size: int,
        bad: BadSamples,
        world: World,
        precision: torch.dtype,
    ) -> MapTally:
        """mIoU and the like."""
        return evaluate_maps(
            model,
            source,
            pixels,
            batch_size=batch_size,
            bad=bad,
            world=world,
            workers=self.config.data.workers,
            precision=precision,
            windows=self.config.task.windows,
        )

    def notes(
        self, model: nn.Module, source: MapSource, pixels: PixelConfig, device: torch.device
    ) -> dict[str, float]:
        """Nothing: where the objects lie is measured pixel by pixel."""
        return {}

    def extras(self, source: MapSource) -> dict[str, Any]:
        """The colours of the classes."""
        return {_COLOURS: [list(colour) for colour in source.colours]}


def open_split(data: str, usual: str) -> MapSource:
    """Label maps of `ROOT`, or of `ROOT:SPLIT`; a folder whose name has a colon is a root.

    Args:
        data: What the user named.
        usual: Split of a root without one.
    Raises:
        ValueError: If the folder or the split cannot be read.
    """
    root, colon, split = data.rpartition(":")
    if not colon or Path(data).exists():
        return open_label_maps(data, usual)
    return open_label_maps(root, split)


def _root_of(data: str) -> str:
    return data if Path(data).exists() else data.rpartition(":")[0] or data


def class_shares(source: MapSource) -> Float[Tensor, "K"]:
    """Share of each class among the labelled pixels of some pictures, evenly spread."""
    counts = torch.zeros(IGNORE + 1, dtype=torch.float64)
    step = max(1, len(source) // _LOOKED_AT)
    for index in range(0, len(source), step):
        try:
            labels = source.load(index).labels
        except ValueError:
            continue  # named when it is its turn
        counts += torch.tensor(labels.histogram()[: IGNORE + 1], dtype=torch.float64)
    counts = counts[: len(source.class_names)]
    return (counts / counts.sum().clamp_min(1)).float()


@torch.no_grad()
def evaluate_maps(
    model: nn.Module,
    source: MapSource,
    pixels: PixelConfig,
    *,
    batch_size: int,
    bad: BadSamples,
    world: World,
    workers: int = 0,
    precision: torch.dtype = torch.float32,
    windows: bool = False,
) -> MapTally:
    """Every readable picture once, whole, whatever the number of processes; the mode is kept.

    A picture is scaled so that its shorter side is that of the model's pictures; its logits are
    laid on all of its own pixels, where the labels are.

    Args:
        model: A `Segmenter`; on the world's device.
        source: Pictures with label maps.
        pixels: Size and normalisation.
        batch_size: Pictures per forward pass of each process, where they are of one size.
        bad: Counts the damaged pictures.
        world: This process among all.
        workers: Processes that read, for each process.
        precision: Of the model's arithmetic.
        windows: Whether to look through overlapping windows of the size of `pixels`.
    Raises:
        ValueError: If too many pictures are damaged.
    """
    tally = MapTally(source.class_names, ignore=IGNORE, device=world.device)
    damaged: list[BadSample] = []
    window = (pixels.size_px, pixels.width_px or pixels.size_px) if windows else None
    was_training = model.training
    model.eval()
    single = eval_feed(
        source,
        eval_map_transform(pixels),
        1,
        rank=world.rank,
        world_size=world.size,
        workers=workers,
    )
    for batch in _of_one_size(single, batch_size):
        damaged += batch.bad
        if len(batch.labels):
            images, labels = batch.images.to(world.device), batch.labels.to(world.device)
            tally.add(_logits(model, images, _size(labels), window, precision), labels)
    model.train(was_training)
    world.add_up(*tally.parts())
    for found in world.gather(damaged):
        assert isinstance(found, list)
        bad.add(found)
    return tally


def _logits(
    model: nn.Module,
    images: Tensor,
    size: tuple[int, int],
    window: tuple[int, int] | None,
    precision: torch.dtype,
) -> Tensor:
    narrow = precision != torch.float32
    with torch.autocast(images.device.type, dtype=precision, enabled=narrow):
        if window is None:
            return model(images, size)
        return sliding_logits(model, images, window, size)


def _of_one_size(batches: Iterable[Batch], batch_size: int) -> Iterator[Batch]:
    """Batches of one picture joined to larger ones while image and labels are as large."""
    held: list[Batch] = []
    for batch in batches:
        same = not held or (
            _size(held[0].images) == _size(batch.images)
            and _size(held[0].labels) == _size(batch.labels)
        )
        if held and not (same and len(held) < batch_size):
            yield _joined(held)
            held = []
        held.append(batch)
    if held:
        yield _joined(held)


def _joined(batches: list[Batch]) -> Batch:
    return Batch(
        torch.cat([batch.images for batch in batches]),
        torch.cat([batch.labels for batch in batches]),
        tuple(sample for batch in batches for sample in batch.bad),
        tuple(name for batch in batches for name in batch.names),
    )


def _size(values: Tensor) -> tuple[int, int]:
    return (values.shape[-2], values.shape[-1])
