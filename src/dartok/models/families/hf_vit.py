"""Encoders of transformers that add learnt positions to their tokens, and what holds them."""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dartok.models.embeddings import RegionEmbeddings, UnmaskedRegionEmbeddings
from dartok.models.families.hf_layouts import Layout, parts_of, position_table, prefix_of
from dartok.models.families.parts import Family, Parts
from dartok.models.families.twins import twin
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["FAMILIES", "REFUSED", "WRAPPERS", "LearntPositions", "as_class", "embeddings_of"]

Model = TypeVar("Model", bound=nn.Module)


def embeddings_of(
    host: Any,
    embed: RegionPatchEmbed,
    layout: Layout,
    cls: type[RegionEmbeddings] = RegionEmbeddings,
) -> RegionEmbeddings:
    """What replaces the `embeddings` of a host, in the host's mode."""
    dropout = getattr(host.embeddings, "dropout", None)
    embeddings = cls(layout.patches, embed, prefix_of(host, layout), dropout)
    for name in layout.kept:
        setattr(embeddings, name, getattr(host.embeddings, name))
    return embeddings.train(host.training)


def as_class(model: Any, cls: type[Model]) -> Model:
    """The model as one of a subclass of its own class.

    What models of a class can record, transformers notes when the constructor of one starts; so one
    is started here, and dropped.
    """
    assert issubclass(cls, type(model))
    PreTrainedModel.__init__(cls.__new__(cls), model.config)
    model.__class__ = cls
    assert isinstance(model, cls)
    return model


class LearntPositions:
    """Hosts whose `embeddings` add a learnt position to each token."""

    embeddings_class = RegionEmbeddings

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    def take_apart(self, host: nn.Module) -> Parts:
        """Read projection and positions, under the names of the layout."""
        return parts_of(host, self.layout)

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        """The host's class on the host's parameters, with other `embeddings`."""
        if embed.pos_embed is not None:
            embed.pos_embed.requires_grad_(position_table(host).requires_grad)
        model = twin(host)
        model.embeddings = embeddings_of(model, embed, self.layout, self.embeddings_class)
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        """All tokens of the last layer."""
        return model(images).last_hidden_state


class _MaskedAutoencoder(LearntPositions):
    """The encoder of MAE. Its host masks patches at random; the adapted model encodes them all."""

    embeddings_class = UnmaskedRegionEmbeddings

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        model: Any = super().put_together(host, embed)
        model.config.mask_ratio = 0.0
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        if isinstance(model.embeddings, RegionEmbeddings):
            return super().features(model, images)
        unmasked: Any = twin(model)
        unmasked.config.mask_ratio = 0.0
        num_patches = unmasked.embeddings.patch_embeddings.num_patches
        noise = torch.arange(num_patches, device=images.device).expand(images.shape[0], -1)
        return unmasked(images, noise=noise).last_hidden_state


_VIT = LearntPositions(Layout())
_CLIP = LearntPositions(Layout("patch_embedding", ("class_embedding",)))
_SIGLIP = LearntPositions(Layout("patch_embedding", ()))

_BY_NAME: dict[str, Family] = {
    "vit.modeling_vit.ViTModel": _VIT,
    "vit_msn.modeling_vit_msn.ViTMSNModel": _VIT,
    "vit_mae.modeling_vit_mae.ViTMAEModel": _MaskedAutoencoder(Layout()),
    "dinov2.modeling_dinov2.Dinov2Model": _VIT,
    "flava.modeling_flava.FlavaImageModel": _VIT,
    "internvl.modeling_internvl.InternVLVisionModel": _VIT,
    "deit.modeling_deit.DeiTModel": LearntPositions(
        Layout(prefix=("cls_token", "distillation_token"))
    ),
    "dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersModel": (
        LearntPositions(Layout(registers=("register_tokens",)))
    ),
    "ijepa.modeling_ijepa.IJepaModel": LearntPositions(Layout(prefix=())),
    "pixio.modeling_pixio.PixioModel": LearntPositions(Layout(kept=("n_cls_tokens",))),
    "clip.modeling_clip.CLIPVisionModel": _CLIP,
    "metaclip_2.modeling_metaclip_2.MetaClip2VisionModel": _CLIP,
    "chinese_clip.modeling_chinese_clip.ChineseCLIPVisionModel": _CLIP,
    "altclip.modeling_altclip.AltCLIPVisionModel": _CLIP,
    "clipseg.modeling_clipseg.CLIPSegVisionModel": _CLIP,
    "blip.modeling_blip.BlipVisionModel": _CLIP,
    "blip_2.modeling_blip_2.Blip2VisionModel": _CLIP,
    "instructblip.modeling_instructblip.InstructBlipVisionModel": _CLIP,
    "kosmos2.modeling_kosmos2.Kosmos2VisionTransformer": _CLIP,
    "git.modeling_git.GitVisionTransformer": _CLIP,
    "siglip.modeling_siglip.SiglipVisionModel": _SIGLIP,
    "janus.modeling_janus.JanusVisionModel": _SIGLIP,
    "aimv2.modeling_aimv2.Aimv2VisionModel": LearntPositions(
        Layout("patch_embed", (), norm="rms_norm")
    ),
}

FAMILIES: dict[str, Family] = {
    f"transformers.models.{name}": family for name, family in _BY_NAME.items()
}
"""Class of a host, by name: importing them all would take seconds."""

WRAPPERS = frozenset(
    {
        *(f"{name}ForImageClassification" for name in ("ViT", "DeiT", "Dinov2", "ViTMSN", "IJepa")),
        *(f"{name}ForImageClassification" for name in ("Siglip", "Siglip2", "CLIP", "MetaClip2")),
        "Dinov2WithRegistersForImageClassification",
        "DeiTForImageClassificationWithTeacher",
        *(f"{name}VisionModelWithProjection" for name in ("CLIP", "MetaClip2")),
        *(f"{name}Model" for name in ("CLIP", "Siglip", "Siglip2", "MetaClip2", "ChineseCLIP")),
        *(f"{name}Model" for name in ("AltCLIP", "Aimv2", "VisionTextDualEncoder")),
        *(f"{name}Model" for name in ("Llava", "VipLlava", "PaliGemma", "VisionEncoderDecoder")),
        *(f"{name}ForConditionalGeneration" for name in ("Llava", "VipLlava", "PaliGemma", "Blip")),
        "BlipForImageTextRetrieval",
        "GitVisionModel",
        "DepthAnythingForDepthEstimation",  # through a backbone, which paints its maps
        "UperNetForSemanticSegmentation",
    }
)
"""Classes that hold an encoder and take its tokens as a sequence of any length."""

_WINDOWS = "its attention runs in windows of a pixel grid, which regions are not"
_RELATIVE = "its attention looks up a bias for each offset between cells of a fixed grid"
_STAGES = "its stages merge neighbours of a pixel grid, which regions are not"
_MASKED = "it paints masked patches of a fixed grid, which regions are not; adapt its encoder"

REFUSED = {
    "BeitModel": f"{_RELATIVE}; timm's beit_* models can be adapted",
    "BeitForImageClassification": f"{_RELATIVE}; timm's beit_* models can be adapted",
    "Data2VecVisionModel": _RELATIVE,
    "SwinModel": _WINDOWS,
    "Swinv2Model": _WINDOWS,
    "HieraModel": _STAGES,
    "ConvNextModel": _STAGES,
    "PvtModel": _STAGES,
    "PvtV2Model": _STAGES,
    "SegformerModel": _STAGES,
    "LevitModel": _STAGES,
    "CvtModel": _STAGES,
    "VitDetModel": _WINDOWS,
    "YolosModel": "its detection tokens have positions in every layer, learnt for a fixed grid",
    "MLCDVisionModel": "its rotary positions count rows and columns of a fixed grid",
    "ViTForMaskedImageModeling": _MASKED,
    "DeiTForMaskedImageModeling": _MASKED,
    "ViTMAEForPreTraining": _MASKED,
    "PixioBackbone": "it lays its tokens out as a map of patches; adapt the PixioModel instead",
}
"""Class, and why its models cannot be carried over."""
