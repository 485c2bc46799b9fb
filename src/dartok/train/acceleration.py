"""What makes a step faster without changing it, and what it needs of memory."""

import sys
import warnings

import torch
from torch import nn

from dartok.train.budgets import Budget
from dartok.train.loop_config import LoopConfig

__all__ = ["accelerate", "peak_memory_gb"]

_KIB_PER_GIB = 2**20


def accelerate(model: nn.Module, loop: LoopConfig, budget: Budget | None) -> nn.Module:
    """Lay a model out and compile it, in place, as `--channels-last` and `--compile` say.

    A model whose number of tokens changes from step to step, or which is sharded, has its blocks
    compiled, for any number; another one is compiled whole.

    Raises:
        ValueError: If it is to be compiled by blocks and has none.
    """
    if loop.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if not loop.compile:
        return model
    if not loop.shard and (budget is None or budget.least == budget.most):
        model.compile()
        return model
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.Sequential | nn.ModuleList):
        raise ValueError(
            f"compile with --shard or a range of --num-tokens needs a model with blocks, got "
            f"{type(model).__name__}; drop --compile"
        )
    # The compiler looks at the inputs of a block, and PyTorch takes that for a mistake.
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf")
    for block in blocks:
        block.compile(dynamic=True)
    return model


def peak_memory_gb(device: torch.device) -> float:
    """Most memory in use so far, in GiB: the device's, or on the CPU this process's.

    NaN where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return float("nan")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else _KIB_PER_GIB)
