"""timm's optimisers, schedules and moving average, from the configuration."""

from typing import Any

from torch import nn
from torch.optim import Optimizer

from dartok.train.optim_config import OptimConfig

__all__ = ["Schedule", "create_optimiser", "warmup_steps"]


def create_optimiser(model: nn.Module, config: OptimConfig) -> Optimizer:
    """timm's optimiser of a name, over the parameters that learn.

    No decay for biases, norms and what the model's `no_weight_decay` names.

    Raises:
        ValueError: If timm does not know it, it does not take these options, or nothing learns.
    """
    from timm.optim import create_optimizer_v2, get_optimizer_info

    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("nothing learns: every parameter is frozen; choose other --parts")
    name = config.optimiser
    betas: dict[str, Any] = {"betas": (config.beta1, config.beta2)}
    try:
        has_two = get_optimizer_info(name.lower().split("_")[-1]).num_betas == 2
        return create_optimizer_v2(
            model,
            opt=name,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            **(betas if has_two else {}),
        )
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(
            f"optimiser must be one of timm's, such as adamw, lamb or sgd, got {name!r} ({error})"
        ) from error


def warmup_steps(config: OptimConfig, num_steps: int) -> int:
    """Steps of the warm-up: as configured, by default a twentieth of the run.

    Raises:
        ValueError: If they are more than the run has.
    """
    steps = num_steps // 20 if config.warmup_steps is None else config.warmup_steps
    if steps > num_steps:
        raise ValueError(f"warmup-steps must be at most the {num_steps} of the run, got {steps}")
    return steps


class Schedule:
    """A linear rise from 0 over the warm-up, then timm's cosine or a constant.

    With W warm-up steps of S, rate r and least rate m, step s (from 0) has `r (s + 1) / (W + 1)`
    while `s < W`, then `m + (r - m)(1 + cos(pi s / S)) / 2`.
    """

    def __init__(self, optimiser: Optimizer, config: OptimConfig, num_steps: int) -> None:
        from timm.scheduler import create_scheduler_v2

        self._warmup = warmup_steps(config, num_steps)
        self._timm, _ = create_scheduler_v2(
            optimiser,
            # A "constant" of timm's own is missing from older timm: steps that change nothing.
            sched={"cosine": "cosine", "constant": "step"}[config.schedule],
            decay_rate=1.0,
            num_epochs=num_steps,
            min_lr=config.min_learning_rate,
            warmup_epochs=self._warmup,
            warmup_lr=config.learning_rate / (self._warmup + 1),
            step_on_epochs=False,
            updates_per_epoch=1,
        )

    def apply(self, step: int) -> None:
        """Set the learning rate of a step, counted from 0."""
        assert self._timm is not None
        self._timm.step_update(step)
