"""Logits of pictures of any size: of the whole picture at once, or of windows that overlap."""

from collections.abc import Iterator

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["sliding_logits", "windows"]

_OVERLAP = 3
"""Windows move on by two thirds of their side."""


def sliding_logits(
    model: nn.Module,
    images: Float[Tensor, "B C H W"],
    window: tuple[int, int],
    size: tuple[int, int] | None = None,
) -> Float[Tensor, "B K h w"]:
    """Mean of the class probabilities of overlapping windows, as logits: its logarithm.

    Each window has the model's whole number of tokens. A picture no larger than a window is
    read at once.

    Args:
        model: Maps images to logits, of any `size=`, as a `Segmenter`.
        images: Normalised.
        window: Height and width in pixels.
        size: Of the logits; None for the images' own.
    Raises:
        ValueError: If a side of the window is below 1.
    Example:
        >>> import torch
        >>> sliding_logits(nn.Conv2d(3, 5, 1), torch.rand(1, 3, 40, 50), (16, 16)).shape
        torch.Size([1, 5, 40, 50])
    """
    if min(window) < 1:
        raise ValueError(f"window must be (height, width) of at least 1 px, got {window}")
    height, width = images.shape[-2:]
    total = count = None
    for rows, columns in windows((height, width), window):
        shares = model(images[..., rows, columns]).float().softmax(1)
        if total is None or count is None:
            total = shares.new_zeros(images.shape[0], shares.shape[1], height, width)
            count = shares.new_zeros(height, width)
        total[..., rows, columns] += shares
        count[rows, columns] += 1
    assert total is not None
    assert count is not None
    mean = total / count
    if size is not None and tuple(size) != (height, width):
        mean = F.interpolate(mean, size, mode="bilinear", align_corners=False)
    return mean.clamp_min(1e-8).log()


def windows(size: tuple[int, int], window: tuple[int, int]) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of windows that cover a picture, the last ones flush with its border.

    Example:
        >>> [columns for _, columns in windows((4, 10), (4, 6))]
        [slice(0, 6, None), slice(4, 10, None)]
    """
    for top in _starts(size[0], window[0]):
        for left in _starts(size[1], window[1]):
            yield slice(top, top + window[0]), slice(left, left + window[1])


def _starts(length: int, window: int) -> list[int]:
    if length <= window:
        return [0]
    step = max(1, window - window // _OVERLAP)
    return [*range(0, length - window, step), length - window]
