"""SigLIP 2 of transformers, whose host takes patches: the adapted model takes pictures."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionModel

from dartok.models.embeddings import RegionEmbeddings, refuse_mask
from dartok.models.families.hf_layouts import Layout, position_table
from dartok.models.families.hf_vit import as_class, embeddings_of
from dartok.models.families.parts import Family, Parts
from dartok.models.families.timm_vit import position_map
from dartok.models.families.twins import twin
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["FAMILIES", "RegionSiglip2VisionModel", "as_patches"]

_LAYOUT = Layout("patch_embedding", ())


class RegionSiglip2VisionModel(Siglip2VisionModel):  # type: ignore[misc]
    """transformers' `Siglip2VisionModel` on regions, for pictures `(B, C, H, W)` of any size.

    The host's processor makes padded patches of a picture; give this model the resized and
    normalised picture itself, without a mask or shapes. Made by `dartok.adapt`.
    """

    embeddings: RegionEmbeddings

    def forward(
        self,
        pixel_values: Float[Tensor, "B C H W"],
        pixel_attention_mask: Tensor | None = None,
        spatial_shapes: Tensor | None = None,
        **options: Any,  # transformers' own, for the layers
    ) -> Any:
        refuse_mask("pixel_attention_mask", pixel_attention_mask)
        refuse_mask("spatial_shapes", spatial_shapes)
        return super().forward(pixel_values, None, None, **options)


def as_patches(
    images: Float[Tensor, "B C H W"], patch_px: int
) -> tuple[Float[Tensor, "B N pixels"], Tensor, Tensor]:
    """What the host takes for pictures of whole patches: patches, a mask of ones, and shapes.

    Example:
        >>> patches, mask, shapes = as_patches(torch.rand(2, 3, 32, 48), 16)
        >>> patches.shape, mask.shape, shapes.tolist()
        (torch.Size([2, 6, 768]), torch.Size([2, 6]), [[2, 3], [2, 3]])
    """
    rows, columns = images.shape[-2] // patch_px, images.shape[-1] // patch_px
    cells = images.unflatten(3, (columns, patch_px)).unflatten(2, (rows, patch_px))
    patches = cells.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    mask = torch.ones(patches.shape[:2], dtype=torch.long, device=images.device)
    shapes = torch.tensor([[rows, columns]], device=images.device).expand(len(images), -1)
    return patches, mask, shapes


class _Siglip2:
    def take_apart(self, host: nn.Module) -> Parts:
        embeddings: Any = host.embeddings
        side = embeddings.position_embedding_size
        size_px = side * embeddings.patch_size
        positions = position_map(type(host).__name__, position_table(host), 0, (side, side))
        return Parts(_as_convolution(embeddings), None, positions, (size_px, size_px))

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        assert embed.pos_embed is not None
        embed.pos_embed.requires_grad_(position_table(host).requires_grad)
        model = as_class(twin(host), RegionSiglip2VisionModel)
        model.embeddings = embeddings_of(model, embed, _LAYOUT)
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        if isinstance(model, RegionSiglip2VisionModel):
            return model(images).last_hidden_state
        config: Any = model.config
        return model(*as_patches(images, config.patch_size)).last_hidden_state


def _as_convolution(embeddings: Any) -> nn.Conv2d:
    """The host's linear map of flattened patches (row, column, channel), as a convolution."""
    linear, patch_px = embeddings.patch_embedding, embeddings.patch_size
    channels = linear.in_features // patch_px**2
    proj = nn.utils.skip_init(
        nn.Conv2d, channels, linear.out_features, kernel_size=patch_px, stride=patch_px
    ).to(linear.weight)
    kernel = linear.weight.detach().unflatten(1, (patch_px, patch_px, channels))
    for parameter, value in ((proj.weight, kernel.permute(0, 3, 1, 2)), (proj.bias, linear.bias)):
        parameter.data.copy_(value.detach())
        parameter.requires_grad_(linear.weight.requires_grad)
    return proj


FAMILIES: dict[type[nn.Module], Family] = {Siglip2VisionModel: _Siglip2()}
"""Class of a host, and what knows it."""
