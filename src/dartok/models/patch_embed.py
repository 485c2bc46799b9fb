"""`RegionPatchEmbed`: the tokenizer in the place, and with the face, of timm's `PatchEmbed`."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from dartok.core.projection import Projection
from dartok.core.regions import Regions
from dartok.core.steering import Steering
from dartok.core.tokenizer import Tokenizer
from dartok.models.pixel_range import PixelRange

__all__ = ["RegionPatchEmbed"]


class RegionPatchEmbed(Tokenizer):
    """A `Tokenizer` that returns the tokens alone, as timm's models expect of `patch_embed`.

    `pixel_range` is what its pixels lie between once they are normalised; None where that is not
    known.

    Example:
        >>> from torch import nn, rand
        >>> from dartok.scorers import Uniform
        >>> embed = RegionPatchEmbed(
        ...     img_size=(32, 32), scorer=Uniform(), proj=nn.Conv2d(3, 8, 16, 16), num_tokens=4
        ... )
        >>> embed(rand(1, 3, 32, 32)).shape, embed.grid_size
        (torch.Size([1, 4, 8]), (2, 2))
    """

    def __init__(self, *, img_size: tuple[int, int], **parts: Any) -> None:
        super().__init__(**parts)  # Tokenizer refuses names it does not know
        self.img_size = img_size
        self.pixel_range: PixelRange | None = None

    def regions(
        self, images: Float[Tensor, "B *T C H W"], steering: Steering | None = None
    ) -> Regions:
        """The regions of images or clips; says once if these were not normalised."""
        found = super().regions(images, steering)
        if self.pixel_range is not None:
            self.pixel_range.say_if_raw(images)
        return found

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns that a fixed grid has at `img_size`."""
        return self.dynamic_feat_size(self.img_size)

    @property
    def num_patches(self) -> int:
        """Tokens per image, under timm's name."""
        return self.num_tokens

    @property
    def dtype(self) -> torch.dtype:
        """Of the tokens, outside autocast."""
        return self.proj.weight.dtype

    @property
    def projection(self) -> Projection:
        """The patch projection, under the name by which models of transformers read its dtype."""
        return self.proj

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Pixels per cell of the feature maps that `forward_intermediates` paints."""
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the feature maps painted for an image of this size."""
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Note the size that the model is meant for; every size works without it.

        Raises:
            ValueError: If `patch_size` is another than the model's.
        """
        if patch_size is not None and _pair(patch_size) != self.patch_size:
            raise ValueError(
                f"patch_size must stay {self.patch_size}, got {patch_size}; "
                "change the host's before adapting it"
            )
        if img_size is not None:
            self.img_size = _pair(img_size)

    def forward(self, images: Float[Tensor, "B *T C H W"]) -> Float[Tensor, "B N D"]:  # type: ignore[override]
        return super().forward(images).tokens


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
