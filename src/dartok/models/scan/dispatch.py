"""`selective_scan`: choose how the scan is computed. What it means is in `reference`."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd import forward_ad

from dartok.core.names import one_of
from dartok.core.notices import say_once
from dartok.models.scan.associative import associative_scan
from dartok.models.scan.chunked import chunked_scan

__all__ = ["ScanName", "scan_of", "selective_scan"]

ScanName = Literal["auto", "chunked", "associative", "triton", "mamba_ssm"]
"""Ways to compute the scan; "auto" takes the fastest that needs nothing more installed."""


def selective_scan(
    x: Float[Tensor, "B L G E"],
    delta: Float[Tensor, "B L G E"],
    a: Float[Tensor, "G E N"],
    b: Float[Tensor, "B L G N"],
    c: Float[Tensor, "B L G N"],
    skip: Float[Tensor, "G E"],
    *,
    kind: ScanName = "auto",
) -> Float[Tensor, "B L G E"]:
    """`s[l] = exp(delta[l] a) s[l-1] + (delta[l] x[l]) b[l]`, `y[l] = s[l] c[l] + skip x[l]`.

    Computed in float32 or wider, also under autocast: half precision loses the small steps.

    Source: Mamba, arXiv:2312.00752, algorithm 2.

    Args:
        x: Inputs; G groups (directions) are scanned side by side, each with its own a, b, c.
        delta: Step sizes, `> 0`.
        a: Decay rates, `< 0`.
        b: What enters the state.
        c: What is read from the state.
        skip: What passes by the state (Mamba's D).
        kind: "chunked", one operator in plain PyTorch, is the fastest on the CPU; "associative" has
            no loop over steps, for graphs and for devices that are slow to be told each step;
            "triton" is a kernel for CUDA; "mamba_ssm" that of the package, float32. "auto" takes
            "associative" in an exported graph and under `torch.func` or forward-mode derivatives,
            which the operators do not know, "triton" on CUDA where it is installed, else
            "associative" there and on Apple's GPUs, else "chunked".
    Returns:
        Outputs in the dtype of `x`.
    Raises:
        ValueError: If `kind` is unknown or the shapes do not belong together.
        ImportError: If its package is not installed.
    Example:
        >>> ones = torch.ones(1, 3, 1, 1)
        >>> zero = torch.zeros(1, 1, 1)
        >>> selective_scan(ones, ones, zero, ones, ones, torch.zeros(1, 1)).flatten()
        tensor([1., 2., 3.])
    """
    way = one_of("kind", kind, ScanName)
    _check_shapes(x, delta, a, b, c, skip)
    wide = torch.promote_types(x.dtype, torch.float32)
    if way == "auto":
        way = _fastest(x.device.type, wide)
    inputs: tuple[Tensor, ...] = (x, delta, a, b, c, skip)
    if way in ("chunked", "associative"):  # kernels widen what they read
        inputs = tuple(tensor.to(wide) for tensor in inputs)
    return scan_of(way)(*inputs).to(x.dtype)


def _check_shapes(x: Tensor, delta: Tensor, a: Tensor, b: Tensor, c: Tensor, skip: Tensor) -> None:
    if x.ndim != 4 or a.ndim != 3:
        raise ValueError(
            f"x must be (B, L, G, E) and a (G, E, N), got {tuple(x.shape)} and {tuple(a.shape)}"
        )
    if torch.compiler.is_compiling():  # each comparison would be a guard
        return
    read = (*x.shape[:3], a.shape[2])
    expected = {"delta": x.shape, "a": (*x.shape[2:], read[3]), "b": read, "c": read}
    expected["skip"] = x.shape[2:]
    for (name, shape), tensor in zip(expected.items(), (delta, a, b, c, skip), strict=True):
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"{name} must be {tuple(shape)} for x of {tuple(x.shape)}, got "
                f"{tuple(tensor.shape)}"
            )


def _fastest(device: str, dtype: torch.dtype) -> ScanName:
    """The way that suits a device, or a graph: what is traced must not loop over steps."""
    if torch.compiler.is_exporting() or torch._C._get_tracing_state() is not None:
        return "associative"
    if not torch.compiler.is_compiling() and _other_derivatives():
        return "associative"
    if device == "cpu":
        return "chunked"
    if device != "cuda" or dtype == torch.float64:
        return "associative"
    if find_spec("triton") is not None:
        return "triton"
    say_once("the selective scan runs several times as slow without its kernel: install triton")
    return "associative"


def _other_derivatives() -> bool:
    """Whether `torch.func` or forward-mode derivatives are at work."""
    functional = torch._C._functorch.maybe_current_level() is not None
    return functional or forward_ad._current_level >= 0


def scan_of(way: ScanName) -> Callable[..., Tensor]:
    """The function that computes the scan in one way; "auto" is that of the CPU.

    Raises:
        ImportError: If its package is not installed.
    Example:
        >>> scan_of("associative").__name__
        'associative_scan'
    """
    if way == "triton":
        from dartok.models.scan.triton_scan import triton_scan

        return triton_scan
    if way == "mamba_ssm":
        from dartok.models.scan.fused import mamba_ssm_scan, package_scan

        package_scan()
        return mamba_ssm_scan
    return associative_scan if way == "associative" else chunked_scan
