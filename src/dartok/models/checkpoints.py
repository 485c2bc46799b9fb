"""Official checkpoints: read, rename to our layout, load strictly, convert to safetensors."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from dartok.core.notices import say_once
from dartok.models.darmt import RegionRMT
from dartok.models.mamba.inflation import fitted_in_time, inflated, of_pictures, video_options
from dartok.models.mamba.region_video import RegionVideoVim
from dartok.models.mamba.region_vim import RegionVim
from dartok.models.mamba.sequence import class_first, place_of
from dartok.models.mamba.video import VideoVim
from dartok.models.named import NamedModel, build_named
from dartok.models.presets import (
    PRESETS,
    VIDEO_PRESETS,
    VIM_PRESETS,
    Preset,
    RmtPreset,
    VimPreset,
)
from dartok.models.vit import RegionHost
from dartok.scorers.weights import load_strictly, model_in, read_state, write_state

__all__ = ["convert_checkpoint", "from_authors", "load_checkpoint"]

_SCORERS = {
    "patch_embed.spn.spn.spn.": "patch_embed.scorer.",
    "pre_image.spn.spn.spn.": "pre_image.scorer.",
}
"""Where the authors' scorer is, in a tokenizer or in a reshaper, and where ours is."""

_OUR_SCORERS = tuple(_SCORERS.values())
_OUR_STATE = ("strength", "scorer.statistics.")  # buffers that the authors' models do not have


def from_authors(
    state: Mapping[str, Tensor], model: RegionHost | RegionVim | RegionRMT
) -> dict[str, Tensor]:
    """The authors' state dict under our names, for loading into `model`.

    The scorer's `patch_embed.spn.spn.spn.` becomes `patch_embed.scorer.`, and likewise in the
    reshaper `pre_image`; `pos_embed` is split into the class token's entry (the first, or Vim's in
    the middle), added to the class token, and a map of patch positions; VideoMamba's
    `temporal_pos_embedding` becomes `patch_embed.time_embed`. Buffers that they do not
    have keep the model's values. Other entries pass as they are, so that strict loading can name
    them.

    Args:
        state: State dict in the authors' layout.
        model: A `darvit_*`, `darvim_*` or `darmt_*` model, for buffers and the grid of positions.
    Example:
        >>> import torch
        >>> model = build_named("darvit_tiny")
        >>> state = {"cls_token": torch.zeros(1, 1, 192), "pos_embed": torch.ones(1, 197, 192)}
        >>> from_authors(state, model)["patch_embed.pos_embed"].shape
        torch.Size([1, 192, 14, 14])
    """
    renamed = {_our_name(name): value for name, value in state.items() if name != "pos_embed"}
    positions = state.get("pos_embed")
    grid = None if isinstance(model, RegionRMT) else model.patch_embed.pos_embed
    if positions is not None and grid is not None and "cls_token" in renamed:
        if positions.shape[1] != grid.shape[2] * grid.shape[3] + 1:
            renamed["pos_embed"] = positions
        else:
            if isinstance(model, RegionVim) and not isinstance(model, RegionVideoVim):
                positions = class_first(positions, place_of(model.class_token, grid[0, 0].numel()))
            patches = positions[:, 1:].transpose(1, 2).unflatten(2, grid.shape[2:])
            renamed["patch_embed.pos_embed"] = patches.contiguous()
            renamed["cls_token"] = renamed["cls_token"] + positions[:, :1]
    if isinstance(model, RegionVideoVim) and "temporal_pos_embedding" in renamed:
        steps = renamed.pop("temporal_pos_embedding")
        renamed["patch_embed.time_embed"] = steps.transpose(1, 2).contiguous()
    for name, value in model.state_dict().items():
        if name.partition(".")[2].startswith(_OUR_STATE):
            renamed.setdefault(name, value)
    return renamed


def load_checkpoint(
    model: NamedModel, path: str | Path, *, name: str, any_head: bool = False
) -> None:
    """Load a checkpoint strictly, in its official layout or in ours; else change nothing.

    A video host takes a checkpoint of another number of frames: its positions in time are resampled
    linearly, which is said. An adapted `vim_*` or `videomamba_*` also takes its host's official
    checkpoint, which has no scorer: that keeps its weights.

    Args:
        model: The model that the checkpoint was made for.
        path: `.safetensors`, or a torch file (`{"model": ...}` or a bare state dict, with or
            without the training's `args`).
        name: The model's name.
        any_head: For weights to start from: leave the model's head as it is where the file's is for
            another number of classes, and start a video host from that for pictures (`inflated`);
            either is said.
    Raises:
        ValueError: If the file cannot be read, says that it is of another model, or naming the
            entries that do not fit.
    """
    state = read_state(path)
    _refuse_another(path, name)
    if any_head:
        _keep_head(model, state, path)
        if isinstance(model, VideoVim) and of_pictures(state):
            say_once(f"{path} is of pictures: positions in time and the head start anew")
            state = inflated(state, model)
    of_host = name in VIM_PRESETS or name in VIDEO_PRESETS
    _load(model, state, f"checkpoint {path} as {name}", of_host=of_host)


def convert_checkpoint(source: str | Path, target: str | Path, *, name: str | None = None) -> str:
    """Convert an official checkpoint to safetensors in our layout, checked by loading it.

    Args:
        source: The official `.pth`, or safetensors in either layout.
        target: `.safetensors` file to write; written beside, then renamed.
        name: The model's name; None to tell it from the shapes.
    Returns:
        The model's name. Models that differ only in `num_tokens` share their layout: the name of
        the one with 196 tokens then stands for all.
    Raises:
        ValueError: If the source cannot be read, is not a checkpoint of that model, or, without a
            name, could be of several: Vim and VideoMamba lay their weights out alike.
    """
    state = read_state(source)
    name = name or model_in(source) or _recognise(state, source)
    if name not in PRESETS:
        raise ValueError(f"model must be one of {', '.join(PRESETS)}, got {name!r}")
    _refuse_another(source, name)
    num_classes = state["head.weight"].shape[0] if "head.weight" in state else 0
    told = video_options(state) if name in VIDEO_PRESETS else {}
    model = build_named(name, num_classes=num_classes, **told)
    _load(model, state, f"checkpoint {source} as {name}")
    write_state(model.state_dict(), target, metadata={"format": "pt", "model": name})
    return name


def _keep_head(model: NamedModel, state: dict[str, Tensor], path: str | Path) -> None:
    """Put the model's own head into a state whose head has another number of outputs."""
    own = {key: value for key, value in model.state_dict().items() if key.startswith("head.")}
    theirs, ours = state.get("head.weight"), own.get("head.weight")
    if theirs is not None and ours is not None and len(theirs) != len(ours):
        say_once(f"{path} is of {len(theirs)} classes, not {len(ours)}: the head starts anew")
        state |= own


def _refuse_another(path: str | Path, name: str) -> None:
    """Refuse a converted file of a model that computes something else from the same layout."""
    noted = model_in(path)
    if noted in PRESETS and _but_for_tokens(noted) != _but_for_tokens(name):
        raise ValueError(f"checkpoint {path} is of {noted}, not of {name}; name that model")


def _but_for_tokens(name: str) -> Preset:
    preset = PRESETS[name]
    return preset if isinstance(preset, VimPreset | RmtPreset) else replace(preset, num_tokens=1)


def _load(
    model: NamedModel, state: dict[str, Tensor], source: str, *, of_host: bool = False
) -> None:
    if isinstance(model, VideoVim):
        state = fitted_in_time(state, _num_steps(model), source=source)
    theirs = not any(key.startswith(_OUR_SCORERS) for key in state)
    if theirs and isinstance(model, RegionHost | RegionVim | RegionRMT):
        state = from_authors(state, model)
        if of_host:
            own = model.state_dict()
            state |= {key: value for key, value in own.items() if key.startswith(_OUR_SCORERS)}
    load_strictly(model, state, source=source)


def _num_steps(model: VideoVim) -> int:
    if isinstance(model, RegionVideoVim):
        assert model.patch_embed.time_embed is not None
        return model.patch_embed.time_embed.shape[2]
    assert model.temporal_pos_embedding is not None
    return model.temporal_pos_embedding.shape[1]


def _our_name(name: str) -> str:
    for theirs, ours in _SCORERS.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs).replace("mlp.net.", "head.mlp.")
    return name


def _recognise(state: Mapping[str, Tensor], source: str | Path) -> str:
    """The preset whose shapes the checkpoint has, told by some entries."""
    ours = {_our_name(name): tuple(value.shape) for name, value in state.items()}
    found = [name for name, preset in _layouts() if _fits(ours, name, preset)]
    if not found:
        raise ValueError(
            f"checkpoint {source} is of no known model; expected one of {', '.join(PRESETS)}"
        )
    if len(found) > 1:
        raise ValueError(
            f"checkpoint {source} could be of {' or '.join(found)}, whose weights are laid out "
            "alike; name the model (dartok convert --model NAME)"
        )
    return found[0]


_TELLTALES = (
    "cls_token",
    "patch_embed.proj.weight",
    "patch_embed.scorer.head.mlp.2.weight",
    "layers.0.mixer.A_log",
    "layers.0.blocks.0.ffn.fc1.weight",
    "pre_image.scorer.head.mlp.2.weight",
)
"""Entries that tell the layouts apart."""


def _layouts() -> list[tuple[str, Preset]]:
    """One preset for each layout: models with more tokens have that of the model with 196."""
    return [
        (name, preset)
        for name, preset in PRESETS.items()
        if preset.num_tokens == 196 or isinstance(preset, VimPreset | RmtPreset)
    ]


def _fits(shapes: Mapping[str, tuple[int, ...]], name: str, preset: Preset) -> bool:
    """Whether a checkpoint has the telltale entries of a model, in their shapes, and no others."""
    model = _shapes(name)
    on_a_grid = ("pos_embed",) if isinstance(preset, VimPreset) else ()
    return all(shapes.get(key) == model.get(key) for key in (*_TELLTALES, *on_a_grid))


@cache
def _shapes(name: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = build_named(name, num_classes=0).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}
