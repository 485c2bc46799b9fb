"""`Scored`: what cuts pictures by a score has a scorer, a strength and a steering in common."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.quantiles import geometry
from dartok.core.reading import readable
from dartok.core.regions import Regions
from dartok.core.steering import Steering

__all__ = ["Scored", "check_images"]


class Scored(nn.Module):
    """A scorer, and how far it is followed. `Tokenizer` and `GridReshaper` say what comes of it.

    Args:
        scorer: Maps images to positive scores `(B, h, w)`; any h and w.
        strength: From 0 to 1; kept in a buffer, see `set_strength`.
    Raises:
        ValueError: If `strength` is outside [0, 1].
    """

    strength: Tensor

    def __init__(self, scorer: nn.Module, strength: float) -> None:
        super().__init__()
        self.scorer = scorer
        self._steering: Steering | None = None
        self.register_buffer("strength", torch.tensor(1.0))
        self.set_strength(strength)

    def set_strength(self, strength: float) -> None:
        """Set how far the regions leave the fixed grid: 0 not at all, 1 the full method.

        Raises:
            ValueError: If `strength` is outside [0, 1].
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be from 0 (fixed grid) to 1 (DART), got {strength}")
        self.strength.fill_(strength)

    def regions(self, images: Tensor, steering: Steering | None = None) -> Regions:
        """The regions of a batch of images.

        `steering` stands in for that of `steered`.
        """
        raise NotImplementedError

    def scores(self, images: Tensor) -> Float[Tensor, "B h w"]:
        """The scores of images as they are cut, raised to the strength."""
        scores = geometry(_checked_scores(self.scorer(images), images))
        return scores ** geometry(self.strength)

    @contextmanager
    def steered(self, steering: Steering | None) -> Iterator[None]:
        """Steer the regions of the images that come meanwhile; None leaves them as they are."""
        before = self._steering
        self._steering = before if steering is None else steering
        try:
            yield
        finally:
            self._steering = before


def check_images(images: Tensor, num_channels: int | None, patch_size: tuple[int, int]) -> None:
    """Refuse images that cannot be cut: wrong rank, dtype, channels or size, or not finite.

    Values are read on the CPU only: on a GPU that would stall it. Any number of channels is right
    where `num_channels` is None.

    Raises:
        ValueError: Naming what was got, the rule and the remedy.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images must be a tensor (B, C, H, W), got a {type(images).__name__}")
    if images.ndim != 4 or images.shape[0] == 0:
        raise ValueError(
            f"images must be (B, C, H, W) with at least one image, got shape {tuple(images.shape)}"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating point, normalised as the model expects, got {images.dtype}; "
            "convert with images.float() / 255 and normalise"
        )
    if num_channels is not None and images.shape[1] != num_channels:
        raise ValueError(
            f"images must have {num_channels} channels, as the model, got {images.shape[1]}; "
            "convert them"
        )
    if images.shape[2] < patch_size[0] or images.shape[3] < patch_size[1]:
        raise ValueError(
            f"images must be at least one patch ({patch_size[0]} x {patch_size[1]} px) in size, "
            f"got {images.shape[2]} x {images.shape[3]} px; enlarge them"
        )
    if readable(images) and not images.detach().sum(dtype=torch.float32).isfinite():
        raise ValueError("images must be finite, got NaN or infinite pixels; clean the input")


def _checked_scores(scores: Tensor, images: Tensor) -> Tensor:
    """Refuse what a scorer of the user's own may do wrong."""
    if scores.ndim != 3 or scores.shape[0] != images.shape[0]:
        raise ValueError(
            f"scorer must give scores (B, h, w) with B = {images.shape[0]}, "
            f"got {tuple(scores.shape)}"
        )
    if readable(scores):
        low, high = scores.detach().aminmax()
        if not (low > 0 and high < torch.inf):
            raise ValueError(
                f"scorer must give positive finite scores, got {low:.3g} to {high:.3g}; "
                "end it in exp or softplus"
            )
    return scores
