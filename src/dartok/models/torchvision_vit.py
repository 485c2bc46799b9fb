"""torchvision's `VisionTransformer` on regions."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.models.vision_transformer import Encoder, VisionTransformer

from dartok.core.regions import Regions
from dartok.core.tokenizer import Tokenizer
from dartok.models.intermediates import Entered, RegionBlocks
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["RegionEncoder", "RegionTorchvisionViT"]


class RegionTorchvisionViT(RegionBlocks, VisionTransformer):  # type: ignore[misc]  # torchvision has no types
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

    @property
    def tokenizer(self) -> Tokenizer:
        """What cuts the images and embeds their regions."""
        return self.conv_proj

    @property
    def num_prefix(self) -> int:
        """The class token."""
        return 1

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return len(self.encoder.layers)

    def entered(
        self,
        images: Float[Tensor, "B C H W"],
        regions: Regions,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Entered:
        """The tokens of regions that are known, at the first block; none takes a mask."""
        assert attn_mask is None
        assert not is_causal
        tokens = self.conv_proj.embed(images, regions)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), tokens], dim=1)
        return Entered(self.encoder.dropout(tokens), list(self.encoder.layers))

    def normed(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Tokens behind the last norm."""
        return self.encoder.ln(tokens)


class RegionEncoder(Encoder):  # type: ignore[misc]  # torchvision has no types
    """torchvision's encoder of tokens that have their positions already."""

    def forward(self, input: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.ln(self.layers(self.dropout(input)))
