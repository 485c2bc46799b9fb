"""A timm ViT built by name and adapted at once, as timm's registry needs it."""

import dataclasses
from pathlib import Path
from typing import Any

import timm

from dartok.core.partition import PartitionName
from dartok.models.adaptation import adapt
from dartok.models.vit import RegionHost

__all__ = ["adapted_host", "host_config"]


def adapted_host(
    *,
    host: str = "vit_tiny_patch16_224",
    host_pretrained: bool = False,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    scorer: str = "conv",
    scorer_weights: str | Path | None = None,
    partition: PartitionName = "flow",
    strength: float = 1.0,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> RegionHost:
    """`adapt(timm.create_model(host, ...), ...)`, at full strength unless asked otherwise.

    Args:
        host: timm's name of a ViT.
        host_pretrained: Start from the host's pretrained weights (may download).
        num_tokens: As of `adapt`, like the following four.
        num_rows: Rows of regions.
        scorer: Score net by name.
        scorer_weights: For its backbone: None, "imagenet" or a file.
        partition: "flow" or "grid".
        strength: From 0, the fixed grid, to 1.
        num_classes: Outputs of the head.
        in_chans: Channels of the images.
        drop_rate: Dropout before the head.
        drop_path_rate: Stochastic depth of the last block.
    Raises:
        ValueError: If the host cannot be adapted.
    Example:
        >>> adapted_host(host="test_vit", num_tokens=30, num_classes=5).patch_embed.num_tokens
        30
    """
    built = timm.create_model(
        host,
        pretrained=host_pretrained,
        num_classes=num_classes,
        in_chans=in_chans,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )
    model = adapt(
        built,
        num_tokens=num_tokens,
        num_rows=num_rows,
        scorer=scorer,
        scorer_weights=scorer_weights,
        partition=partition,
        strength=strength,
    )
    assert isinstance(model, RegionHost)
    return model


def host_config(host: str) -> dict[str, Any]:
    """timm's configuration of a host, for the adapted model: its size is then no longer fixed.

    Example:
        >>> host_config("test_vit")["input_size"]
        (3, 160, 160)
    """
    config = timm.get_pretrained_cfg(host)
    if config is None:
        raise ValueError(f"host must be one of timm.list_models('*vit*'), got {host!r}")
    known = dataclasses.asdict(config)
    kept = ("input_size", "crop_pct", "interpolation", "mean", "std", "first_conv", "classifier")
    chosen = {name: known[name] for name in kept if name in known}
    proj = {"first_conv": "patch_embed.proj", "fixed_input_size": False, "pool_size": None}
    return {"architecture": "dart_vit", "num_classes": 1000, **chosen, **proj}
