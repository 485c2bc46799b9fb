"""What of a training run depends on its task, as one object; and the job of classifying."""

from typing import Any, Protocol

import torch
from jaxtyping import Float
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from dartok.data.augment import PixelConfig
from dartok.data.loading import BadSamples
from dartok.data.samples import (
    AnySource,
    ClipTransform,
    LabelledTransform,
    PictureSource,
    Transform,
)
from dartok.data.transforms import eval_transform, train_transform
from dartok.models.recipes import Recipe
from dartok.tasks.objective import Objective, objective
from dartok.train.config import TrainConfig
from dartok.train.evaluation import evaluate
from dartok.train.model import build_model, pixels_of, recipe_of
from dartok.train.objects import tokens_on_object
from dartok.train.sources import eval_source, train_source
from dartok.train.teacher import build_teacher
from dartok.train.world import World

__all__ = ["ClassifyingJob", "Job", "Measured"]


class Measured(Protocol):
    """Sums over pictures from which measures follow."""

    best: str
    """The measure by which models are compared; more is better."""

    @property
    def confusion(self) -> Float[Tensor, "K K"]:
        """What of each class (row) was taken for each class (column)."""

    def measures(self) -> dict[str, float]:
        """By name."""


class Job(Protocol):
    """A task's part in a run: where pictures come from, what is built, lowered and measured."""

    def train_source(self) -> AnySource | PictureSource:
        """What to train on."""

    def eval_source(self, class_names: tuple[str, ...]) -> AnySource | PictureSource:
        """What to evaluate on, with the classes of the training pictures."""

    def recipe(self, num_classes: int) -> Recipe:
        """How to build the model."""

    def build(self, recipe: Recipe) -> nn.Module:
        """The model with the weights to start from."""

    def pixels(self, model: nn.Module) -> PixelConfig:
        """What the model expects of its pixels."""

    def train_transform(self, pixels: PixelConfig) -> Transform | LabelledTransform:
        """What the source loads, to what the model is trained on."""

    def objective(
        self, model: nn.Module, source: Any, pixels: PixelConfig, device: torch.device
    ) -> Objective:
        """What a step lowers."""

    def evaluate(
        self,
        model: nn.Module,
        source: Any,
        pixels: PixelConfig,
        *,
        batch_size: int,
        bad: BadSamples,
        world: World,
        precision: torch.dtype,
    ) -> Measured:
        """Every readable picture once, over all processes."""

    def notes(
        self, model: nn.Module, source: Any, pixels: PixelConfig, device: torch.device
    ) -> dict[str, float]:
        """What else is noted with an evaluation, in the main process."""

    def extras(self, source: Any) -> dict[str, Any]:
        """What else a saved model's folder says, as JSON holds it."""


class ClassifyingJob:
    """Pictures to one class each.

    Args:
        config: Everything about the run.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    def train_source(self) -> AnySource:
        """As `--data` names it."""
        return train_source(self.config.data)

    def eval_source(self, class_names: tuple[str, ...]) -> AnySource:
        """As `--val` names it, or what lies beside the training pictures."""
        return eval_source(self.config.data, class_names)

    def recipe(self, num_classes: int) -> Recipe:
        """Of a classifier."""
        image_px = self.config.data.image_px
        return recipe_of(self.config.model, num_classes=num_classes, image_px=image_px)

    def build(self, recipe: Recipe) -> nn.Module:
        """The classifier."""
        return build_model(self.config.model, recipe)

    def pixels(self, model: nn.Module) -> PixelConfig:
        """Square pictures."""
        return pixels_of(model, self.config.data.image_px)

    def train_transform(self, pixels: PixelConfig) -> Transform | ClipTransform:
        """timm's."""
        return train_transform(self.config.augment, pixels)

    def eval_transform(self, pixels: PixelConfig) -> Transform | ClipTransform:
        """The middle of each picture."""
        return eval_transform(pixels)

    @property
    def num_views(self) -> int:
        """How many items the transform for evaluation makes of one sample."""
        return 1

    def objective(
        self, model: nn.Module, source: AnySource, pixels: PixelConfig, device: torch.device
    ) -> Objective:
        """Of labels, and of a teacher where there is one."""
        teacher = build_teacher(
            self.config.loss,
            num_classes=len(source.class_names),
            device=device,
            mean=pixels.mean,
            std=pixels.std,
        )
        if teacher is not None and isinstance(model, VisionTransformerDistilled):
            model.set_distilled_training(True)  # in training, both heads answer
        return objective(self.config.loss, teacher)

    def evaluate(
        self,
        model: nn.Module,
        source: AnySource,
        pixels: PixelConfig,
        *,
        batch_size: int,
        bad: BadSamples,
        world: World,
        precision: torch.dtype,
    ) -> Measured:
        """Top-1 and the like, over all views of each sample."""
        return evaluate(
            model,
            source,
            self.eval_transform(pixels),
            batch_size=max(1, batch_size // self.num_views),
            bad=bad,
            world=world,
            workers=self.config.data.workers,
            precision=precision,
        )

    def notes(
        self, model: nn.Module, source: AnySource, pixels: PixelConfig, device: torch.device
    ) -> dict[str, float]:
        """Whether tokens lie on the object, where that can be told."""
        if isinstance(model, FSDPModule):  # whose weights are spread
            return {}
        return tokens_on_object(model, source, pixels, device)

    def extras(self, source: AnySource) -> dict[str, Any]:
        """Nothing."""
        return {}
