"""Checkpoints of VideoMamba for clips of another length, and those for pictures as a start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dartok.core.names import one_of
from dartok.core.notices import say_once
from dartok.core.projection import tubelet_of
from dartok.models.mamba.video import VideoVim, resampled_in_time
from dartok.scorers.weights import load_strictly, read_state

__all__ = [
    "Inflation",
    "fitted_in_time",
    "inflate_checkpoint",
    "inflated",
    "of_pictures",
    "video_options",
]

Inflation = Literal["centre", "average"]
"""Where a picture's patch weights go in a tubelet of k frames: frame k // 2, or a k-th to each."""

_STEPS = "temporal_pos_embedding"
_OUR_STEPS = "patch_embed.time_embed"
"""Of the host on regions."""
_PROJECTION = "patch_embed.proj.weight"


def inflated(
    state: Mapping[str, Tensor], model: VideoVim, *, how: Inflation = "centre"
) -> dict[str, Tensor]:
    """The state of a `videomamba_*` for pictures as that of a video host.

    The patch weights get k frames; the positions in time and the head stay the video host's own.

    Source: VideoMamba starts so from ImageNet weights, with "centre".

    Args:
        state: State dict of the host for pictures, of the same width, depth and size.
        model: The video host, or it on regions; it is not changed.
        how: "centre": a step looks like its frame `k // 2`; "average": like the mean of its frames.
    Raises:
        ValueError: If the state is not of a host for pictures, or `how` is unknown.
    Example:
        >>> from dartok.models.mamba.vim import Vim
        >>> small = {"img_size": 32, "embed_dim": 16, "depth": 1}
        >>> model = VideoVim(num_frames=4, tubelet_size=2, **small)
        >>> inflated(Vim(**small).state_dict(), model)["patch_embed.proj.weight"].shape
        torch.Size([16, 3, 2, 16, 16])
    """
    one_of("how", how, Inflation)
    flat = state.get(_PROJECTION)
    if flat is None or flat.ndim != 4:
        got = "none" if flat is None else f"one of shape {tuple(flat.shape)}"
        raise ValueError(
            f"state must be of a videomamba_* for pictures, with a {_PROJECTION} (D, C, h, w), got "
            f"{got}; load a video checkpoint with dartok.create_model"
        )
    frames = tubelet_of(model.patch_embed.proj)
    deep = flat.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
    if how == "centre":
        deep = torch.zeros_like(deep)
        deep[:, :, frames // 2] = flat
    own = {key: value for key, value in _official(model).items() if _is_own(key)}
    others = {key: value for key, value in state.items() if not _is_own(key)}
    return {**others, _PROJECTION: deep, **own}


def inflate_checkpoint(model: VideoVim, path: str | Path, *, how: Inflation = "centre") -> None:
    """Load a checkpoint of a `videomamba_*` for pictures into a video host, as `inflated` says.

    Args:
        model: The video host, of the same width, depth and size.
        path: As of `dartok.create_model(checkpoint=...)`.
        how: "centre" or "average".
    Raises:
        ValueError: If the file cannot be read, is of a host for clips, or naming the entries that
            do not fit; then nothing is changed.
    """
    state = inflated(read_state(path), model, how=how)
    load_strictly(model, state, source=f"checkpoint {path} inflated")


def fitted_in_time(
    state: Mapping[str, Tensor], num_steps: int, *, source: str
) -> dict[str, Tensor]:
    """An official state with positions in time of `num_steps` steps; says once if it resampled.

    Args:
        state: State dict of a video host.
        num_steps: Steps of the model's clips.
        source: What the notice calls the state.
    Example:
        >>> import warnings
        >>> host = VideoVim(img_size=32, num_frames=4, embed_dim=16, depth=1)
        >>> with warnings.catch_warnings(action="ignore"):
        ...     state = fitted_in_time(host.state_dict(), 8, source="a.pth")
        >>> state["temporal_pos_embedding"].shape
        torch.Size([1, 8, 16])
    """
    found = state.get(_STEPS)
    if found is None or found.ndim != 3 or found.shape[1] == num_steps:
        return dict(state)
    say_once(
        f"{source}: positions in time of {found.shape[1]} steps are resampled to {num_steps}; "
        f"num_frames={video_options(state).get('num_frames')} keeps them"
    )
    return {**state, _STEPS: resampled_in_time(found, num_steps)}


def video_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The options of `VideoVim` that a checkpoint tells: frames of a clip and of a tubelet.

    Example:
        >>> host = VideoVim(img_size=32, num_frames=6, tubelet_size=2, embed_dim=16, depth=1)
        >>> video_options(host.state_dict())
        {'num_frames': 6, 'tubelet_size': 2}
    """
    weight, steps = state.get(_PROJECTION), state.get(_STEPS)
    if weight is None or steps is None or weight.ndim != 5 or steps.ndim != 3:
        return {}
    frames = weight.shape[2]
    return {"num_frames": steps.shape[1] * frames, "tubelet_size": frames}


def of_pictures(state: Mapping[str, Tensor]) -> bool:
    """Whether a state is of a `videomamba_*` for pictures.

    Example:
        >>> of_pictures({"patch_embed.proj.weight": torch.zeros(8, 3, 16, 16)})
        True
    """
    weight = state.get(_PROJECTION)
    return weight is not None and weight.ndim == 4 and _STEPS not in state


def _official(model: VideoVim) -> dict[str, Tensor]:
    """Its state, with the positions in time under their official name."""
    state = dict(model.state_dict())
    if _OUR_STEPS in state:
        state[_STEPS] = state.pop(_OUR_STEPS).transpose(1, 2)
    return state


def _is_own(key: str) -> bool:
    return key == _STEPS or key.startswith("head.")
