"""How pictures are prepared for a model: size, crop, and the mean and deviation of its pixels."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.pixel_range import PixelRange

__all__ = ["PIXELS", "data_config", "note_pixels", "transform"]

PIXELS = "pixels"
"""Attribute of a transformers configuration that keeps the settings of a saved model."""

_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
_CLIP = {
    "mean": (0.48145466, 0.4578275, 0.40821073),
    "std": (0.26862954, 0.26130258, 0.27577711),
}
_CROPPED = {"interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center"}
_WHOLE = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"}
_SQUASHED = {"interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash"}

_TORCHVISION = {**_IMAGENET, **_CROPPED, "interpolation": "bilinear"}

_TRANSFORMERS: Mapping[str, Mapping[str, Any]] = {
    "beit": {**_HALF, **_SQUASHED},
    "clip_vision_model": {**_CLIP, **_WHOLE},
    "data2vec-vision": {**_IMAGENET, **_SQUASHED},
    "deit": {**_IMAGENET, **_CROPPED},
    "dinov2": {**_IMAGENET, **_CROPPED},
    "dinov2_with_registers": {**_IMAGENET, **_CROPPED},
    "dinov3_vit": {**_IMAGENET, **_SQUASHED},
    "ijepa": {**_IMAGENET, **_SQUASHED},
    "siglip_vision_model": {**_HALF, **_SQUASHED, "interpolation": "bicubic"},
    "siglip2_vision_model": {**_HALF, **_SQUASHED},
    "vit": {**_HALF, **_SQUASHED},
    "vit_mae": {**_IMAGENET, **_SQUASHED, "interpolation": "bicubic"},
    "vit_msn": {**_IMAGENET, **_CROPPED},
}
"""Type of a transformers model, and what the image processors published with it do."""


def transform(model: nn.Module) -> Callable[[Any], Tensor]:
    """A function from a PIL picture to the tensor that a model expects: resize, crop, normalise.

    It is timm's evaluation transform for the data settings that the model came with, at the size
    that the model is meant for. Regions take any other size as well: what matters to the weights is
    the normalisation.

    Args:
        model: An adapted model, one of the authors', or any timm model.
    Returns:
        Maps an RGB picture to `(C, H, W)`.
    Raises:
        ValueError: If the model does not say how its pixels are normalised.
    Example:
        >>> import timm
        >>> from PIL import Image
        >>> prepare = transform(timm.create_model("test_vit"))
        >>> prepare(Image.new("RGB", (300, 200))).shape
        torch.Size([3, 160, 160])
    """
    from timm.data import create_transform

    config = data_config(model)
    channels = config["input_size"][0]
    if len(config["mean"]) != channels:
        raise ValueError(
            f"transform needs a mean for each channel, got {len(config['mean'])} for a model of "
            f"{channels} channels; set mean and std in model.pretrained_cfg"
        )
    return create_transform(**config, is_training=False)


def data_config(model: nn.Module) -> dict[str, Any]:
    """timm's data settings of a model: input_size, mean, std, interpolation, crop_pct, crop_mode.

    Raises:
        ValueError: If the model does not say how its pixels are normalised.
    """
    known = _known_settings(model)
    if known is None:
        raise ValueError(
            f"the model must say how its pixels are normalised, got a {type(model).__name__} "
            "without mean and std; set model.pretrained_cfg = {'mean': ..., 'std': ...}"
        )
    from timm.data import resolve_data_config

    config: dict[str, Any] = resolve_data_config(pretrained_cfg=known)  # type: ignore[no-untyped-call]
    config |= {
        name: tuple(config[name]) for name in ("input_size", "mean", "std")
    }  # JSON has lists
    embed = _embed_of(model)
    if embed is not None:
        config["input_size"] = (embed.proj.in_channels, *embed.img_size)
    return config


def note_pixels(model: nn.Module) -> None:
    """Let the model's tokenizer know what its pixels lie between, where that is known."""
    embed, known = _embed_of(model), _known_settings(model)
    if embed is not None and known is not None:
        embed.pixel_range = PixelRange.of(tuple(known["mean"]), tuple(known["std"]))


def _embed_of(model: nn.Module) -> RegionPatchEmbed | None:
    found = (module for module in model.modules() if isinstance(module, RegionPatchEmbed))
    return next(found, None)


def _known_settings(model: nn.Module) -> Mapping[str, Any] | None:
    """What the model says, or the outermost of its parts that holds the tokenizer and says it."""
    names = (name for name, part in model.named_modules() if isinstance(part, RegionPatchEmbed))
    path = next(names, "").split(".")
    holders = (model.get_submodule(".".join(path[:depth])) for depth in range(len(path)))
    return next(filter(None, map(_settings_of, holders)), None)


def _settings_of(module: nn.Module) -> Mapping[str, Any] | None:
    """timm's settings, or what is usual for the library that the module's class comes from."""
    config = getattr(module, "pretrained_cfg", None)
    if isinstance(config, Mapping):
        return config if config.get("mean") and config.get("std") else None
    libraries = {cls.__module__.partition(".")[0] for cls in type(module).__mro__}
    if "transformers" in libraries:
        usual = _TRANSFORMERS.get(getattr(module.config, "model_type", ""))
        return getattr(module.config, PIXELS, None) or usual
    return _TORCHVISION if "torchvision" in libraries else None
