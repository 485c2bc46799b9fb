"""Keep autocast away from geometry and from weights that must sum to 1."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["without_autocast"]


def without_autocast(like: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on the device of `like` keep the dtype of their inputs.

    Does nothing on the device "meta", which knows no autocast.

    Example:
        >>> values = torch.ones(2, 2)
        >>> with torch.autocast("cpu", dtype=torch.bfloat16), without_autocast(values):
        ...     (values @ values).dtype
        torch.float32
    """
    if like.device.type == "meta":
        return nullcontext()
    return torch.autocast(like.device.type, enabled=False)
