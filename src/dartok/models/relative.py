"""timm's `Beit` and `VisionTransformerRelPos` on regions: hosts with a relative position bias."""

from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from timm.models._manipulate import checkpoint
from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import Tensor, nn

from dartok.core.regions import Regions
from dartok.models.intermediates import Entered, RegionBlocks, as_tuple

__all__ = ["RegionBeit", "RegionRelPos", "RelativeHost"]


class RelativeHost(RegionBlocks, nn.Module):
    """What regions change in a host whose blocks add a bias to attention. First of its bases.

    The bias is that of the regions' centres, for each image its own: it takes as much memory as the
    attention weights. A block has it in `attn.bias`; what all blocks share lies in `shared_bias`.
    """

    bias_option: ClassVar[str]
    """Name under which the host's blocks take a bias."""
    patch_embed: Any
    """A `RegionPatchEmbed`; timm declares its own class."""
    cls_token: Any
    shared_bias: nn.Module | None
    blocks: Any
    norm: nn.Module
    num_prefix_tokens: int
    grad_checkpointing: bool

    def no_weight_decay(self) -> set[str]:
        """timm's set, with the positions under their new name."""
        names: set[str] = super().no_weight_decay()  # type: ignore[misc]  # of the host
        return {*names, "patch_embed.pos_embed", "patch_embed.time_embed"}

    def set_input_size(
        self,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
    ) -> None:
        """Note the size that the model is meant for; every size works without it.

        Raises:
            ValueError: If `patch_size` is another than the model's.
        """
        self.patch_embed.set_input_size(img_size, patch_size)

    def forward_features(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B prefix+N D"]:
        """timm's method: all tokens behind the last block and norm."""
        return self.features_of(x, self.patch_embed.regions(x))

    def forward_intermediates(
        self,
        x: Float[Tensor, "B C H W"],
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """timm's method; "NCHW" maps are painted from the tokens through `Regions.to_map`.

        A map has one cell per patch of the image, `(H // patch, W // patch)`, whatever the number
        of tokens. Arguments and return values are timm's.

        Raises:
            ValueError: If `output_fmt` is neither "NCHW" nor "NLC", or tokens were dropped.
        """
        found = self.intermediates_of(
            x,
            indices,
            norm=norm,
            stop_early=stop_early,
            output_fmt=output_fmt,
            with_prefix=return_prefix_tokens,
            intermediates_only=intermediates_only,
        )
        return as_tuple(*found)

    def entered(
        self,
        images: Float[Tensor, "B C H W"],
        regions: Regions,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Entered:
        """The tokens of regions that are known, at the first block; timm's blocks take no mask."""
        assert attn_mask is None
        assert not is_causal
        tokens = self.patch_embed.embed(images, regions)
        if self.cls_token is not None:
            tokens = torch.cat([self.cls_token.expand(tokens.shape[0], -1, -1), tokens], dim=1)
        tokens = getattr(self, "pos_drop", nn.Identity())(tokens)
        centres = regions.centres()
        shared = None if self.shared_bias is None else self.shared_bias(centres)
        run = partial(self._run_block, centres=centres, shared=shared)
        return Entered(tokens, [partial(run, block) for block in self.blocks])

    def _run_block(
        self, block: Any, tokens: Tensor, *, centres: Tensor, shared: Tensor | None
    ) -> Tensor:
        if self.grad_checkpointing:  # with its bias, which is large
            return checkpoint(self._biased_block, block, tokens, centres, shared)
        return self._biased_block(block, tokens, centres, shared)

    def _biased_block(
        self, block: Any, tokens: Tensor, centres: Tensor, shared: Tensor | None
    ) -> Tensor:
        bias = shared
        if block.attn.bias is not None:
            own = block.attn.bias(centres)
            bias = own if shared is None else own + shared
        return block(tokens, **{self.bias_option: bias})


class RegionBeit(RelativeHost, Beit):
    """timm's `Beit` on regions: BEiT and BEiT v2. Made by `dartok.adapt`."""

    bias_option = "shared_rel_pos_bias"


class RegionRelPos(RelativeHost, VisionTransformerRelPos):
    """timm's `VisionTransformerRelPos` on regions. Made by `dartok.adapt`."""

    bias_option = "shared_rel_pos"
