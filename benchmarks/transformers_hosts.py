"""Hosts of transformers, each of its real class but small and random, for the table of hosts.

Some are refused by `dartok.adapt`, by name: they belong in the table, too.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import transformers
from torch import nn

__all__ = ["HOSTS"]

_PATCH_PX = 8
_VIT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": _PATCH_PX,
}
_TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 64,
}
_LLAMA = {**_TEXT, "num_key_value_heads": 2, "model_type": "llama"}
_CLIP_TEXT = {**_TEXT, "max_position_embeddings": 16, "eos_token_id": 63, "pad_token_id": 1}
_STAGED = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "image_size": 32}


def _built(name: str, config: str, /, **settings: Any) -> nn.Module:
    made = getattr(transformers, config)(**settings)
    return getattr(transformers, name)(made).eval()


def _vision(name: str, config: str, /, **settings: Any) -> Callable[[], nn.Module]:
    return partial(_built, name, config, **{**_VIT, **settings})


def _two_towers(name: str, vision: dict[str, Any], text: dict[str, Any]) -> Callable[[], nn.Module]:
    settings: dict[str, Any] = {"vision_config": vision, "text_config": text, "projection_dim": 32}
    return partial(_built, f"{name}Model", f"{name}Config", **settings)


def _classifier(name: str) -> Callable[[], nn.Module]:
    settings = {"vision_config": _VIT, "text_config": _CLIP_TEXT, "num_labels": 5}
    return partial(_built, f"{name}ForImageClassification", f"{name}Config", **settings)


def _blip(name: str) -> Callable[[], nn.Module]:
    text = {**_TEXT, "encoder_hidden_size": 32, "bos_token_id": 2, "sep_token_id": 3}
    settings = {"vision_config": _VIT, "text_config": text, "image_text_hidden_size": 16}
    return partial(_built, name, "BlipConfig", **settings)


def _llava(name: str, tower: dict[str, Any], **settings: Any) -> Callable[[], nn.Module]:
    config = f"{name.removesuffix('Model').removesuffix('ForConditionalGeneration')}Config"
    parts = {"vision_config": {**_VIT, **tower}, "text_config": _LLAMA, "image_token_id": 60}
    return partial(_built, name, config, **parts, **settings)


def _kosmos2_tower() -> nn.Module:
    from transformers.models.kosmos2.configuration_kosmos2 import Kosmos2VisionConfig
    from transformers.models.kosmos2.modeling_kosmos2 import Kosmos2VisionTransformer

    return Kosmos2VisionTransformer(Kosmos2VisionConfig(**_VIT)).eval()


def _vision_text() -> nn.Module:
    vision = transformers.ViTModel(transformers.ViTConfig(**_VIT))
    text = transformers.BertModel(transformers.BertConfig(**_TEXT))
    return transformers.VisionTextDualEncoderModel(vision_model=vision, text_model=text).eval()


def _captioner() -> nn.Module:
    settings = {"is_decoder": True, "add_cross_attention": True}
    text = transformers.BertLMHeadModel(transformers.BertConfig(**_TEXT, **settings))
    vision = transformers.ViTModel(transformers.ViTConfig(**_VIT))
    return transformers.VisionEncoderDecoderModel(encoder=vision, decoder=text).eval()


def _backbone(**settings: Any) -> Any:
    return transformers.Dinov2Config(**{**_VIT, **_DINO2, **settings})


def _depth() -> nn.Module:
    config = transformers.DepthAnythingConfig(
        backbone_config=_backbone(
            num_hidden_layers=4, out_indices=[1, 2, 3, 4], reshape_hidden_states=False
        ),
        patch_size=_PATCH_PX,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    return transformers.DepthAnythingForDepthEstimation(config).eval()


def _segmenter() -> nn.Module:
    config = transformers.UperNetConfig(
        backbone_config=_backbone(**_STAGES),
        hidden_size=16,
        pool_scales=[1, 2],
        use_auxiliary_head=False,
        num_labels=3,
    )
    return transformers.UperNetForSemanticSegmentation(config).eval()


_STAGES = {"out_indices": [1, 2]}
_DINO2 = {"mlp_ratio": 2, "image_size": 32, "use_swiglu_ffn": False}
_REGISTERS = {**_DINO2, "num_register_tokens": 3}
_STRICT_VIT = {name: value for name, value in _VIT.items() if name != "image_size"}
_SIGLIP = {"model_type": "siglip_vision_model", "vision_use_head": False}
_VIPLLAVA = {"vision_feature_layers": [-2, -1]}

_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "ViTModel": _vision("ViTModel", "ViTConfig"),
    "ViTForImageClassification": _vision("ViTForImageClassification", "ViTConfig", num_labels=5),
    "DeiTModel": _vision("DeiTModel", "DeiTConfig"),
    "DeiTForImageClassificationWithTeacher": _vision(
        "DeiTForImageClassificationWithTeacher", "DeiTConfig", num_labels=5
    ),
    "ViTMSNModel": _vision("ViTMSNModel", "ViTMSNConfig"),
    "ViTMAEModel": _vision("ViTMAEModel", "ViTMAEConfig"),
    "IJepaModel": _vision("IJepaModel", "IJepaConfig"),
    "PixioModel": _vision("PixioModel", "PixioConfig", n_cls_tokens=4, mlp_ratio=2),
    "FlavaImageModel": _vision("FlavaImageModel", "FlavaImageConfig"),
    "InternVLVisionModel": _vision(
        "InternVLVisionModel", "InternVLVisionConfig", use_absolute_position_embeddings=True
    ),
    "Dinov2Model": _vision("Dinov2Model", "Dinov2Config", **_DINO2),
    "Dinov2ForImageClassification": _vision(
        "Dinov2ForImageClassification", "Dinov2Config", num_labels=5, **_DINO2
    ),
    "Dinov2WithRegistersModel": _vision(
        "Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", **_REGISTERS
    ),
    "DINOv3ViTModel": _vision("DINOv3ViTModel", "DINOv3ViTConfig", num_register_tokens=4),
    "SiglipVisionModel": _vision("SiglipVisionModel", "SiglipVisionConfig"),
    "Siglip2VisionModel": partial(
        _built, "Siglip2VisionModel", "Siglip2VisionConfig", **_STRICT_VIT, num_patches=16
    ),
    "CLIPVisionModel": _vision("CLIPVisionModel", "CLIPVisionConfig"),
    "CLIPVisionModelWithProjection": _vision(
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", projection_dim=24
    ),
    "MetaClip2VisionModel": _vision("MetaClip2VisionModel", "MetaClip2VisionConfig"),
    "ChineseCLIPVisionModel": _vision("ChineseCLIPVisionModel", "ChineseCLIPVisionConfig"),
    "AltCLIPVisionModel": _vision("AltCLIPVisionModel", "AltCLIPVisionConfig"),
    "CLIPSegVisionModel": _vision("CLIPSegVisionModel", "CLIPSegVisionConfig"),
    "BlipVisionModel": _vision("BlipVisionModel", "BlipVisionConfig"),
    "Blip2VisionModel": _vision("Blip2VisionModel", "Blip2VisionConfig"),
    "InstructBlipVisionModel": _vision("InstructBlipVisionModel", "InstructBlipVisionConfig"),
    "GitVisionModel": _vision("GitVisionModel", "GitVisionConfig"),
    "Kosmos2VisionTransformer": _kosmos2_tower,
    "JanusVisionModel": _vision(
        "JanusVisionModel", "JanusVisionConfig", mlp_ratio=2.0, projection_dim=32
    ),
    "Aimv2VisionModel": _vision("Aimv2VisionModel", "Aimv2VisionConfig"),
    "CLIPModel": _two_towers("CLIP", _VIT, _CLIP_TEXT),
    "SiglipModel": partial(
        _built, "SiglipModel", "SiglipConfig", vision_config=_VIT, text_config=_CLIP_TEXT
    ),
    "SiglipForImageClassification": partial(
        _built,
        "SiglipForImageClassification",
        "SiglipConfig",
        vision_config={**_VIT, "vision_use_head": False},
        text_config=_CLIP_TEXT,
        num_labels=5,
    ),
    "Siglip2ForImageClassification": partial(
        _built,
        "Siglip2ForImageClassification",
        "Siglip2Config",
        vision_config={**_STRICT_VIT, "num_patches": 16, "vision_use_head": False},
        text_config=_CLIP_TEXT,
        num_labels=5,
    ),
    "Siglip2Model": partial(
        _built,
        "Siglip2Model",
        "Siglip2Config",
        vision_config={**_STRICT_VIT, "num_patches": 16},
        text_config=_CLIP_TEXT,
    ),
    "MetaClip2Model": _two_towers("MetaClip2", _VIT, _CLIP_TEXT),
    "ChineseCLIPModel": _two_towers("ChineseCLIP", _VIT, _TEXT),
    "AltCLIPModel": _two_towers("AltCLIP", _VIT, {**_TEXT, "project_dim": 32, "pad_token_id": 1}),
    "Aimv2Model": _two_towers("Aimv2", _VIT, _CLIP_TEXT),
    "CLIPForImageClassification": _classifier("CLIP"),
    "MetaClip2ForImageClassification": _classifier("MetaClip2"),
    "ViTMSNForImageClassification": _vision("ViTMSNForImageClassification", "ViTMSNConfig"),
    "IJepaForImageClassification": _vision("IJepaForImageClassification", "IJepaConfig"),
    "DeiTForImageClassification": _vision("DeiTForImageClassification", "DeiTConfig"),
    "Dinov2WithRegistersForImageClassification": _vision(
        "Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersConfig", **_REGISTERS
    ),
    "MetaClip2VisionModelWithProjection": _vision(
        "MetaClip2VisionModelWithProjection", "MetaClip2VisionConfig", projection_dim=24
    ),
    "BlipForConditionalGeneration": _blip("BlipForConditionalGeneration"),
    "BlipForImageTextRetrieval": _blip("BlipForImageTextRetrieval"),
    "VisionTextDualEncoderModel": _vision_text,
    "VisionEncoderDecoderModel": _captioner,
    "LlavaModel (CLIP)": _llava("LlavaModel", {"model_type": "clip_vision_model"}),
    "LlavaForConditionalGeneration (SigLIP)": _llava(
        "LlavaForConditionalGeneration",
        _SIGLIP,
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    ),
    "VipLlavaForConditionalGeneration": _llava(
        "VipLlavaForConditionalGeneration", {"model_type": "clip_vision_model"}, **_VIPLLAVA
    ),
    "PaliGemmaForConditionalGeneration": partial(
        _built,
        "PaliGemmaForConditionalGeneration",
        "PaliGemmaConfig",
        vision_config={**_VIT, "model_type": "siglip_vision_model"},
        text_config={**_LLAMA, "model_type": "gemma", "head_dim": 16},
        projection_dim=32,
        image_token_id=60,
    ),
    "Dinov2Backbone": _vision("Dinov2Backbone", "Dinov2Config", **_DINO2, **_STAGES),
    "Dinov2WithRegistersBackbone": _vision(
        "Dinov2WithRegistersBackbone", "Dinov2WithRegistersConfig", **_REGISTERS, **_STAGES
    ),
    "DINOv3ViTBackbone": _vision(
        "DINOv3ViTBackbone", "DINOv3ViTConfig", num_register_tokens=4, **_STAGES
    ),
    "DepthAnythingForDepthEstimation": _depth,
    "UperNetForSemanticSegmentation": _segmenter,
    "BeitModel": _vision("BeitModel", "BeitConfig", use_relative_position_bias=True),
    "Data2VecVisionModel": _vision("Data2VecVisionModel", "Data2VecVisionConfig"),
    "SwinModel": partial(_built, "SwinModel", "SwinConfig", **_STAGED, window_size=2),
    "ConvNextModel": partial(
        _built, "ConvNextModel", "ConvNextConfig", hidden_sizes=[8, 16], depths=[1, 1], num_stages=2
    ),
    "MLCDVisionModel": _vision("MLCDVisionModel", "MLCDVisionConfig"),
    "YolosModel": _vision("YolosModel", "YolosConfig", image_size=[32, 32]),
    "PixioBackbone": _vision("PixioBackbone", "PixioConfig", n_cls_tokens=4, mlp_ratio=2),
    "ViTMAEForPreTraining": _vision(
        "ViTMAEForPreTraining",
        "ViTMAEConfig",
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=48,
    ),
    "ViTForMaskedImageModeling": _vision(
        "ViTForMaskedImageModeling", "ViTConfig", encoder_stride=_PATCH_PX
    ),
}

HOSTS: dict[str, Callable[[], nn.Module]] = {
    f"transformers {name}": build for name, build in _BUILDERS.items()
}
"""Name of a host, and what builds it."""
