"""torchvision's `VisionTransformer` on regions."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.models.vision_transformer import Encoder, VisionTransformer

from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["RegionEncoder", "RegionTorchvisionViT"]


class RegionTorchvisionViT(VisionTransformer):  # type: ignore[misc]  # torchvision has no types
    """torchvision's `VisionTransformer` on regions. Made by `dartok.adapt`.

    `conv_proj` is a `RegionPatchEmbed`, which adds the positions; the class token carries its own.
    """

    conv_proj: RegionPatchEmbed

    def _process_input(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N D"]:
        return self.conv_proj(x)

    def forward_features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1+N D"]:
        """All tokens behind the last norm, the class token first."""
        tokens = self._process_input(x)
        return self.encoder(torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1))


class RegionEncoder(Encoder):  # type: ignore[misc]  # torchvision has no types
    """torchvision's encoder of tokens that have their positions already."""

    def forward(self, input: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.ln(self.layers(self.dropout(input)))
