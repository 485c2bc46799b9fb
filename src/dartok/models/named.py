"""Build a model by its name."""

from typing import Any

from dartok.models.darmt import build_darmt, rmt_options
from dartok.models.darvim import build_darvim
from dartok.models.darvit import build_darvit
from dartok.models.mamba.region_vim import RegionVim
from dartok.models.mamba.video import VideoVim
from dartok.models.mamba.vim import Vim
from dartok.models.presets import (
    PRESETS,
    DarmtPreset,
    DarvimPreset,
    DarvitPreset,
    VideoPreset,
    VimPreset,
)
from dartok.models.rmt.host import RMT
from dartok.models.vit import RegionHost

__all__ = ["NamedModel", "build_named"]

NamedModel = RegionHost | RegionVim | Vim | RMT


def build_named(name: str, **options: Any) -> NamedModel:
    """The model of a preset, with random weights; options as its builder or class takes them.

    Raises:
        TypeError: If an option is unknown there.
    Example:
        >>> type(build_named("vim_tiny", num_classes=10)).__name__
        'Vim'
    """
    preset = PRESETS[name]
    if isinstance(preset, DarvitPreset):
        return build_darvit(preset, **options)
    if isinstance(preset, DarvimPreset):
        return build_darvim(preset, **options)
    if isinstance(preset, VimPreset):
        return _build_vim(preset, **options)
    if isinstance(preset, DarmtPreset):
        return build_darmt(preset, **options)
    return RMT(**rmt_options(preset) | options)


def _build_vim(preset: VimPreset, **options: Any) -> Vim:
    of_preset: dict[str, Any] = {
        "embed_dim": preset.embed_dim,
        "depth": preset.depth,
        "class_token": preset.class_token,
        "merge": preset.merge,
    }
    if isinstance(preset, VideoPreset):
        of_preset |= {"num_frames": preset.num_frames, "num_classes": preset.num_classes}
        return VideoVim(**of_preset | options)
    return Vim(**of_preset | {"patch_stride": preset.patch_stride} | options)
