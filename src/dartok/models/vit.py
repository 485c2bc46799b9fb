"""timm's vision transformers on regions: their own classes, with what the regions change."""

from typing import Any

import torch
from jaxtyping import Float
from timm.models._features import feature_take_indices
from timm.models._manipulate import checkpoint
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dartok.models.budgeted import Budgeted, with_padding
from dartok.models.intermediates import (
    as_dict,
    as_tuple,
    check_output_fmt,
    painted,
    split_prefix,
)
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
        options = {"is_causal": True} if is_causal else {}  # older timm does not know this
        if self.patch_embed.budget is None:
            return super().forward_features(x, attn_mask=attn_mask, **options)
        self._check_no_patch_drop()
        regions = self.patch_embed.regions(x)
        with self.patch_embed.knowing(regions):
            mask = with_padding(attn_mask, regions, self.num_prefix_tokens, self.patch_embed.dtype)
            return super().forward_features(x, attn_mask=mask, **options)

    def _check_no_patch_drop(self) -> None:
        if self.training and not isinstance(self.patch_drop, nn.Identity):
            raise ValueError(
                "num_tokens='auto' cannot train with patch_drop, got "
                f"{type(self.patch_drop).__name__}; set patch_drop_rate=0"
            )

    def no_weight_decay(self) -> set[str]:
        """timm's set, with the positions under their new name."""
        return {*super().no_weight_decay(), "patch_embed.pos_embed"}

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
        check_output_fmt(output_fmt)
        regions = self.patch_embed.regions(x)
        attn_mask = with_padding(attn_mask, regions, self.num_prefix_tokens, self.patch_embed.dtype)
        taken, last = feature_take_indices(len(self.blocks), indices)
        tokens = self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed.embed(x, regions))))
        blocks = self.blocks[: last + 1] if stop_early else self.blocks
        found = []
        for index, block in enumerate(blocks):
            tokens = self._run_block(block, tokens, attn_mask, is_causal)
            if index in taken:
                found.append(self.norm(tokens) if norm else tokens)
        maps, prefixes = split_prefix(found, self.num_prefix_tokens)
        if output_fmt == "NCHW":
            size = self.patch_embed.dynamic_feat_size((x.shape[-2], x.shape[-1]))
            maps = painted(maps, regions, size)
        if not (return_prefix_tokens and self.num_prefix_tokens):
            prefixes = []
        final = None if intermediates_only else self.norm(tokens)
        return as_dict(final, maps, prefixes) if output_dict else as_tuple(final, maps, prefixes)

    def _run_block(
        self, block: Any, tokens: Tensor, attn_mask: Tensor | None, is_causal: bool
    ) -> Tensor:
        if is_causal:  # blocks of older timm do not know this option
            return block(tokens, attn_mask=attn_mask, is_causal=True)
        if attn_mask is not None:
            return block(tokens, attn_mask=attn_mask)
        if self.grad_checkpointing:
            return checkpoint(block, tokens)
        return block(tokens)


class RegionViT(RegionHost):
    """timm's `VisionTransformer` on regions. Made by `dartok.adapt` and `dartok.create_model`."""


class RegionViTDistilled(RegionHost, VisionTransformerDistilled):
    """timm's distilled DeiT on regions. Made by `dartok.adapt`."""


HOST_CLASSES: dict[type[VisionTransformer], type[RegionHost]] = {
    VisionTransformer: RegionViT,
    VisionTransformerDistilled: RegionViTDistilled,
}
"""timm class, and the class of the adapted model."""
