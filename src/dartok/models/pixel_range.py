"""What a model's pixels lie between, to notice pictures that were not normalised."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from dartok.core.notices import say_once
from dartok.core.reading import readable

__all__ = ["PixelRange"]

_DARK_ENOUGH = -1.0
"""Where black is no lower, a bright normalised picture can lie in [0, 1] as raw ones do."""

_DARKEST, _BRIGHTEST = 0.1, 0.9
"""What raw pictures in [0, 1] go below and beyond in one channel. Normalised by ImageNet's values,
no grey picture within [0, 1] does: its channels lie apart. Nor does a constant one."""

_STRIDE_PX = 32
"""Of the pixels looked at first: normalised pictures have a negative one among them."""


class PixelRange(NamedTuple):
    """The lowest and the highest value of a normalised pixel, over the channels.

    Example:
        >>> PixelRange.of(mean=(0.5, 0.25), std=(0.5, 0.125))
        PixelRange(black=-2.0, white=6.0)
    """

    black: float
    white: float

    @classmethod
    def of(cls, mean: tuple[float, ...], std: tuple[float, ...]) -> "PixelRange":
        """The range of pixels in [0, 1] after `(pixel - mean) / std`."""
        pairs = list(zip(mean, std, strict=True))
        black = min((0 - centre) / width for centre, width in pairs)
        return cls(black, max((1 - centre) / width for centre, width in pairs))

    def are_raw(self, images: Float[Tensor, "B *T C H W"]) -> bool:
        """Whether pictures look like pixels in [0, 1] or [0, 255] that nobody normalised.

        They have no negative pixel, and either a highest one that no normalised picture reaches, or
        all within [0, 1], from dark to bright in one channel, although black would be below -1. A
        normalised picture would have to be pale, coloured and without contrast to look so.

        Example:
            >>> import torch
            >>> PixelRange(-2.1, 2.6).are_raw(torch.tensor([[[[0.02, 0.97]]]]))
            True
        """
        pixels = images.detach().flatten(0, -4)
        if pixels[..., ::_STRIDE_PX, ::_STRIDE_PX].amin() < 0:
            return False
        low, high = pixels.amin((0, 2, 3)), pixels.amax((0, 2, 3))  # of each channel
        if low.min() < 0:
            return False
        if high.max() > 1:
            return bool(high.max() > 2 * self.white)
        from_dark_to_bright = ((low < _DARKEST) & (high > _BRIGHTEST)).any()
        return self.black < _DARK_ENOUGH and bool(from_dark_to_bright)

    def say_if_raw(self, images: Float[Tensor, "B *T C H W"]) -> None:
        """Warn once about pictures that `are_raw`; never where reading values would stall."""
        if readable(images) and self.are_raw(images):
            say_once(
                "images look un-normalised: no pixel is negative, but this model expects black at "
                f"{self.black:.2f} and white at {self.white:.2f}; prepare pictures with "
                "dartok.transform(model), or give (pixels - mean) / std"
            )
