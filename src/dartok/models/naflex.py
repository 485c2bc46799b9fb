"""timm's `NaFlexVit` on regions of images."""

from typing import Any

import torch
from jaxtyping import Float
from timm.models.naflexvit import NaFlexVit
from torch import Tensor

from dartok.core.regions import Regions
from dartok.models.intermediates import as_dict, as_tuple, check_output_fmt, painted
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.rotary import Rotary

__all__ = ["RegionNaFlexVit"]


class RegionNaFlexVit(NaFlexVit):
    """timm's `NaFlexVit` on regions. Made by `dartok.adapt`.

    It takes images, not patches that were cut before. `patch_embed` is a `RegionPatchEmbed`, which
    adds the positions; `embeds` keeps the class token and the registers.
    """

    patch_embed: RegionPatchEmbed
    rope: Rotary | None
    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def no_weight_decay(self) -> set[str]:
        """timm's set, with the positions under their new name."""
        return {*super().no_weight_decay(), "patch_embed.pos_embed"}

    def forward_intermediates(  # type: ignore[override]  # patches cut before are not taken
        self,
        x: Float[Tensor, "B C H W"],
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
        *,
        attn_mask: Tensor | None = None,
    ) -> Any:
        """timm's method; "NCHW" maps are painted from the tokens through `Regions.to_map`.

        A map has one cell per patch of the image, `(H // patch, W // patch)`, whatever the number
        of tokens. Arguments and return values are timm's.

        Raises:
            ValueError: If `output_fmt` is neither "NCHW" nor "NLC", or tokens were dropped.
        """
        check_output_fmt(output_fmt)
        regions = self.patch_embed.regions(x)
        with self.patch_embed.knowing(regions):
            found = super().forward_intermediates(
                x,
                indices,
                return_prefix_tokens=return_prefix_tokens,
                norm=norm,
                stop_early=stop_early,
                output_fmt="NLC",
                intermediates_only=intermediates_only,
                output_dict=True,
                attn_mask=attn_mask,
            )
        assert isinstance(found, dict)
        maps, prefixes = found["image_intermediates"], found.get("image_intermediates_prefix", [])
        if output_fmt == "NCHW":
            size = self.patch_embed.dynamic_feat_size((x.shape[-2], x.shape[-1]))
            maps = painted(maps, regions, size)
        final = found.get("image_features")
        return as_dict(final, maps, prefixes) if output_dict else as_tuple(final, maps, prefixes)

    def _forward_embeds(
        self,
        x: Tensor,
        patch_coord: Tensor | None = None,
        patch_valid: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> dict[str, Any]:
        if patch_coord is not None or patch_valid is not None:
            raise ValueError(
                "images must be a tensor (B, C, H, W), got patches and their coordinates; the "
                "adapted model cuts images itself"
            )
        regions = self.patch_embed.regions(x)
        prefix = (self.embeds.cls_token, self.embeds.reg_token)
        parts = [token.expand(x.shape[0], -1, -1) for token in prefix if token is not None]
        tokens = torch.cat([*parts, self.patch_embed.embed(x, regions)], dim=1)
        tokens, kept = self.embeds.pos_drop(tokens), None
        if self.training and self.patch_drop is not None:
            tokens, kept = self.patch_drop(tokens)
        turns = None if self.rope is None else self._turns(regions, kept)
        return {"patches": self.norm_pre(tokens), "rope_embeds": turns, "attn_mask": attn_mask}

    def _turns(self, regions: Regions, kept: Tensor | None) -> Any:
        """The angles of all blocks, or a list of those of each where these are learned."""
        assert self.rope is not None
        coordinates = self.rope.coordinates(regions.centres())
        if kept is not None:
            coordinates = torch.take_along_dim(coordinates, kept.unsqueeze(-1), dim=1)
        if not self.rope_is_mixed:
            return self.rope(coordinates)
        return list(self.rope.for_blocks(coordinates, len(self.blocks)))
