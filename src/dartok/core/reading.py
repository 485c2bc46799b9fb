"""When a value may be read on the host."""

import torch
from torch import Tensor

__all__ = ["readable"]


def readable(values: Tensor) -> bool:
    """Whether reading a value is cheap: on the CPU, outside a compiler's tracing.

    Example:
        >>> readable(torch.ones(2))
        True
    """
    return values.device.type == "cpu" and not torch.compiler.is_compiling()
