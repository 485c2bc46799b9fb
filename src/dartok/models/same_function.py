"""What `adapt` and `reshape` compare a host with their result by, before they let it go."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dartok.core.modes import in_eval_mode
from dartok.core.precision import without_autocast

__all__ = ["comparing", "largest_difference", "noise", "relative_difference"]

_LARGEST_DIFFERENCE = {torch.float64: 1e-5, torch.float32: 1e-5}
"""Relative, between host and result at the start; half precision rounds far above it."""

_LARGEST_DIFFERENCE_HALF = 5e-2

_GRAIN_PX = 4


def largest_difference(dtype: torch.dtype) -> float:
    """The relative difference up to which two models of a dtype count as the same function."""
    return _LARGEST_DIFFERENCE.get(dtype, _LARGEST_DIFFERENCE_HALF)


def relative_difference(expected: Sequence[Tensor], actual: Sequence[Tensor]) -> float:
    """Norm of the difference over the norm of what is expected, of several tensors together.

    Example:
        >>> relative_difference([torch.ones(2), torch.ones(2)], [torch.ones(2), torch.zeros(2)])
        0.7071067690849304
    """
    if [one.shape for one in expected] != [one.shape for one in actual]:
        return float("inf")
    first, second = (torch.cat([_wide(one).flatten() for one in all]) for all in (expected, actual))
    return float((second - first).norm() / first.norm())


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def noise(shape: tuple[int, ...]) -> Tensor:
    """Noise of a grain of 4 px: white noise would measure how well float32 places a sample.

    That is to 1e-5 px in pictures of 500 px, which is 2e-5 of the difference of two pixels. The
    frames of a clip are sampled as one picture, of about `sqrt(T)` times their side: so is the
    grain.

    Args:
        shape: `(C, H, W)` of a picture, or `(T, C, H, W)` of a clip.
    Returns:
        A batch of one.
    Example:
        >>> noise((8, 3, 32, 32)).shape
        torch.Size([1, 8, 3, 32, 32])
    """
    generator = torch.Generator().manual_seed(0)
    *before, height, width = shape
    grain_px = _GRAIN_PX if len(before) == 1 else _GRAIN_PX * math.ceil(math.sqrt(before[0]))
    grains = (-(-height // grain_px), -(-width // grain_px))
    drawn = torch.randn((1, math.prod(before), *grains), generator=generator, device="cpu")
    return nn.functional.interpolate(drawn, (height, width), mode="bilinear").view(1, *shape)


@contextmanager
def comparing(like: Tensor, *models: nn.Module) -> Iterator[None]:
    """Models in eval mode for a while, on the device and in the precision of `like`."""
    # On a GPU the host's convolution would round to TF32, and our matrix product would not.
    exact = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    with torch.no_grad(), exact, without_autocast(like), in_eval_mode(*models):
        yield
