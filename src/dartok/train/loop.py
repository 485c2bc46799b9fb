"""A small supervised loop: AdamW, linear warm-up, cosine decay, the same for the same seed."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from timm.optim import param_groups_weight_decay
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Batch", "StepReport", "TrainConfig", "accuracy", "learning_rate_at", "train"]


class Batch(NamedTuple):
    """Images, normalised as the model expects, and their classes."""

    images: Float[Tensor, "B C H W"]
    labels: Int[Tensor, "B"]


class StepReport(NamedTuple):
    """What a step did."""

    step: int
    """Steps done, from 1."""
    loss: float
    """Mean cross entropy of the step's batch, in nats, before its update."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how fast a model learns."""

    num_steps: int
    """Updates of the weights, one batch each."""
    learning_rate: float = 1e-3
    """Largest learning rate, reached after the warm-up."""
    warmup_steps: int = 100
    """Steps in which the learning rate rises from 0, at most `num_steps`."""
    weight_decay: float = 0.05
    """AdamW's; biases, norms and what the model's `no_weight_decay` names are left out."""
    max_grad_norm: float = 1.0
    """Gradients with a larger norm are scaled down to it."""
    seed: int = 0
    """Of what is random inside the model, such as dropout."""

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be >= 1, got {self.num_steps}")
        if not 0 <= self.warmup_steps <= self.num_steps:
            raise ValueError(
                f"warmup_steps must be from 0 to num_steps = {self.num_steps}, "
                f"got {self.warmup_steps}"
            )
        for name in ("learning_rate", "max_grad_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"weight_decay must be >= 0 and finite, got {self.weight_decay}")


def train(
    model: nn.Module,
    batches: Iterable[Batch],
    config: TrainConfig,
    *,
    on_step: Callable[[StepReport], object] = lambda report: None,
) -> None:
    """Fit `model` to the labels by cross entropy, in place, and leave it in train mode.

    The global random state is as it was afterwards.

    Args:
        model: Maps images to logits `(B, classes)`.
        batches: At least `config.num_steps` batches, on the model's device.
        config: How long and how fast.
        on_step: Called after each update; show progress with it.
    Raises:
        ValueError: If the batches run out, or the loss is not finite; the weights are then those
            before that step.
    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> batch = Batch(torch.ones(4, 3, 2, 2), torch.tensor([0, 1, 1, 1]))
        >>> config = TrainConfig(num_steps=2, warmup_steps=0)
        >>> train(model, [batch, batch], config, on_step=lambda report: print(report.step))
        1
        2
    """
    optimiser = _optimiser(model, config)
    remaining = iter(batches)
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        for step in range(config.num_steps):
            batch = next(remaining, None)
            if batch is None:
                raise ValueError(
                    f"batches must hold num_steps = {config.num_steps} batches, got {step}; "
                    "give more, or fewer steps"
                )
            for group in optimiser.param_groups:
                group["lr"] = learning_rate_at(step, config)
            loss = _update(model, batch, optimiser, config.max_grad_norm, step)
            on_step(StepReport(step + 1, loss))


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate of a step: a linear rise, then half a cosine down to nearly 0.

    With W warm-up steps of S in all: `rate * (step + 1) / W` for `step < W`, then
    `rate * (1 + cos(pi * (step - W) / (S - W))) / 2`.

    Example:
        >>> config = TrainConfig(num_steps=10, warmup_steps=2, learning_rate=1.0)
        >>> [round(learning_rate_at(step, config), 3) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.038]
    """
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    progress = (step - config.warmup_steps) / (config.num_steps - config.warmup_steps)
    return config.learning_rate * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def accuracy(model: nn.Module, batches: Iterable[Batch]) -> float:
    """Share of images whose largest logit is their label's, in eval mode; the mode is kept.

    Raises:
        ValueError: If there is no image.
    Example:
        >>> batch = Batch(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        >>> accuracy(nn.Identity(), [batch])
        0.5
    """
    num_right = num_images = 0
    was_training = model.training
    model.eval()
    for batch in batches:
        num_right += int((model(batch.images).argmax(1) == batch.labels).sum())
        num_images += len(batch.labels)
    model.train(was_training)
    if num_images == 0:
        raise ValueError("batches must hold at least one image, got none")
    return num_right / num_images


def _optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    skip: set[str] = getattr(model, "no_weight_decay", set)()
    groups = param_groups_weight_decay(model, config.weight_decay, no_weight_decay_list=skip)
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.98))


def _update(
    model: nn.Module,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    max_grad_norm: float,
    step: int,
) -> float:
    loss = F.cross_entropy(model(batch.images), batch.labels)
    value = loss.item()
    if not math.isfinite(value):
        raise ValueError(
            f"loss must be finite, got {value} at step {step + 1}; "
            "lower learning_rate or check the images"
        )
    optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    optimiser.step()
    return value
