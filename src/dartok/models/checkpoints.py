"""The authors' checkpoints: read, rename to our layout, load strictly, convert to safetensors."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from dartok.models.darvit import build_darvit
from dartok.models.presets import DARVIT_PRESETS
from dartok.models.vit import RegionHost
from dartok.scorers.weights import load_strictly, read_state, write_state

__all__ = ["convert_checkpoint", "from_authors", "load_checkpoint"]

_AUTHORS_SCORER = "patch_embed.spn.spn.spn."
_OUR_SCORER = "patch_embed.scorer."
_OUR_STATE = ("strength", "scorer.statistics.")  # buffers that the authors' models do not have


def from_authors(state: Mapping[str, Tensor], model: RegionHost) -> dict[str, Tensor]:
    """The authors' state dict under our names, for loading into `model`.

    The scorer's `patch_embed.spn.spn.spn.` becomes `patch_embed.scorer.`; `pos_embed` is split into
    the class token's entry, added to the class token, and a map of patch positions. Buffers that
    they do not have keep the model's values. Other entries pass as they are, so that strict loading
    can name them.

    Args:
        state: State dict in the authors' layout.
        model: A `darvit_*` model, for the buffers and the grid of positions.
    Example:
        >>> import torch
        >>> from dartok.models.darvit import build_darvit
        >>> from dartok.models.presets import DARVIT_PRESETS
        >>> model = build_darvit(DARVIT_PRESETS["darvit_tiny"])
        >>> state = {"cls_token": torch.zeros(1, 1, 192), "pos_embed": torch.ones(1, 197, 192)}
        >>> from_authors(state, model)["patch_embed.pos_embed"].shape
        torch.Size([1, 192, 14, 14])
    """
    renamed = {_our_name(name): value for name, value in state.items() if name != "pos_embed"}
    positions = state.get("pos_embed")
    grid = model.patch_embed.pos_embed
    if positions is not None and grid is not None and "cls_token" in renamed:
        if positions.shape[1] != grid.shape[2] * grid.shape[3] + 1:
            renamed["pos_embed"] = positions
        else:
            patches = positions[:, 1:].transpose(1, 2).unflatten(2, grid.shape[2:])
            renamed["patch_embed.pos_embed"] = patches.contiguous()
            renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
    for name, value in model.state_dict().items():
        if name.removeprefix("patch_embed.").startswith(_OUR_STATE):
            renamed.setdefault(name, value)
    return renamed


def load_checkpoint(model: RegionHost, path: str | Path, *, name: str) -> None:
    """Load a checkpoint strictly, in the authors' layout or in ours; else change nothing.

    Args:
        model: The model that the checkpoint was made for.
        path: `.safetensors`, or a torch file (`{"model": ...}` or a bare state dict, with or
            without the training's `args`).
        name: The model's name, for the message.
    Raises:
        ValueError: If the file cannot be read, or naming the entries that do not fit.
    """
    _load(model, read_state(path), f"checkpoint {path} as {name}")


def convert_checkpoint(source: str | Path, target: str | Path, *, name: str | None = None) -> str:
    """Convert an authors' checkpoint to safetensors in our layout, checked by loading it.

    Args:
        source: The authors' `.pth`, or safetensors in either layout.
        target: `.safetensors` file to write; written beside, then renamed.
        name: The model's name; None to tell it from the shapes.
    Returns:
        The model's name. Models that differ only in `num_tokens` share their layout: the name of
        the one with 196 tokens then stands for all.
    Raises:
        ValueError: If the source cannot be read or is not a checkpoint of that model.
    """
    state = read_state(source)
    name = name or _recognise(state, source)
    if name not in DARVIT_PRESETS:
        raise ValueError(f"model must be one of {', '.join(DARVIT_PRESETS)}, got {name!r}")
    num_classes = state["head.weight"].shape[0] if "head.weight" in state else 0
    model = build_darvit(DARVIT_PRESETS[name], num_classes=num_classes)
    _load(model, state, f"checkpoint {source} as {name}")
    write_state(model.state_dict(), target, metadata={"format": "pt", "model": name})
    return name


def _load(model: RegionHost, state: dict[str, Tensor], source: str) -> None:
    ours = any(key.startswith(_OUR_SCORER) for key in state)
    load_strictly(model, state if ours else from_authors(state, model), source=source)


def _our_name(name: str) -> str:
    if not name.startswith(_AUTHORS_SCORER):
        return name
    return _OUR_SCORER + name.removeprefix(_AUTHORS_SCORER).replace("mlp.net.", "head.mlp.")


def _recognise(state: Mapping[str, Tensor], source: str | Path) -> str:
    """The preset whose shapes the checkpoint has, told by its width and its scorer's head."""
    ours = {_our_name(name): tuple(value.shape) for name, value in state.items()}
    seen = tuple(ours.get(key) for key in _TELLTALES)
    for name, preset in DARVIT_PRESETS.items():
        if preset.num_tokens != 196:  # the same layout as the model with 196
            continue
        shapes = _shapes(build_darvit(preset))
        if seen == tuple(shapes.get(key) for key in _TELLTALES):
            return name
    raise ValueError(
        f"checkpoint {source} is of no known model; expected one of {', '.join(DARVIT_PRESETS)}"
    )


_TELLTALES = ("cls_token", "patch_embed.proj.weight", "patch_embed.scorer.head.mlp.2.weight")


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}
