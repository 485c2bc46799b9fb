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
        scorer: Maps images to positive scores `(B, h, w)`; any h and w. Of a clip it sees each
            frame alone, unless it has `takes_clips = True`: then it maps `(B, T, C, H, W)` to
            `(B, T, h, w)`.
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

    def scores(self, images: Tensor) -> Float[Tensor, "B *T h w"]:
        """The scores of images, or of each frame of clips, raised to the strength."""
        scores = geometry(_checked_scores(self._scored(images), images))
        return scores ** geometry(self.strength)

    def _scored(self, images: Tensor) -> Tensor:
        if images.ndim == 4 or getattr(self.scorer, "takes_clips", False):
            return self.scorer(images)
        return self.scorer(images.flatten(0, 1)).unflatten(0, images.shape[:2])

    @contextmanager
    def steered(self, steering: Steering | None) -> Iterator[None]:
        """Steer the regions of the images that come meanwhile; None leaves them as they are."""
        before = self._steering
        self._steering = before if steering is None else steering
        try:
            yield
        finally:
            self._steering = before


def check_images(
    images: Tensor,
    num_channels: int | None,
    patch_size: tuple[int, int],
    *,
    tubelet: int | None = None,
) -> None:
    """Refuse images that cannot be cut: wrong rank, dtype, channels or size, or not finite.

    Values are read on the CPU only: on a GPU that would stall it.

    Args:
        images: `(B, C, H, W)`, or clips.
        num_channels: What the model expects; None for any.
        patch_size: Least height and width.
        tubelet: Frames that a clip must have a multiple of; None where clips cannot be cut.

    Raises:
        ValueError: Naming what was got, the rule and the remedy.
    """
    if not isinstance(images, Tensor):
        raise ValueError(f"images must be a tensor (B, C, H, W), got a {type(images).__name__}")
    is_clip = tubelet is not None and images.ndim == 5
    if not (images.ndim == 4 or is_clip) or 0 in images.shape[: images.ndim - 3]:
        rule = "(B, C, H, W)" if tubelet is None else "(B, C, H, W), or (B, T, C, H, W) for clips,"
        raise ValueError(
            f"images must be {rule} with at least one image, got shape {tuple(images.shape)}"
        )
    num_frames = images.shape[1] if is_clip else 1
    if tubelet is not None and num_frames % tubelet:
        raise ValueError(
            f"clips must have a multiple of {tubelet} frames, as the model's tubelets, got "
            f"{num_frames}; drop or repeat some"
        )
    if not images.is_floating_point():
        raise ValueError(
            f"images must be floating point, normalised as the model expects, got {images.dtype}; "
            "convert with images.float() / 255 and normalise"
        )
    channels, height, width = images.shape[-3:]
    if num_channels is not None and channels != num_channels:
        raise ValueError(
            f"images must have {num_channels} channels, as the model, got {channels}; convert them"
        )
    if height < patch_size[0] or width < patch_size[1]:
        raise ValueError(
            f"images must be at least one patch ({patch_size[0]} x {patch_size[1]} px) in size, "
            f"got {height} x {width} px; enlarge them"
        )
    if readable(images) and not images.detach().sum(dtype=torch.float32).isfinite():
        raise ValueError("images must be finite, got NaN or infinite pixels; clean the input")


def _checked_scores(scores: Tensor, images: Tensor) -> Tensor:
    """Refuse what a scorer of the user's own may do wrong."""
    batch = images.shape[:-3]
    if scores.ndim != len(batch) + 2 or scores.shape[:-2] != batch:
        raise ValueError(
            f"scorer must give scores ({', '.join(map(str, batch))}, h, w), one map for each "
            f"picture, got {tuple(scores.shape)}"
        )
    if readable(scores):
        low, high = scores.detach().aminmax()
        if not (low > 0 and high < torch.inf):
            raise ValueError(
                f"scorer must give positive finite scores, got {low:.3g} to {high:.3g}; "
                "end it in exp or softplus"
            )
    return scores
