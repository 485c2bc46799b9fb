"""The copy of fixed size that a score net sees, so that its cost does not grow with the image."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

__all__ = ["fixed_copy"]


def fixed_copy(images: Float[Tensor, "B C H W"], side_px: int | None) -> Tensor:
    """Antialiased bilinear copy of `side_px` by `side_px` pixels; `None` returns the images.

    The aspect is not kept: scores live in [0, 1] by [0, 1] of the image. Float32 or wider.

    Example:
        >>> fixed_copy(torch.rand(1, 3, 300, 500), 224).shape
        torch.Size([1, 3, 224, 224])
    """
    if side_px is None or images.shape[-2:] == (side_px, side_px):
        return images
    images = images.to(torch.promote_types(images.dtype, torch.float32))
    return F.interpolate(
        images, (side_px, side_px), mode="bilinear", align_corners=False, antialias=True
    )
