"""One step of learning: micro-batches, gradients, checks, update."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from dartok.data.loading import seeded
from dartok.data.samples import Batch
from dartok.tasks.objective import Objective, Seen
from dartok.tasks.score_map import by_clip, watch_scores
from dartok.train import distribution
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
    terms: dict[str, float]
    """Parts that the loss is the sum of."""
    scores: Float[Tensor, "B *T h w"] | None
    """Score maps of this process's last micro-batch; None without regions."""


class _Pass(NamedTuple):
    """A forward pass of a micro-batch."""

    terms: dict[str, Tensor]
    scores: Tensor | None

    @property
    def loss(self) -> Tensor:
        return torch.stack(list(self.terms.values())).sum()


class Learner:
    """A model with what makes it learn. Its state is the weights, the optimiser's and the average.

    What is random in a step (dropout, stochastic depth, mixing) is seeded by the seed, the step and
    the rank, so a step can be repeated exactly and nothing random needs to be saved.

    Args:
        model: Maps images to logits; on the world's device.
        objective: Terms of the loss of what a forward pass showed.
        optim: Optimiser, schedule, limits, average.
        num_steps: Length of the schedule.
        seed: Of what is random in the model.
        world: This process among all; None for this one alone.
        precision: Of the model's arithmetic; the weights stay as they are.
        mix: Mixes images and labels of a micro-batch; none if None.
        accumulate: Micro-batches per step.
        prepare: Called with the step, counted from 0, before it; sets dials of the model.
        on_images: Applied to the pictures of a micro-batch first, on the device; none if None.
        shard: Whether each process keeps its share of weights and optimiser state only (FSDP2).
    Example:
        >>> from dartok.tasks.loss_config import LossConfig
        >>> from dartok.tasks.objective import objective
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> terms = objective(LossConfig())
        >>> learner = Learner(model, terms, optim=OptimConfig(), num_steps=2)
        >>> learner.step([Batch(torch.ones(4, 3, 2, 2), torch.tensor([0, 1, 1, 1]))], 0).step
        1
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        *,
        optim: OptimConfig,
        num_steps: int,
        seed: int = 0,
        world: World | None = None,
        precision: torch.dtype = torch.float32,
        mix: Mix | None = None,
        accumulate: int = 1,
        prepare: Callable[[nn.Module, int], object] = lambda model, step: None,
        on_images: Callable[[Tensor], Tensor] | None = None,
        shard: bool = False,
    ) -> None:
        self.model, self.objective, self.seed = model, objective, seed
        self.world = World() if world is None else world
        self.precision, self.mix, self.accumulate = precision, mix, accumulate
        self.prepare, self.on_images = prepare, on_images
        self.max_grad_norm = optim.max_grad_norm or math.inf
        shard = shard and self.world.size > 1
        self.ema = self._average(optim.ema_decay, shard) if optim.ema_decay else None
        self.trained = distribution.distribute(model, self.world, shard=shard)
        self.optimiser = create_optimiser(model, optim)  # after: sharding replaces the parameters
        self.schedule = Schedule(self.optimiser, optim, num_steps)

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
        if isinstance(self.model, FSDPModule):
            distribution.share_buffers(self.model, self.world)  # as DDP does by itself
        terms, scores = self._gradients(batches, step)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.max_grad_norm)
        values, norm_value = self._mean_over_processes(terms, distribution.whole(norm))
        loss = sum(values.values())
        if not (math.isfinite(loss) and math.isfinite(norm_value)):
            self._refuse(batches, step, loss, norm_value)
        self.optimiser.step()
        if self.ema is not None:
            self.ema.update(self.model, step=step)
        rate = self.optimiser.param_groups[0]["lr"]
        return StepReport(step + 1, loss, norm_value, rate, values, scores)

    def _gradients(
        self, batches: Sequence[Batch], step: int
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Sum up the gradients of the micro-batches; mean terms, and the last score maps."""
        terms: dict[str, Tensor] = {}
        scores = None
        for number, batch in enumerate(batches):
            with distribution.exchange(self.trained, last=number == len(batches) - 1):
                passed = self._forward(self.trained, batch, step, number)
                (passed.loss / len(batches)).backward()
            for name, term in passed.terms.items():
                terms[name] = terms.get(name, 0.0) + term.detach() / len(batches)
            scores = None if passed.scores is None else passed.scores.detach()
        return terms, scores

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the learner; every process must ask for it."""
        state = {
            "model": distribution.full_state(self.model),
            "optimiser": distribution.optimiser_state(self.model, self.optimiser),
        }
        return (
            state if self.ema is None else state | {"ema": distribution.full_state(self.ema.module)}
        )

    def load(self, state: dict[str, Any]) -> None:
        """Take over a state; ValueError if it is of another model, optimiser or average."""
        try:
            distribution.load_state(self.model, state["model"])
            distribution.load_optimiser(self.model, self.optimiser, state["optimiser"])
            if self.ema is not None:
                distribution.load_state(self.ema.module, state["ema"])
        except (RuntimeError, KeyError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the run to resume has another model or optimiser ({reason}); "
                "give the settings it was started with, or another --out"
            ) from error

    def _average(self, decay: float, shard: bool) -> ModelEmaV3:
        """A copy of the model, made before it is spread over processes."""
        average = ModelEmaV3(self.model, decay=decay, foreach=not shard)
        if shard:
            distribution.distribute(average.module, self.world, shard=True)
        return average

    def _forward(self, model: nn.Module, batch: Batch, step: int, number: int) -> _Pass:
        key = (_STEP_KEY, self.seed, step, self.world.rank, number)
        with seeded(*key, device=self.world.device), watch_scores(self.model) as scores:
            images, labels = batch.images, batch.labels
            if self.on_images is not None:
                images = self.on_images(images)
            if self.mix is not None:  # in place: a step that is repeated needs the pictures
                images, labels = self.mix(images.clone(), labels)
            narrow = self.precision != torch.float32
            with torch.autocast(images.device.type, dtype=self.precision, enabled=narrow):
                outputs = model(images)
                maps = by_clip(scores[0], images) if scores else None
                seen = Seen(outputs, images, labels, maps)
                return _Pass(self.objective(seen), seen.scores)

    def _loss(self, model: nn.Module, batch: Batch, step: int, number: int) -> Float[Tensor, ""]:
        return self._forward(model, batch, step, number).loss

    def _mean_over_processes(
        self, terms: dict[str, Tensor], norm: Tensor
    ) -> tuple[dict[str, float], float]:
        """Read the terms, averaged over the processes, and the gradient's norm, at one go."""
        means = torch.stack(list(terms.values())).float()
        self.world.add_up(means)
        *values, norm_value = torch.cat([means / self.world.size, norm.to(means)[None]]).tolist()
        return dict(zip(terms, values, strict=True)), norm_value

    def _refuse(self, batches: Sequence[Batch], step: int, loss: float, norm: float) -> None:
        self.optimiser.zero_grad(set_to_none=True)
        places: list[object] = []
        for number, batch in enumerate(batches):
            again = partial(self._loss, self.model, batch, step, number)  # not through DDP
            place = first_not_finite(self.model, again, any_of=self.world.any_of)
            places = [found for found in self.world.gather(place) if found is not None]
            if places:
                break
        self.optimiser.zero_grad(set_to_none=True)
        where = places[0] if places else "no single module"
        what = f"loss {loss}" if not math.isfinite(loss) else f"gradient norm {norm}"
        raise ValueError(
            f"loss and gradient must be finite, got {what} at step {step + 1}, first in {where}; "
            "the weights are those before it: lower --learning-rate or check the pictures"
        )
