"""A folder with an adapted model of transformers, in its own layout, beside our card."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dartok.core.files import write_beside
from dartok.models.cards import OF_TRANSFORMERS, Card, Measures
from dartok.models.preprocessing import PIXELS, data_config
from dartok.models.recipes import Recipe

__all__ = ["is_of_transformers", "load_hf", "save_hf"]

_RESAMPLING = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}
"""Pillow's numbers, which image processors keep."""


def is_of_transformers(model: nn.Module) -> bool:
    """Whether a model's class comes from transformers."""
    return any(cls.__module__.partition(".")[0] == "transformers" for cls in type(model).__mro__)


def save_hf(
    model: Any, folder: Path, *, name: str, measures: Measures, license_name: str | None
) -> None:
    """Write a `DartokModel`, or what `adapt` made of a model of transformers, into a folder.

    Raises:
        ValueError: If the model cannot be built again, or does not say how its pixels are prepared.
    """
    from dartok.models.hf import DartokModel

    data = {key: _plain(value) for key, value in data_config(model).items()}
    whole = model if isinstance(model, DartokModel) else DartokModel.of(model)
    config = whole.config
    setattr(config, PIXELS, data)
    recipe = Recipe(OF_TRANSFORMERS, {"host": config.host_class, **_told(config)})
    num_classes = config.num_labels if "Classification" in config.host_class else 0
    card = Card(name, recipe, data, num_classes, measures, license_name)
    texts = {"README.md": card.text(), "preprocessor_config.json": _processor(data)}
    folder.mkdir(parents=True, exist_ok=True)
    whole.save_pretrained(folder)
    for file, text in texts.items():
        write_beside(folder / file, partial(Path.write_bytes, data=text.encode()))


def load_hf(source: str) -> Any | None:
    """The model of "local-dir:FOLDER" or "hf-hub:NAME" in eval mode; None if it is one of timm's.

    Raises:
        OSError: If there is no such folder, or no such name on the hub.
        ValueError: If the configuration is damaged.
    """
    kind, _, name = source.partition(":")
    revision = None
    if kind == "hf-hub":
        from huggingface_hub import hf_hub_download

        name, _, tag = name.partition("@")
        revision = tag or None
        path = Path(hf_hub_download(name, "config.json", revision=revision))
    else:
        path = Path(name) / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if "model_type" not in config:
        return None
    from transformers import AutoModel

    return AutoModel.from_pretrained(name, revision=revision).eval()


def _told(config: Any) -> dict[str, Any]:
    return {"num_tokens": config.num_tokens, "scorer": config.scorer}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _processor(data: Mapping[str, Any]) -> str:
    """The settings of an image processor of transformers that prepares pictures in this way."""
    height, width = data["input_size"][1:]
    squash = data["crop_mode"] == "squash"
    settings = {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": data["mean"],
        "image_std": data["std"],
        "resample": _RESAMPLING[data["interpolation"]],
    }
    if squash:
        settings |= {"image_processor_type": "ViTImageProcessor"}
        settings |= {"size": {"height": height, "width": width}}
    else:
        settings |= {"image_processor_type": "CLIPImageProcessor", "do_center_crop": True}
        settings |= {"size": {"shortest_edge": int(min(height, width) / data["crop_pct"])}}
        settings |= {"crop_size": {"height": height, "width": width}}
    return json.dumps(settings, indent=2) + "\n"
