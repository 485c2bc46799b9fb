"""timm's `Eva` on regions: EVA, EVA-02, DINOv3, Perception Encoder and rotary ViTs."""

from collections.abc import Iterable
from functools import partial
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float
from timm.models._manipulate import checkpoint
from timm.models.eva import Eva
from torch import Tensor

from dartok.core.regions import Regions
from dartok.models.budgeted import Budgeted
from dartok.models.intermediates import Entered, as_tuple
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.rotary import Rotary

__all__ = ["RegionEva"]


class RegionEva(Budgeted, Eva):
    """timm's `Eva` on regions. Made by `dartok.adapt`.

    `patch_embed` is a `RegionPatchEmbed`, which adds absolute positions where the host has some;
    `pos_embed` is None, and the prefix tokens (class, registers) carry their own. `rope` gives the
    angles of the regions' centres, for each image its own.
    """

    patch_embed: RegionPatchEmbed  # type: ignore[assignment]  # timm declares its own classes
    rope: Rotary | None  # type: ignore[assignment]
    pretrained_cfg: dict[str, Any]
    default_cfg: dict[str, Any]

    def no_weight_decay(self) -> set[str]:
        """timm's set, with the positions under their new name."""
        return {*super().no_weight_decay(), "patch_embed.pos_embed", "patch_embed.time_embed"}

    def forward_features(
        self, x: Float[Tensor, "B C H W"], attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Float[Tensor, "B prefix+N D"]:
        """timm's method: all tokens behind the last norm; those of padding are not to be used."""
        return self.features_of(x, self.patch_embed.regions(x), attn_mask, is_causal)

    def forward_intermediates(
        self,
        x: Float[Tensor, "B C H W"],
        indices: int | list[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
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
            attn_mask=attn_mask,
            is_causal=is_causal,
        )
        return as_tuple(*found)

    def _host_forward(self, x: Tensor, attn_mask: Tensor | None, is_causal: bool) -> Tensor:
        # As timm's forward, which does not take a mask in older timm.
        return self.forward_head(self.forward_features(x, attn_mask, is_causal))

    def entered(
        self,
        images: Float[Tensor, "B C H W"],
        regions: Regions,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Entered:
        """The tokens of regions that are known, at the first block; the padding is masked."""
        attn_mask = self.padded_mask(attn_mask, regions, is_causal)
        prefix = [token for token in (self.cls_token, self.reg_token) if token is not None]
        tokens = self.patch_embed.embed(images, regions)
        parts = [token.expand(tokens.shape[0], -1, -1) for token in prefix]
        tokens = self.pos_drop(torch.cat([*parts, tokens], dim=1))
        kept = None
        if self.patch_drop is not None:
            tokens, kept = self.patch_drop(tokens)
        turns = repeat(None, len(self.blocks)) if self.rope is None else self._turns(regions, kept)
        run = partial(self._run_block, attn_mask=attn_mask, is_causal=is_causal)
        blocks = [
            partial(run, block, turn=turn) for block, turn in zip(self.blocks, turns, strict=True)
        ]
        return Entered(self.norm_pre(tokens), blocks)

    def _turns(self, regions: Regions, kept: Tensor | None) -> Iterable[Tensor]:
        assert self.rope is not None
        coordinates = self.rope.coordinates(regions.centres())
        if kept is not None:
            coordinates = torch.take_along_dim(coordinates, kept.unsqueeze(-1), dim=1)
        return self.rope.for_blocks(coordinates, len(self.blocks))

    def _run_block(
        self,
        block: Any,
        tokens: Tensor,
        *,
        turn: Tensor | None,
        attn_mask: Tensor | None,
        is_causal: bool,
    ) -> Tensor:
        options: dict[str, Any] = {"rope": turn, "attn_mask": attn_mask}
        if is_causal:  # blocks of older timm do not know this option
            options["is_causal"] = True
        if self.grad_checkpointing:
            return checkpoint(block, tokens, **options)
        return block(tokens, **options)
