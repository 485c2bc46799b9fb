"""The selective scan of the package `mamba-ssm`, in our layout."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["mamba_ssm_scan", "package_scan"]


def mamba_ssm_scan(
    x: Float[Tensor, "B L G E"],
    delta: Float[Tensor, "B L G E"],
    a: Float[Tensor, "G E N"],
    b: Float[Tensor, "B L G N"],
    c: Float[Tensor, "B L G N"],
    skip: Float[Tensor, "G E"],
) -> Float[Tensor, "B L G E"]:
    """`reference_scan` by `mamba-ssm`, in float32, on a CUDA device; outputs in the dtype of `x`.

    The package reads its groups as equal runs of channels, steps last, so inputs are copied.

    Raises:
        ImportError: Without the package.
        ValueError: If a tensor is float64.
    """
    scan = package_scan()
    if torch.float64 in (tensor.dtype for tensor in (x, delta, a, b, c, skip)):
        raise ValueError(
            "scan kind='mamba_ssm' computes in float32, got float64: use kind='associative'"
        )
    channels, steps = (t.float().flatten(2).transpose(1, 2) for t in (x, delta))
    entered, read = (t.float().permute(0, 2, 3, 1) for t in (b, c))
    rates, skips = (t.float().flatten(0, 1) for t in (a, skip))
    y = scan(channels, steps, rates, entered, read, skips)
    return y.transpose(1, 2).unflatten(2, x.shape[2:]).to(x.dtype)


def package_scan() -> Callable[..., Tensor]:
    """The package's own function.

    Raises:
        ImportError: Without the package.
    """
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise ImportError(
            "scan kind='mamba_ssm' needs mamba-ssm: pip install 'dartok[mamba]' on a machine with "
            "CUDA and nvcc, or use kind='auto'"
        ) from error
    return selective_scan_fn
