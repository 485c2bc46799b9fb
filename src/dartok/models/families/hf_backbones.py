"""Backbones of transformers: their maps of features are painted from the tokens of the regions."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.backbone_utils import filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput
from transformers.models.dinov2.modeling_dinov2 import Dinov2Backbone
from transformers.models.dinov2_with_registers.modeling_dinov2_with_registers import (
    Dinov2WithRegistersBackbone,
)
from transformers.models.dinov3_vit.modeling_dinov3_vit import (
    DINOv3ViTBackbone,
    DINOv3ViTBackboneOutput,
)
from transformers.utils.generic import can_return_tuple

from dartok.core.regions import Regions
from dartok.models.embeddings import RegionEmbeddings, refuse_mask
from dartok.models.families.hf_dinov3 import rotation_of
from dartok.models.families.hf_layouts import Layout, parts_of, position_table
from dartok.models.families.hf_vit import as_class, embeddings_of
from dartok.models.families.parts import Family, Parts
from dartok.models.families.twins import twin
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = [
    "FAMILIES",
    "RegionDINOv3ViTBackbone",
    "RegionDinov2Backbone",
    "RegionDinov2WithRegistersBackbone",
    "paint_between",
]


def paint_between(
    tokens: Float[Tensor, "B prefix+N D"], regions: Regions, size: tuple[int, int]
) -> Float[Tensor, "B prefix+cells D"]:
    """Tokens with those of the regions painted on a map, whose cells come row by row instead.

    Example:
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]]))
        >>> paint_between(torch.tensor([[[7.0], [1.0], [3.0]]]), regions, (1, 4)).flatten()
        tensor([7., 1., 1., 3., 3.])
    """
    num_prefix = tokens.shape[1] - regions.num_tokens
    cells = regions.to_map(tokens[:, num_prefix:], size).flatten(2).transpose(1, 2)
    return torch.cat([tokens[:, :num_prefix], cells], dim=1)


class _RegionBackbone:
    """What regions change in a backbone: where the cells of its maps come from.

    A map has one cell per patch of the picture, `(H // patch, W // patch)`, whatever the number of
    tokens.
    """

    embeddings: RegionEmbeddings
    config: Any
    encoder: Any
    layernorm: Any
    stage_names: list[str]
    out_features: list[str]

    @can_return_tuple  # type: ignore[untyped-decorator]
    @filter_output_hidden_states  # type: ignore[untyped-decorator]
    def forward(
        self,
        pixel_values: Float[Tensor, "B C H W"],
        attention_mask: Tensor | None = None,
        **options: Any,  # transformers' own, for the layers
    ) -> BackboneOutput:
        refuse_mask("attention_mask", attention_mask)
        images = self.embeddings.as_images(pixel_values)
        regions = self.embeddings.tokenizer.regions(images)
        tokens = self.embeddings.embed(images, regions)
        encoded = self._encoded(tokens, regions, options)
        size = self.embeddings.tokenizer.dynamic_feat_size((images.shape[-2], images.shape[-1]))
        chosen = [
            paint_between(self._normed(stage, state), regions, size)
            for stage, state in zip(self.stage_names, encoded.hidden_states, strict=True)
            if stage in self.out_features
        ]
        return self._output(chosen, size, encoded)

    def _encoded(self, tokens: Tensor, regions: Regions, options: dict[str, Any]) -> Any:
        return self.encoder(tokens, **options)

    def _normed(self, stage: str, state: Tensor) -> Tensor:
        return self.layernorm(state) if self.config.apply_layernorm else state

    def _output(self, chosen: list[Tensor], size: tuple[int, int], encoded: Any) -> BackboneOutput:
        maps = tuple(self._as_map(tokens, size) for tokens in chosen)
        return BackboneOutput(
            feature_maps=maps,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )

    def _as_map(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        if not self.config.reshape_hidden_states:
            return tokens
        cells = tokens[:, tokens.shape[1] - size[0] * size[1] :]
        return cells.transpose(1, 2).unflatten(2, size).contiguous()


class RegionDinov2Backbone(_RegionBackbone, Dinov2Backbone):  # type: ignore[misc]
    """transformers' `Dinov2Backbone` on regions. Made by `dartok.adapt`."""


class RegionDinov2WithRegistersBackbone(
    _RegionBackbone,
    Dinov2WithRegistersBackbone,  # type: ignore[misc]
):
    """transformers' `Dinov2WithRegistersBackbone` on regions. Made by `dartok.adapt`."""


class RegionDINOv3ViTBackbone(_RegionBackbone, DINOv3ViTBackbone):  # type: ignore[misc]
    """transformers' `DINOv3ViTBackbone` on regions. Made by `dartok.adapt`."""

    def _encoded(self, tokens: Tensor, regions: Regions, options: dict[str, Any]) -> Any:
        rotation = rotation_of(self.rope_embeddings, regions, tokens.dtype)
        return self.model(tokens, rotation, **options)

    def _normed(self, stage: str, state: Tensor) -> Tensor:
        normed = self.config.apply_layernorm or stage == self.stage_names[-1]
        return self.norm(state) if normed else state

    def _output(self, chosen: list[Tensor], size: tuple[int, int], encoded: Any) -> BackboneOutput:
        output = super()._output(chosen, size, encoded)
        if not self.config.reshape_hidden_states:  # this host leaves its prefix out of them
            num_cells = size[0] * size[1]
            output.feature_maps = tuple(tokens[:, -num_cells:] for tokens in chosen)
        wanted = getattr(self.config, "return_class_token", False)
        classes = tuple(tokens[:, 0] for tokens in chosen) if wanted else None
        return DINOv3ViTBackboneOutput(**output, cls_tokens=classes)


class _Backbone:
    def __init__(self, cls: type[nn.Module], layout: Layout) -> None:
        self.cls, self.layout = cls, layout

    def take_apart(self, host: nn.Module) -> Parts:
        return parts_of(host, self.layout)

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        if embed.pos_embed is not None:
            embed.pos_embed.requires_grad_(position_table(host).requires_grad)
        model = as_class(twin(host), self.cls)
        model.embeddings = embeddings_of(model, embed, self.layout)
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        maps = model(images, output_hidden_states=True).hidden_states
        return torch.cat(maps, dim=1)


FAMILIES: dict[type[nn.Module], Family] = {
    Dinov2Backbone: _Backbone(RegionDinov2Backbone, Layout()),
    Dinov2WithRegistersBackbone: _Backbone(
        RegionDinov2WithRegistersBackbone, Layout(registers=("register_tokens",))
    ),
    DINOv3ViTBackbone: _Backbone(
        RegionDINOv3ViTBackbone, Layout(registers=("register_tokens",), has_positions=False)
    ),
}
"""Class of a host, and what knows it."""
