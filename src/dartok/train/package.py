"""A folder with a model that timm and `dartok` load by `local-dir:`, and that can be shared."""

import json
from pathlib import Path
from typing import NamedTuple

import timm
from safetensors import SafetensorError
from torch import Tensor, nn

from dartok.data.augment import PixelConfig
from dartok.scorers.weights import write_state
from dartok.train.checkpoints import write_beside
from dartok.train.model import Recipe, pixels_of

__all__ = ["Package", "load_package", "save_package"]


def save_package(
    model: nn.Module,
    recipe: Recipe,
    folder: Path,
    *,
    state: dict[str, Tensor] | None = None,
    pixels: PixelConfig,
    class_names: tuple[str, ...],
    measures: dict[str, float],
) -> None:
    """Write `model.safetensors` and `config.json`, in timm's layout, into a folder.

    `config.json` also holds the names of the classes and what the model was measured at.

    Args:
        model: The model to keep.
        recipe: How to build it again.
        folder: Made if missing; its files are replaced one by one, each at once.
        state: Its weights; None for those it holds, which a sharded model does not.
        pixels: What the model expects of its pixels.
        class_names: What its outputs mean.
        measures: Such as an evaluation gives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": recipe.name,
        "num_classes": len(class_names),
        "model_args": recipe.args,
        "pretrained_cfg": _pretrained_config(model, pixels, class_names),
        "measures": measures,
    }
    text = json.dumps(config, indent=2) + "\n"
    state = model.state_dict() if state is None else state
    write_state(state, folder / "model.safetensors", metadata={"format": "pt"})
    write_beside(folder / "config.json", lambda target: target.write_text(text))


def _pretrained_config(
    model: nn.Module, pixels: PixelConfig, class_names: tuple[str, ...]
) -> dict[str, object]:
    known = model.pretrained_cfg
    assert isinstance(known, dict)
    kept = {name: known[name] for name in ("first_conv", "classifier") if name in known}
    return {
        **kept,
        "num_classes": len(class_names),
        "label_names": list(class_names),
        "input_size": [3, pixels.size_px, pixels.size_px],
        "fixed_input_size": bool(known.get("fixed_input_size", False)),
        "crop_pct": pixels.crop_share,
        "interpolation": pixels.interpolation,
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        "pool_size": None,
    }


class Package(NamedTuple):
    """A model with what is needed to use it."""

    model: nn.Module
    """In eval mode."""
    pixels: PixelConfig
    class_names: tuple[str, ...]
    """What its outputs mean; numbers where the folder does not say."""


def load_package(folder: Path) -> Package:
    """Read a folder that `save_package` wrote, or one that timm wrote.

    Raises:
        ValueError: If it is missing, incomplete, damaged, or of a model that timm does not know.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
        names = config.get("pretrained_cfg", {}).get("label_names")
        model: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except OSError as error:
        raise ValueError(
            f"model folder {folder} must hold config.json and model.safetensors, such as best/ of "
            f"a run ({error.strerror}: {error.filename}); check the path"
        ) from error
    except (ValueError, RuntimeError, AttributeError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"model folder {folder} cannot be loaded ({reason}); was it written by dartok train?"
        ) from error
    count = config.get("num_classes") or 0
    class_names = tuple(names) if names else tuple(str(number) for number in range(count))
    return Package(model.eval(), pixels_of(model, None), class_names)
