"""A folder with a model that timm and `dartok` load by `local-dir:`, and that can be shared."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from dartok.data.augment import PixelConfig
from dartok.data.clips.clip_config import ClipConfig
from dartok.models.cards import Card
from dartok.models.recipes import Recipe
from dartok.models.sharing import LOADING_ERRORS, load_saved, write_folder
from dartok.train.model import pixels_of

__all__ = ["CLIP", "Package", "is_of_videos", "load_package", "save_package"]

CLIP = "clip"
"""Entry of `config.json` of a model of videos: the settings of `ClipConfig`."""


def save_package(
    model: nn.Module,
    recipe: Recipe,
    folder: Path,
    *,
    state: dict[str, Tensor] | None = None,
    pixels: PixelConfig,
    class_names: tuple[str, ...],
    measures: dict[str, float],
    extras: Mapping[str, Any] | None = None,
) -> None:
    """Write a model that was built from a recipe into a folder, as `dartok.save_pretrained` does.

    `config.json` also holds the names of the classes and what the model was measured at.

    Args:
        model: The model to keep.
        recipe: How to build it again.
        folder: Made if missing; its files are replaced one by one, each at once.
        state: Its weights; None for those it holds, which a sharded model does not.
        pixels: What the model expects of its pixels.
        class_names: What its outputs mean.
        measures: Such as an evaluation gives.
        extras: More for `config.json`.
    """
    card = Card(
        name=folder.name,
        recipe=recipe,
        data=_data_config(pixels),
        num_classes=len(class_names),
        measures=measures,
        license=None,
    )
    known = model.pretrained_cfg
    assert isinstance(known, dict)
    state = model.state_dict() if state is None else state
    write_folder(state, folder, card, class_names=class_names, known=known, extras=extras)


def _data_config(pixels: PixelConfig) -> dict[str, Any]:
    """The same in timm's words."""
    return {
        "input_size": (3, pixels.size_px, pixels.width_px or pixels.size_px),
        "crop_pct": pixels.crop_share,
        "interpolation": pixels.interpolation,
        "mean": pixels.mean,
        "std": pixels.std,
    }


class Package(NamedTuple):
    """A model with what is needed to use it."""

    model: nn.Module
    """In eval mode."""
    pixels: PixelConfig
    class_names: tuple[str, ...]
    """What its outputs mean; numbers where the folder does not say."""
    colours: tuple[tuple[int, int, int], ...] | None = None
    """Of the classes, for a model that paints them."""
    clip: ClipConfig | None = None
    """Which frames of a video it is to be shown; None for a model of pictures."""


def is_of_videos(folder: Path) -> bool:
    """Whether a folder says that its model is one of videos, without loading it."""
    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False  # `load_package` says what is wrong
    return isinstance(config, dict) and CLIP in config


def load_package(folder: Path) -> Package:
    """Read a folder that `save_package` wrote, or one that timm wrote.

    Raises:
        ValueError: If it is missing, incomplete, damaged, or of a model that timm does not know.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        names = config.get("pretrained_cfg", {}).get("label_names")
        model: nn.Module = load_saved(f"local-dir:{folder}")
    except OSError as error:
        raise ValueError(
            f"model folder {folder} must hold config.json and model.safetensors, such as best/ of "
            f"a run ({error.strerror}: {error.filename}); check the path"
        ) from error
    except LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"model folder {folder} cannot be loaded ({reason}); was it written by dartok train?"
        ) from error
    count = config.get("num_classes") or 0
    class_names = tuple(names) if names else tuple(str(number) for number in range(count))
    colours = config.get("label_colours")
    palette = None if colours is None else tuple((int(r), int(g), int(b)) for r, g, b in colours)
    clip = config.get(CLIP)
    try:
        frames = None if clip is None else ClipConfig(**clip)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} has an entry {CLIP!r} that is none ({error}); mend it") from error
    return Package(model, pixels_of(model, None), class_names, palette, frames)
