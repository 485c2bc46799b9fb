"""A host built by name and adapted at once, as timm's registry and a saved folder need it."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import timm
from torch import nn
from torchvision.models import VisionTransformer

from dartok.core.budget import AutoBudget
from dartok.core.partition import PartitionName
from dartok.core.sampling import SamplingName
from dartok.models.adaptation import adapt
from dartok.models.dials import tokenizer_of
from dartok.scorers.build import build_scorer

__all__ = ["HostRecord", "adapted_host", "host_config", "host_record"]


class HostRecord(NamedTuple):
    """Where the host of an adapted model came from."""

    name: str
    """timm's name."""
    args: dict[str, Any]
    """Options of `timm.create_model` that the model does not tell."""


def adapted_host(
    *,
    host: str = "vit_tiny_patch16_224",
    host_pretrained: bool = False,
    host_args: Mapping[str, Any] | None = None,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    num_frames: int | None = None,
    budget: Mapping[str, int] | None = None,
    scorer: str = "conv",
    scorer_args: Mapping[str, Any] | None = None,
    scorer_weights: str | Path | None = None,
    partition: PartitionName = "flow",
    sampling: SamplingName = "centred",
    oversample: int = 1,
    antialias: bool = False,
    size_embedding: bool = False,
    min_region: float | None = None,
    max_region: float | None = None,
    strength: float = 1.0,
    num_classes: int = 1000,
    in_chans: int = 3,
    img_size: int | tuple[int, int] | None = None,
    global_pool: str | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> nn.Module:
    """`adapt(timm.create_model(host, ...), ...)`, at full strength unless asked otherwise.

    Args:
        host: timm's name of a ViT, or "torchvision.VisionTransformer".
        host_pretrained: Start from the host's pretrained weights (may download).
        host_args: More options of `timm.create_model`, such as `depth`; they go before those below.
        num_tokens: As of `adapt`, like `num_rows`, `num_frames`, `scorer`, and those from
            `partition` to `strength`.
        num_rows: Rows of regions.
        num_frames: Frames of the clips that a host of images becomes a model of.
        budget: Options of `AutoBudget` for a count of each image's own; None for `num_tokens`.
        scorer: Score net by name.
        scorer_args: `side_px` and `statistics` of `create_scorer`, where they are not its defaults.
        scorer_weights: For its backbone: None, "imagenet" or a file.
        partition: "flow" or "grid".
        sampling: "centred" or "corner".
        oversample: Samples averaged per patch pixel and axis.
        antialias: Whether regions of more pixels than samples are averaged.
        size_embedding: Whether a token is told how large its region is.
        min_region: Least side of a region, as a share of the picture's.
        max_region: Largest side.
        strength: From 0, the fixed grid, to 1.
        num_classes: Outputs of the head.
        in_chans: Channels of the images.
        img_size: Size in pixels of the host's own grid; None for its usual one.
        global_pool: timm's pooling; None for the host's.
        drop_rate: Dropout before the head.
        drop_path_rate: Stochastic depth of the last block.
    Raises:
        ValueError: If the host cannot be adapted.
    Example:
        >>> adapted_host(host="test_vit", num_tokens=30, num_classes=5).patch_embed.num_tokens
        30
    """
    special = {"img_size": img_size, **(host_args or {})}
    rates = {"drop_rate": drop_rate, "drop_path_rate": drop_path_rate}
    head = {"num_classes": num_classes, "in_chans": in_chans, "global_pool": global_pool}
    options: dict[str, Any] = {**head, **rates, **special}
    channels = {"num_channels": options["in_chans"], **(scorer_args or {})}
    model = adapt(
        _create_host(host, host_pretrained, options),
        num_tokens=num_tokens,
        num_rows=num_rows,
        num_frames=num_frames,
        scorer=build_scorer(scorer, weights=scorer_weights, **channels),
        partition=partition,
        sampling=sampling,
        oversample=oversample,
        antialias=antialias,
        size_embedding=size_embedding,
        min_region=min_region,
        max_region=max_region,
        strength=strength,
    )
    if budget is not None:
        tokenizer_of(model).set_budget(AutoBudget(**budget), num_rows)
    return _noted(model, host, special)


def _noted(model: nn.Module, host: str, special: Mapping[str, Any]) -> nn.Module:
    """The model, which now says where its host came from."""
    known = {name: value for name, value in special.items() if value is not None}
    vars(model)[_RECORD] = HostRecord(host, known)
    return model


def _create_host(host: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    if host != TORCHVISION:
        return timm.create_model(host, pretrained=pretrained, **options)
    foreign = {"pretrained": pretrained, **options}
    unused: dict[str, object] = {"pretrained": False, "in_chans": 3, "drop_path_rate": 0.0}
    unused |= {"img_size": None, "global_pool": None}
    for option, value in unused.items():
        given = foreign.pop(option)
        if given != value:
            raise ValueError(
                f"{option} must be {value} for host {TORCHVISION!r}, got {given!r}; "
                "give torchvision's own options as host_args"
            )
    return VisionTransformer(dropout=foreign.pop("drop_rate"), **foreign)


def host_record(model: nn.Module) -> HostRecord | None:
    """Where the host of an adapted timm model came from; None if it does not say.

    It is what `adapted_host` noted; else timm's name, the size that the positions are for, and,
    where timm is new enough to note them, the options that the host was created with.
    """
    noted = vars(model).get(_RECORD)
    if noted is not None:
        return noted
    if isinstance(model, VisionTransformer):
        return HostRecord(TORCHVISION, _torchvision_args(model))
    config = getattr(model, "pretrained_cfg", None)
    name = config.get("architecture") if isinstance(config, Mapping) else None
    if name is None:
        return None
    noted_by_timm = getattr(model, "_model_args", {})
    args = {key: value for key, value in noted_by_timm.items() if not _is_told_or_runtime(key)}
    size, usual = _size_of_positions(model), timm.get_pretrained_cfg(name)
    if usual is None or list(usual.input_size[1:]) != size:
        args["img_size"] = size
    return HostRecord(name, args | _lengths_of_clips(model))


def host_config(host: str) -> dict[str, Any]:
    """timm's configuration of a host, for the adapted model: its size is then no longer fixed.

    Example:
        >>> host_config("test_vit")["input_size"]
        (3, 160, 160)
    """
    if host == TORCHVISION:
        return _TORCHVISION_CONFIG
    config = timm.get_pretrained_cfg(host)
    if config is None:
        raise ValueError(f"host must be one of timm.list_models('*vit*'), got {host!r}")
    known = dataclasses.asdict(config)
    kept = ("input_size", "crop_pct", "interpolation", "mean", "std", "first_conv", "classifier")
    chosen = {name: known[name] for name in kept if name in known}
    proj = {"first_conv": "patch_embed.proj", "fixed_input_size": False, "pool_size": None}
    return {"architecture": "dart_vit", "num_classes": 1000, **chosen, **proj}


def _torchvision_args(model: Any) -> dict[str, Any]:
    """Options of torchvision's constructor, which it keeps."""
    names = ("image_size", "patch_size", "hidden_dim", "mlp_dim", "representation_size")
    args = {name: value for name in names if (value := getattr(model, name)) is not None}
    layers = model.encoder.layers
    return {**args, "num_layers": len(layers), "num_heads": layers[0].num_heads}


TORCHVISION = "torchvision.VisionTransformer"
"""Host whose options are those of torchvision's class: its models do not keep their names."""

_TORCHVISION_CONFIG = {
    "architecture": "dart_vit",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "interpolation": "bilinear",
    "crop_pct": 0.875,
    "first_conv": "conv_proj.proj",
    "classifier": "heads.head",
    "fixed_input_size": False,
    "pool_size": None,
}

_RECORD = "host_record"
"""Attribute of a model that `adapted_host` made."""

_TOLD = ("num_classes", "in_chans", "img_size", "global_pool", "features_only", "pretrained_cfg")
"""Options of the host that are read from the model as it is."""


def _is_told_or_runtime(option: str) -> bool:
    return option in _TOLD or option.endswith(("drop_rate", "drop_path_rate"))


def _lengths_of_clips(model: nn.Module) -> dict[str, Any]:
    """Frames of the clips that a host of clips is for, and of a tubelet."""
    tokenizer = tokenizer_of(model)
    if tokenizer.time_embed is None or not isinstance(tokenizer.proj, nn.Conv3d):
        return {}
    frames = tokenizer.tubelet
    return {"num_frames": tokenizer.time_embed.shape[2] * frames, "tubelet_size": frames}


def _size_of_positions(model: nn.Module) -> list[int]:
    """Height and width in pixels of the grid that the host's positions are for."""
    tokenizer = tokenizer_of(model)
    if tokenizer.pos_embed is None:
        return list(getattr(tokenizer, "img_size", tokenizer.patch_size))
    grid = tokenizer.pos_embed.shape[-2:]
    return [cells * px for cells, px in zip(grid, tokenizer.patch_size, strict=True)]
