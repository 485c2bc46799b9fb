"""timm's vision transformers on regions: their own classes, with what the regions change."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.models._manipulate import checkpoint
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from dartok.core.regions import Regions
from dartok.models.budgeted import Budgeted
from dartok.models.intermediates import Entered, as_dict, as_tuple
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["HOST_CLASSES", "RegionHost", "RegionViT", "RegionViTDistilled"]

_PREFIX_NAMES = ("cls_token", "dist_token", "reg_token")


class RegionHost(Budgeted, VisionTransformer):
    """What regions change in a host: where positions come from, and maps of features.

    `patch_embed` is a `RegionPatchEmbed`, which adds the positions; `pos_embed` is None, and the
    prefix tokens (class, distillation, registers) carry their own.
    """

    patch_embed: RegionPatchEmbed
    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def _pos_embed(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B prefix+N D"]:
        prefix = [getattr(self, name, None) for name in _PREFIX_NAMES]
        parts = [token.expand(x.shape[0], -1, -1) for token in prefix if token is not None]
        return self.pos_drop(torch.cat([*parts, x], dim=1))

    def forward_features(
        self, x: Float[Tensor, "B C H W"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "B prefix+N D"]:
        """timm's method: all tokens behind the last norm; those of padding are not to be used."""
        if self.patch_embed.budget is not None:
            return self.features_of(x, self.patch_embed.regions(x), attn_mask, is_causal)
        options = {"is_causal": True} if is_causal else {}  # older timm does not know this
        return super().forward_features(x, attn_mask=attn_mask, **options)

    def entered(
        self,
        images: Float[Tensor, "B C H W"],
        regions: Regions,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Entered:
        """The tokens of regions that are known, at the first block; the padding is masked."""
        attn_mask = self.padded_mask(attn_mask, regions, is_causal)
        tokens = self._pos_embed(self.patch_embed.embed(images, regions))
        run = partial(self._run_block, attn_mask=attn_mask, is_causal=is_causal)
        blocks = [partial(run, block) for block in self.blocks]
        return Entered(self.norm_pre(self.patch_drop(tokens)), blocks)

    def no_weight_decay(self) -> set[str]:
        """timm's set, with the positions under their new name."""
        return {*super().no_weight_decay(), "patch_embed.pos_embed", "patch_embed.time_embed"}

    def forward_intermediates(
        self,
        x: Float[Tensor, "B C H W"],
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Any:
        """timm's method; "NCHW" maps are painted from the tokens through `Regions.to_map`.

        A map has one cell per patch of the image, `(H // patch, W // patch)`, whatever the number
        of tokens. Arguments and return values are timm's.

        Raises:
            ValueError: If `output_fmt` is neither "NCHW" nor "NLC".
        """
        final, maps, prefixes = self.intermediates_of(
            x,
            indices,
            norm=norm,
            stop_early=stop_early,
            output_fmt=output_fmt,
            with_prefix=return_prefix_tokens,
            intermediates_only=intermediates_only,
            attn_mask=attn_mask,
            is_causal=is_causal,
        )
        return as_dict(final, maps, prefixes) if output_dict else as_tuple(final, maps, prefixes)

    def _run_block(
        self, block: Any, tokens: Tensor, *, attn_mask: Tensor | None, is_causal: bool
    ) -> Tensor:
        options: dict[str, Any] = {} if attn_mask is None else {"attn_mask": attn_mask}
        if is_causal:  # blocks of older timm do not know this option
            options["is_causal"] = True
        if self.grad_checkpointing:
            return checkpoint(block, tokens, **options)
        return block(tokens, **options)


class RegionViT(RegionHost):
    """timm's `VisionTransformer` on regions. Made by `dartok.adapt` and `dartok.create_model`."""


class RegionViTDistilled(RegionHost, VisionTransformerDistilled):
    """timm's distilled DeiT on regions. Made by `dartok.adapt`."""


HOST_CLASSES: dict[type[VisionTransformer], type[RegionHost]] = {
    VisionTransformer: RegionViT,
    VisionTransformerDistilled: RegionViTDistilled,
}
"""timm class, and the class of the adapted model."""
