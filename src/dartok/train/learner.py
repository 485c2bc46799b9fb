"""One step of learning: micro-batches, gradients, checks, update."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dartok.data.loading import seeded
from dartok.data.samples import Batch
from dartok.tasks.classification import Criterion
from dartok.train.finite import first_not_finite
from dartok.train.optim import Schedule, create_optimiser
from dartok.train.optim_config import OptimConfig
from dartok.train.world import World

__all__ = ["Learner", "StepReport"]

Mix = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

_STEP_KEY = 1
"""Tells the seeds of steps from those of pictures."""


class StepReport(NamedTuple):
    """What a step did."""

    step: int
    """Steps done, from 1."""
    loss: float
    """Mean loss of the step's pictures before its update, over all processes."""
    grad_norm: float
    """Norm of the gradient before it was limited."""
    learning_rate: float


class Learner:
    """A model with what makes it learn. Its state is the weights, the optimiser's and the average.

    What is random in a step (dropout, stochastic depth, mixing) is seeded by the seed, the step and
    the rank, so a step can be repeated exactly and nothing random needs to be saved.

    Args:
        model: Maps images to logits; on the world's device.
        criterion: Loss of logits and labels.
        optim: Optimiser, schedule, limits, average.
        num_steps: Length of the schedule.
        seed: Of what is random in the model.
        world: This process among all; None for this one alone.
        precision: Of the model's arithmetic; the weights stay as they are.
        mix: Mixes images and labels of a micro-batch; none if None.
        accumulate: Micro-batches per step.
        prepare: Called with the step, counted from 0, before it; sets dials of the model.
    Example:
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> loss = nn.functional.cross_entropy
        >>> learner = Learner(model, loss, optim=OptimConfig(), num_steps=2)
        >>> learner.step([Batch(torch.ones(4, 3, 2, 2), torch.tensor([0, 1, 1, 1]))], 0).step
        1
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Criterion,
        *,
        optim: OptimConfig,
        num_steps: int,
        seed: int = 0,
        world: World | None = None,
        precision: torch.dtype = torch.float32,
        mix: Mix | None = None,
        accumulate: int = 1,
        prepare: Callable[[nn.Module, int], object] = lambda model, step: None,
    ) -> None:
        self.model, self.criterion, self.seed = model, criterion, seed
        self.world = World() if world is None else world
        self.precision, self.mix, self.accumulate = precision, mix, accumulate
        self.prepare = prepare
        self.max_grad_norm = optim.max_grad_norm or math.inf
        self.optimiser = create_optimiser(model, optim)
        self.schedule = Schedule(self.optimiser, optim, num_steps)
        self.ema = ModelEmaV3(model, decay=optim.ema_decay) if optim.ema_decay else None
        self.trained = _distributed(model, self.world)

    @property
    def evaluated(self) -> nn.Module:
        """The model to evaluate and keep: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def step(self, batches: Sequence[Batch], step: int) -> StepReport:
        """Learn from the micro-batches of a step, counted from 0.

        Raises:
            ValueError: If the loss or the gradient is not finite; names the module where it began.
                The weights are then those before the step.
        """
        self.trained.train()
        for model in (self.model, *([self.ema.module] if self.ema is not None else [])):
            self.prepare(model, step)
        self.schedule.apply(step)
        self.optimiser.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.world.device)
        for number, batch in enumerate(batches):
            with self._gradients_of(last=number == len(batches) - 1):
                part = self._loss(self.trained, batch, step, number) / len(batches)
                part.backward()
            loss += part.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        value, norm_value = self._mean_over_processes(loss, norm)
        if not (math.isfinite(value) and math.isfinite(norm_value)):
            self._refuse(batches, step, value, norm_value)
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update(self.model, step=step)
        rate = self.optimiser.param_groups[0]["lr"]
        return StepReport(step + 1, value, norm_value, rate)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the learner."""
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        return state if self.ema is None else state | {"ema": self.ema.module.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state; ValueError if it is of another model, optimiser or average."""
        try:
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
        except (RuntimeError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the run to resume has another model or optimiser ({reason}); "
                "give the settings it was started with, or another --out"
            ) from error

    def _loss(self, model: nn.Module, batch: Batch, step: int, number: int) -> Float[Tensor, ""]:
        key = (_STEP_KEY, self.seed, step, self.world.rank, number)
        with seeded(*key, device=self.world.device):
            images, labels = batch.images, batch.labels
            if self.mix is not None:
                images, labels = self.mix(images, labels)
            narrow = self.precision != torch.float32
            with torch.autocast(images.device.type, dtype=self.precision, enabled=narrow):
                logits = model(images)
            return self.criterion(logits, labels)

    def _gradients_of(self, *, last: bool) -> AbstractContextManager[object]:
        """Processes exchange gradients once per step, with the last micro-batch."""
        if isinstance(self.trained, DistributedDataParallel) and not last:
            return self.trained.no_sync()
        return nullcontext()

    def _mean_over_processes(self, loss: Tensor, norm: Tensor) -> tuple[float, float]:
        self.world.add_up(loss)
        value, norm_value = torch.stack([loss / self.world.size, norm.to(loss)]).tolist()
        return value, norm_value

    def _refuse(self, batches: Sequence[Batch], step: int, loss: float, norm: float) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        where = "another process" if self.world.size > 1 else "no single module"
        for number, batch in enumerate(batches):
            again = partial(self._loss, self.model, batch, step, number)  # not through DDP
            place = first_not_finite(self.model, again)
            if place is not None:
                where = place
                break
        self.optimiser.zero_grad(set_to_none=True)
        what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
        raise ValueError(
            f"loss and gradient must be finite, got {what} at step {step + 1}, first in {where}; "
            "the weights are those before it: lower --learning-rate or check the pictures"
        )


def _distributed(model: nn.Module, world: World) -> nn.Module:
    if world.size == 1:
        return model
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids)
