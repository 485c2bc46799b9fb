"""DINOv3 of transformers: rotary positions, turned by where each region lies."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.dinov3_vit.modeling_dinov3_vit import (
    DINOv3ViTModel,
    augment_patches_center_coordinates,
)
from transformers.utils.generic import can_return_tuple

from dartok.core.regions import Regions
from dartok.models.embeddings import RegionEmbeddings, refuse_mask
from dartok.models.families.hf_layouts import Layout, parts_of
from dartok.models.families.hf_vit import as_class, embeddings_of
from dartok.models.families.parts import Family, Parts
from dartok.models.families.twins import twin
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["FAMILIES", "RegionDINOv3ViTModel", "rotation_of"]

_LAYOUT = Layout(registers=("register_tokens",), has_positions=False)


class RegionDINOv3ViTModel(DINOv3ViTModel):  # type: ignore[misc]
    """transformers' `DINOv3ViTModel` on regions. Made by `dartok.adapt`."""

    embeddings: RegionEmbeddings

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        pixel_values: Float[Tensor, "B C H W"],
        bool_masked_pos: Tensor | None = None,
        **options: Any,  # transformers' own, for the layers
    ) -> BaseModelOutputWithPooling:
        refuse_mask("bool_masked_pos", bool_masked_pos)
        images = self.embeddings.as_images(pixel_values)
        regions = self.embeddings.tokenizer.regions(images)
        tokens = self.embeddings.embed(images, regions)
        rotation = rotation_of(self.rope_embeddings, regions, tokens.dtype)
        encoded = self.model(tokens, position_embeddings=rotation, **options)
        tokens = self.norm(encoded.last_hidden_state)
        return BaseModelOutputWithPooling(
            last_hidden_state=tokens,
            pooler_output=tokens[:, 0],
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


def rotation_of(
    rope: Any, regions: Regions, dtype: torch.dtype
) -> tuple[Float[Tensor, "B 1 N D"], Float[Tensor, "B 1 N D"]]:
    """Cosine and sine of the angles of each region, for all heads.

    The host turns a patch by its centre (y, x), from -1 to 1 across the picture whatever its size;
    a region has a centre, too. While training, the host's own random shifts apply.

    Source: DINOv3, arXiv:2508.10104, rotary positions.

    Args:
        rope: The host's `rope_embeddings`.
        regions: Regions of a batch; D is the width of a head.
        dtype: Of the result; angles are computed in float32.
    """
    centres = 2 * regions.centres().flip(-1).float() - 1
    if rope.training:
        settings = rope.config
        centres = augment_patches_center_coordinates(
            centres,
            shift=settings.pos_embed_shift,
            jitter=settings.pos_embed_jitter,
            rescale=settings.pos_embed_rescale,
        )
    angles = (2 * math.pi * centres.unsqueeze(-1) * rope.inv_freq).flatten(-2)
    angles = torch.cat([angles, angles], dim=-1).unsqueeze(1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


class _DINOv3:
    def take_apart(self, host: nn.Module) -> Parts:
        return parts_of(host, _LAYOUT)

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        model = as_class(twin(host), RegionDINOv3ViTModel)
        model.embeddings = embeddings_of(model, embed, _LAYOUT)
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        return model(images).last_hidden_state


FAMILIES: dict[type[nn.Module], Family] = {DINOv3ViTModel: _DINOv3()}
"""Class of a host, and what knows it."""
