"""Models by name: numbers only, so that listing them costs nothing."""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AUTHORS_PRESETS",
    "DARVIM_PRESETS",
    "DARVIT_PRESETS",
    "PRESETS",
    "VIM_PRESETS",
    "AuthorsPreset",
    "DarvimPreset",
    "DarvitPreset",
    "Preset",
    "VimPreset",
]


@dataclass(frozen=True, kw_only=True)
class AuthorsPreset:
    """What tells the variants of DART's authors apart."""

    embed_dim: int
    scorer: str
    num_tokens: int = 196


@dataclass(frozen=True, kw_only=True)
class DarvitPreset(AuthorsPreset):
    """A DeiT with DART."""

    num_heads: int
    depth: int = 12

    @property
    def summary(self) -> str:
        """One line for lists."""
        host = {192: "DeiT-Ti", 384: "DeiT-S"}[self.embed_dim]
        return f"{host}, {self.scorer}, 448 px"


@dataclass(frozen=True, kw_only=True)
class DarvimPreset(AuthorsPreset):
    """A Vision Mamba with DART."""

    depth: int = 24

    @property
    def summary(self) -> str:
        """One line for lists."""
        host = {192: "Vim-Ti", 384: "Vim-S"}[self.embed_dim]
        return f"{host}, {self.scorer}, 448 px"


@dataclass(frozen=True, kw_only=True)
class VimPreset:
    """A Vision Mamba on its fixed grid of 224 px: a host for `dartok.adapt`."""

    title: str
    embed_dim: int
    depth: int = 24
    patch_stride: int = 16
    class_token: Literal["middle", "first"] = "middle"
    merge: Literal["mean", "sum"] = "mean"

    @property
    def num_tokens(self) -> int:
        """Patches of the grid, of 16 px each."""
        return ((224 - 16) // self.patch_stride + 1) ** 2

    @property
    def summary(self) -> str:
        """One line for lists."""
        stride = "" if self.patch_stride == 16 else f", a patch every {self.patch_stride} px"
        return f"{self.title}, fixed grid, 224 px{stride}"


Preset = DarvitPreset | DarvimPreset | VimPreset

DARVIT_PRESETS = {
    "darvit_tiny": DarvitPreset(embed_dim=192, num_heads=3, scorer="mobilenetv3_small"),
    "darvit_tiny_v2": DarvitPreset(embed_dim=192, num_heads=3, scorer="mobilenetv3_small_v2"),
    "darvit_tiny_121p": DarvitPreset(
        embed_dim=192, num_heads=3, scorer="mobilenetv3_small", num_tokens=121
    ),
    "darvit_sm": DarvitPreset(embed_dim=384, num_heads=6, scorer="mobilenetv3_large"),
    "darvit_sm_144p": DarvitPreset(
        embed_dim=384, num_heads=6, scorer="mobilenetv3_large", num_tokens=144
    ),
    "darvit_sm_288p": DarvitPreset(
        embed_dim=384, num_heads=6, scorer="mobilenetv3_large", num_tokens=288
    ),
    "darvit_sm_392p": DarvitPreset(
        embed_dim=384, num_heads=6, scorer="mobilenetv3_large", num_tokens=392
    ),
}
"""The authors' vision transformers. Models that differ only in `num_tokens` share one layout."""

DARVIM_PRESETS = {
    "darvim_tiny": DarvimPreset(embed_dim=192, scorer="mobilenetv3_small_v2"),
    "darvim_tiny_2seq": DarvimPreset(embed_dim=192, scorer="mobilenetv3_small_v2", num_tokens=392),
    "darvim_sm": DarvimPreset(embed_dim=384, scorer="mobilenetv3_large_v2"),
    "darvim_sm_2seq": DarvimPreset(embed_dim=384, scorer="mobilenetv3_large_v2", num_tokens=392),
}
"""The authors' Vision Mambas; "2seq" has twice the tokens."""

VIM_PRESETS = {
    "vim_tiny": VimPreset(title="Vim-Ti", embed_dim=192),
    "vim_tiny_stride8": VimPreset(title="Vim-Ti+", embed_dim=192, patch_stride=8),
    "vim_small": VimPreset(title="Vim-S", embed_dim=384),
    "vim_small_stride8": VimPreset(title="Vim-S+", embed_dim=384, patch_stride=8),
    "vim_base": VimPreset(title="Vim-B", embed_dim=768),
    "videomamba_tiny": VimPreset(
        title="VideoMamba-Ti", embed_dim=192, class_token="first", merge="sum"
    ),
    "videomamba_small": VimPreset(
        title="VideoMamba-S", embed_dim=384, class_token="first", merge="sum"
    ),
    "videomamba_middle": VimPreset(
        title="VideoMamba-M", embed_dim=576, depth=32, class_token="first", merge="sum"
    ),
}
"""Vision Mambas of others in their official layouts, without regions."""

AUTHORS_PRESETS: dict[str, DarvitPreset | DarvimPreset] = {**DARVIT_PRESETS, **DARVIM_PRESETS}
"""All models of DART's authors."""

PRESETS: dict[str, Preset] = {**AUTHORS_PRESETS, **VIM_PRESETS}
"""Name, and what it means."""
