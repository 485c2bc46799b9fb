"""The training of `dartok demo`: a small ViT on digits in clutter, with and without DART."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dartok.bench.cost import Cost, images_per_second, measure_cost
from dartok.bench.machine import describe_machine
from dartok.cli.console import error_console
from dartok.data.digits import CanvasConfig, Canvases, DigitCanvases
from dartok.data.samples import Batch
from dartok.models import adapt
from dartok.tasks.classification import Tally
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.objective import objective
from dartok.train.learner import Learner, StepReport
from dartok.train.optim_config import OptimConfig

__all__ = ["Contestant", "DigitsJob", "normalise"]

_BATCH_SIZE = 32
_TEST_BATCH_SIZE = 64
_TEST_SEED = 1_000_000
_LEARNING_RATE = 1e-3
_MEAN, _STD = 0.25, 0.2
"""Of the pixels of the canvases, about."""
_TIMING_ROUNDS = 9
_STEPS_PER_LINE = 100


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A trained model, and what the table says about it."""

    name: str
    model: nn.Module
    num_tokens: int
    cost: Cost
    accuracy: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class DigitsJob:
    """Train the same ViT twice, with the same first weights, on the same pictures."""

    num_tokens: int
    """Tokens of each model, a square number."""
    num_steps: int
    """Updates of each model."""
    seed: int
    """Of the first weights and of the pictures to train on."""
    canvas_px: int
    """Side of the pictures."""
    num_test_batches: int = 32
    """Batches of 64 test canvases that accuracy is measured on."""

    def run(self) -> list[Contestant]:
        """Train both models with a live progress bar; the fixed grid comes first."""
        source = DigitCanvases(self._canvas_config(), split="train")
        models = {"fixed grid": self.build_host(), "DART": self._adapted()}
        with _progress_bar() as progress:
            tasks = {
                name: progress.add_task(name, total=self.num_steps, loss=math.nan)
                for name in models
            }
            for name, model in models.items():
                batches = self._batches(source, _BATCH_SIZE, seed=self.seed)
                on_step = _advance(progress, tasks[name], f"{name}, step {{}} of {self.num_steps}")
                learner = self._learner(model)
                for step, batch in enumerate(islice(batches, self.num_steps)):
                    on_step(learner.step([batch], step))
        return self._measure(models)

    def build_host(self) -> VisionTransformer:
        """The plain ViT: depth 4, width 96, patches as large as `num_tokens` of them must be."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return VisionTransformer(
                img_size=self.canvas_px,
                patch_size=self.canvas_px // round(self.num_tokens**0.5),
                in_chans=1,
                num_classes=10,
                embed_dim=96,
                depth=4,
                num_heads=4,
                class_token=False,
                global_pool="max",  # a small digit shows in few tokens: a mean would drown it
                weight_init="jax",  # Xavier
            )

    def test_canvases(self, count: int) -> Canvases:
        """Canvases with digits that no training canvas shows, the same each time."""
        source = DigitCanvases(self._canvas_config(), split="test")
        return source.batch(count, seed=_TEST_SEED)

    def describe(self) -> str:
        """What the figures of the table are of."""
        machine = describe_machine(torch.device("cpu"), torch.float32)
        count = _TEST_BATCH_SIZE * self.num_test_batches
        return (
            f"{self.num_steps} steps of {_BATCH_SIZE} canvases ({self.canvas_px} px), seed "
            f"{self.seed}; accuracy on {count} test canvases; {machine}"
        )

    def _adapted(self) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)  # of the scorer
            return adapt(self.build_host(), num_tokens=self.num_tokens, scorer="conv", strength=1.0)

    def _canvas_config(self) -> CanvasConfig:
        return CanvasConfig(size_px=self.canvas_px)

    def _learner(self, model: nn.Module) -> Learner:
        return Learner(
            model,
            objective(LossConfig(label_smoothing=0.0)),
            optim=OptimConfig(
                learning_rate=_LEARNING_RATE,
                min_learning_rate=0.0,
                warmup_steps=self.num_steps // 10,
                beta2=0.98,
            ),
            num_steps=self.num_steps,
            seed=self.seed,
        )

    def _batches(self, source: DigitCanvases, batch_size: int, *, seed: int) -> Iterator[Batch]:
        for canvases in source.batches(batch_size, seed=seed):
            yield Batch(normalise(canvases.images), canvases.labels)

    def _measure(self, models: dict[str, nn.Module]) -> list[Contestant]:
        source = DigitCanvases(self._canvas_config(), split="test")
        endless = self._batches(source, _TEST_BATCH_SIZE, seed=_TEST_SEED)
        test = list(islice(endless, self.num_test_batches))
        rates = images_per_second(models, test[0].images, rounds=_TIMING_ROUNDS)
        return [
            Contestant(
                name=name,
                model=model,
                num_tokens=self.num_tokens,
                cost=measure_cost(model, (self.canvas_px, self.canvas_px), num_channels=1),
                accuracy=_accuracy(model, test),
                images_per_second=rates[name],
            )
            for name, model in models.items()
        ]


def normalise(images: Tensor) -> Tensor:
    """Pixels of canvases as the models expect them: about mean 0 and deviation 1."""
    return (images - _MEAN) / _STD


@torch.no_grad()
def _accuracy(model: nn.Module, batches: list[Batch]) -> float:
    tally = Tally(num_classes=10)
    model.eval()
    for batch in batches:
        tally.add(model(batch.images), batch.labels)
    return tally.measures()["top1"]


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description:10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.2f}"),
        TimeRemainingColumn(),
        console=error_console,
    )


def _advance(progress: Progress, task: TaskID, line: str) -> Callable[[StepReport], None]:
    """Move the bar; where there is no terminal to draw it on, say a line now and then."""

    def advance(report: StepReport) -> None:
        progress.update(task, completed=report.step, loss=report.loss)
        if not progress.console.is_terminal and report.step % _STEPS_PER_LINE == 0:
            progress.console.print(f"{line.format(report.step)}, loss {report.loss:.2f}")

    return advance
