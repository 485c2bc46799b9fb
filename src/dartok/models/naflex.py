"""timm's `NaFlexVit` on regions of images."""

from functools import partial
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float
from timm.models._manipulate import checkpoint
from timm.models.naflexvit import NaFlexVit
from torch import Tensor

from dartok.core.regions import Regions
from dartok.models.intermediates import Entered, RegionBlocks, as_dict, as_tuple
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.rotary import Rotary

__all__ = ["RegionNaFlexVit"]


class RegionNaFlexVit(RegionBlocks, NaFlexVit):
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
        return {*super().no_weight_decay(), "patch_embed.pos_embed", "patch_embed.time_embed"}

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
        final, maps, prefixes = self.intermediates_of(
            x,
            indices,
            norm=norm,
            stop_early=stop_early,
            output_fmt=output_fmt,
            with_prefix=return_prefix_tokens,
            intermediates_only=intermediates_only,
            attn_mask=attn_mask,
        )
        return as_dict(final, maps, prefixes) if output_dict else as_tuple(final, maps, prefixes)

    def entered(
        self,
        images: Float[Tensor, "B C H W"],
        regions: Regions,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Entered:
        """The tokens of regions that are known, at the first block."""
        assert not is_causal  # timm's blocks do not know it
        tokens, turns = self._embedded(images, regions)
        each = turns if isinstance(turns, list) else repeat(turns, len(self.blocks))
        blocks = [
            partial(self._run_block, block, turn=turn, attn_mask=attn_mask)
            for block, turn in zip(self.blocks, each, strict=True)
        ]
        return Entered(tokens, blocks)

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
        tokens, turns = self._embedded(x, self.patch_embed.regions(x))
        return {"patches": tokens, "rope_embeds": turns, "attn_mask": attn_mask}

    def _embedded(self, images: Tensor, regions: Regions) -> tuple[Tensor, Any]:
        """What the first block receives, and the angles."""
        prefix = (self.embeds.cls_token, self.embeds.reg_token)
        parts = [token.expand(len(images), -1, -1) for token in prefix if token is not None]
        tokens = torch.cat([*parts, self.patch_embed.embed(images, regions)], dim=1)
        tokens, kept = self.embeds.pos_drop(tokens), None
        if self.training and self.patch_drop is not None:
            tokens, kept = self.patch_drop(tokens)
        return self.norm_pre(tokens), None if self.rope is None else self._turns(regions, kept)

    def _run_block(self, block: Any, tokens: Tensor, *, turn: Any, attn_mask: Any) -> Tensor:
        options = (
            {"attn_mask": attn_mask} if turn is None else {"rope": turn, "attn_mask": attn_mask}
        )
        if self.grad_checkpointing:
            return checkpoint(block, tokens, **options)
        return block(tokens, **options)

    def _turns(self, regions: Regions, kept: Tensor | None) -> Any:
        """The angles of all blocks, or a list of those of each where these are learned."""
        assert self.rope is not None
        coordinates = self.rope.coordinates(regions.centres())
        if kept is not None:
            coordinates = torch.take_along_dim(coordinates, kept.unsqueeze(-1), dim=1)
        if not self.rope_is_mixed:
            return self.rope(coordinates)
        return list(self.rope.for_blocks(coordinates, len(self.blocks)))
