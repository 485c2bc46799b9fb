"""Standardise score maps, and keep what that needs so that an image's scores are its own."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.autograd.function import FunctionCtx

from dartok.core.names import one_of

__all__ = ["ScoreStatistics", "StatisticsName"]

StatisticsName = Literal["running", "batch"]

_MOMENTUM = 0.1  # of the running statistics, as in batch normalisation
_AUTHORS_EPSILON = 1e-8  # added to the deviation by the authors' code
_SMALLEST_VARIANCE = 1e-30  # a constant map has no deviation, and the root no gradient at 0


class ScoreStatistics(nn.Module):
    """`(z - mean) / (std + 1e-8)` with one mean and one deviation for all values of all images.

    While training, they are those of the batch, as in the paper, over all processes that train
    together (`torch.distributed`), and running values are kept.
    In eval mode:

    - `source="running"`: the running values. An image's scores do not depend on its batch mates.
    - `source="batch"`: the batch's, as in the authors' code, until `freeze` has been called.

    Source: reference code (spn.py:26); the running values are ours.

    Args:
        source: One of the two rules above.
    Raises:
        ValueError: If `source` is neither.
    Example:
        >>> statistics = ScoreStatistics("batch").eval()
        >>> statistics(torch.tensor([[[1.0, 2.0, 3.0]]]))
        tensor([[[-1.,  0.,  1.]]])
    """

    mean: Tensor
    var: Tensor
    num_batches: Tensor
    frozen: Tensor

    def __init__(self, source: StatisticsName = "running") -> None:
        super().__init__()
        self.source: StatisticsName = one_of("statistics", source, StatisticsName)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("var", torch.ones(()))
        self.register_buffer("num_batches", torch.zeros((), dtype=torch.long))
        self.register_buffer("frozen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def freeze(self, mean: float, var: float) -> None:
        """Use this mean and variance in eval mode from now on, also after further training."""
        self.mean.fill_(mean)
        self.var.fill_(var)
        self.frozen.fill_(True)

    def forward(self, values: Float[Tensor, "B h w"]) -> Float[Tensor, "B h w"]:
        """Standardised values, in float32 or wider."""
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        mean, var = self.mean.to(values.dtype), self.var.to(values.dtype)
        if self.training:
            mean, var = _moments_of_all_processes(values)
            self._update(mean.detach(), var.detach())
        elif self.source == "batch":
            batch_mean, batch_var = _moments(values)
            mean = torch.where(self.frozen, mean, batch_mean)
            var = torch.where(self.frozen, var, batch_var)
        return (values - mean) / (var.clamp_min(_SMALLEST_VARIANCE).sqrt() + _AUTHORS_EPSILON)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor) -> None:
        weight = torch.where(self.num_batches == 0, 1.0, _MOMENTUM)
        weight = torch.where(self.frozen, 0.0, weight).to(self.mean.dtype)
        self.mean.lerp_(mean.to(self.mean.dtype), weight)
        self.var.lerp_(var.to(self.var.dtype), weight)
        self.num_batches.add_(1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ScoreStatistics":
        """Move with the model, but stay in float32 or wider: half precision loses the mean."""
        mean, var = self.mean, self.var
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        wide = torch.promote_types(self.mean.dtype, torch.float32)
        self.mean = mean.to(self.mean.device, wide)
        self.var = var.to(self.var.device, wide)
        return self

    def extra_repr(self) -> str:
        return repr(self.source)


def _moments_of_all_processes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the values of every process, differentiable through all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return _moments(values)
    count = values.new_tensor(values.numel())
    total, num_values = _SumOverProcesses.apply(torch.stack([values.sum(), count])).unbind()
    mean = total / num_values
    squares = _SumOverProcesses.apply((values - mean).square().sum())
    return mean, squares / (num_values - 1).clamp_min(1)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of every process's tensor; each process's gradient is the sum of all gradients."""

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: FunctionCtx, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def _moments(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(), values.var(correction=min(1, values.numel() - 1))
