"""Vision Mamba on regions. Made by `dartok.adapt` and `dartok.create_model`."""

from collections.abc import Collection

import torch
from jaxtyping import Float
from torch import Tensor

from dartok.core.regions import Regions
from dartok.core.steering import Priority, Steering
from dartok.models.budgeted import in_groups
from dartok.models.intermediates import RegionBlocks, laid_out
from dartok.models.mamba.sequence import place_of, with_class_token
from dartok.models.mamba.vim import Entrance, Vim
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["RegionVim"]


class RegionVim(RegionBlocks, Vim):
    """`Vim` whose patches are regions, in the order of the strip: any image, any number of tokens.

    `patch_embed` is a `RegionPatchEmbed`, which adds the positions; `pos_embed` is None, and the
    class token carries its own. With a budget for each image (`AutoBudget`) images of one count run
    together in eval mode; while training the batch is padded, and the scan stops at each image's
    last token, in both directions.
    """

    takes_budgets = True
    """`set_num_tokens(model, "auto")` is possible."""
    patch_embed: RegionPatchEmbed

    def forward(
        self,
        x: Float[Tensor, "B *T C H W"],
        *,
        priority: Priority | None = None,
        priority_weight: float = 2.0,
    ) -> Tensor:
        """Logits; with what is important in each image if given: see `dartok.steer`."""
        steering = None if priority is None else Steering(priority, priority_weight)
        regions = self.patch_embed.regions(x, steering)
        if regions.counts is None:
            return self.forward_head(self.features_of(x, regions))
        if self.training or torch.compiler.is_compiling() or not self.global_pool:
            return self._classify(self._pool_padded(self.features_of(x, regions), regions))
        return in_groups(x, regions, self._forward_group)

    def forward_features(self, x: Float[Tensor, "B *T C H W"]) -> Float[Tensor, "B 1+N D"]:
        """All tokens behind the last norm, the class token first; padding is not to be used."""
        return self.features_of(x, self.patch_embed.regions(x))

    def features_of(  # type: ignore[override]  # a scan takes no mask
        self, x: Float[Tensor, "B *T C H W"], regions: Regions
    ) -> Float[Tensor, "B 1+N D"]:
        """`forward_features` of regions that are known."""
        return self._run(self._enter(x, regions), regions.counts)[0]

    def block_tokens(
        self,
        images: Float[Tensor, "B *T C H W"],
        regions: Regions,
        blocks: Collection[int],
        *,
        norm: bool,
    ) -> dict[int, Float[Tensor, "B 1+N D"]]:
        """Tokens behind some blocks, by their numbers from 0, the class token first."""
        sequence = self._enter(images, regions)
        _, found = self._run(sequence, regions.counts, taken=blocks, norm=norm, stop=max(blocks))
        return dict(zip(sorted(blocks), found, strict=True))

    def forward_head(self, x: Float[Tensor, "B 1+N D"], pre_logits: bool = False) -> Tensor:
        """Pool the tokens of `forward_features` and classify them.

        Raises:
            ValueError: If padding would be pooled with the tokens: `forward` tells them apart.
        """
        if self.patch_embed.budget is not None and self.global_pool == "avg":
            raise ValueError(
                "forward_head cannot tell tokens from padding with num_tokens='auto' and "
                "global_pool='avg'; call the model on the images"
            )
        return super().forward_head(x, pre_logits)

    def no_weight_decay(self) -> set[str]:
        """The host's set, with the positions under their new name."""
        return {*super().no_weight_decay(), "patch_embed.pos_embed", "patch_embed.time_embed"}

    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Note the size that the model is meant for; every size works without it."""
        self.patch_embed.set_input_size(img_size)

    def _entrance(self, images: Tensor) -> Entrance:
        regions = self.patch_embed.regions(images)
        return Entrance(self._enter(images, regions), regions)

    def _laid_out(
        self, found: list[Tensor], images: Tensor, regions: Regions | None, output_fmt: str
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Maps painted from the tokens through `Regions.to_map`, or the tokens."""
        assert regions is not None
        size = self.patch_embed.dynamic_feat_size((images.shape[-2], images.shape[-1]))
        return laid_out(found, regions, size, num_prefix=1, output_fmt=output_fmt, with_prefix=True)

    def _enter(self, images: Tensor, regions: Regions) -> Float[Tensor, "B L D"]:
        tokens = self.patch_embed.embed(images, regions)
        counts = tokens.shape[1] if regions.counts is None else regions.counts
        place = place_of(self.class_token, counts)
        return self.pos_drop(with_class_token(tokens, self.cls_token, place))

    def _forward_group(self, images: Tensor, regions: Regions) -> Tensor:
        return self._classify(self._pool(self.features_of(images, regions)))

    def _pool_padded(self, tokens: Float[Tensor, "B 1+N D"], regions: Regions) -> Tensor:
        if self.global_pool != "avg":
            return self._pool(tokens)
        is_region = regions.is_region().unsqueeze(-1)
        return tokens[:, 1:].masked_fill(~is_region, 0).sum(1) / is_region.sum(1)
