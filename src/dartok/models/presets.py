"""Models by name: numbers only, so that listing them costs nothing."""

from dataclasses import dataclass
from typing import Literal

__all__ = [
    "AUTHORS_PRESETS",
    "DARMT_PRESETS",
    "DARVIM_PRESETS",
    "DARVIT_PRESETS",
    "PRESETS",
    "RMT_PRESETS",
    "VIDEO_PRESETS",
    "VIM_PRESETS",
    "AuthorsPreset",
    "DarmtPreset",
    "DarvimPreset",
    "DarvitPreset",
    "Preset",
    "RmtPreset",
    "VideoPreset",
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


@dataclass(frozen=True, kw_only=True)
class VideoPreset(VimPreset):
    """A VideoMamba for clips on its fixed grid of 8 frames of 224 px: a host for `dartok.adapt`."""

    class_token: Literal["middle", "first"] = "first"
    merge: Literal["mean", "sum"] = "sum"
    num_frames: int = 8
    num_classes: int = 400
    """Of Kinetics-400, which most official checkpoints are for."""

    @property
    def num_tokens(self) -> int:
        """Patches of all frames."""
        return self.num_frames * super().num_tokens

    @property
    def summary(self) -> str:
        """One line for lists."""
        return f"{self.title} for video, fixed grid, {self.num_frames} frames of 224 px"


@dataclass(frozen=True, kw_only=True)
class RmtPreset:
    """An RMT: a hierarchical host, which sees a picture. Tuples have an entry for each stage."""

    title: str
    embed_dims: tuple[int, ...]
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    mlp_ratios: tuple[int, ...]
    decay_ranges: tuple[int, ...]
    num_factorised: int
    num_scaled: int = 0

    @property
    def num_tokens(self) -> int | None:
        """Regions of a picture; None where it is not cut."""
        return None

    @property
    def summary(self) -> str:
        """One line for lists."""
        return f"{self.title}, any size of picture"


@dataclass(frozen=True, kw_only=True)
class DarmtPreset(RmtPreset):
    """An RMT behind the authors' image reshaper."""

    scorer: str = "efficientnet_b0"

    @property
    def num_tokens(self) -> int:
        """Cells of the reshaper, 14 x 14."""
        return 196

    @property
    def summary(self) -> str:
        """One line for lists."""
        return f"{self.title} behind an image reshaper, {self.scorer}, 448 px"


Preset = DarvitPreset | DarvimPreset | VimPreset | RmtPreset

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

VIDEO_PRESETS = {
    "videomamba_tiny_video": VideoPreset(title="VideoMamba-Ti", embed_dim=192),
    "videomamba_small_video": VideoPreset(title="VideoMamba-S", embed_dim=384),
    "videomamba_middle_video": VideoPreset(title="VideoMamba-M", embed_dim=576, depth=32),
}
"""The same for clips `(B, T, C, H, W)`."""

RMT_PRESETS = {
    "rmt_t3": RmtPreset(
        title="RMT-T3",
        embed_dims=(64, 128, 256, 512),
        depths=(2, 2, 8, 2),
        num_heads=(4, 4, 8, 16),
        mlp_ratios=(3, 3, 3, 3),
        decay_ranges=(4, 4, 6, 6),
        num_factorised=2,
    ),
    "rmt_s": RmtPreset(
        title="RMT-S",
        embed_dims=(64, 128, 256, 512),
        depths=(3, 4, 18, 4),
        num_heads=(4, 4, 8, 16),
        mlp_ratios=(4, 4, 3, 3),
        decay_ranges=(4, 4, 6, 6),
        num_factorised=3,
    ),
    "rmt_m2": RmtPreset(
        title="RMT-M2",
        embed_dims=(80, 160, 320, 512),
        depths=(4, 8, 25, 8),
        num_heads=(5, 5, 10, 16),
        mlp_ratios=(4, 4, 3, 3),
        decay_ranges=(5, 5, 6, 6),
        num_factorised=3,
        num_scaled=2,
    ),
    "rmt_l6": RmtPreset(
        title="RMT-L6",
        embed_dims=(112, 224, 448, 640),
        depths=(4, 8, 25, 8),
        num_heads=(7, 7, 14, 20),
        mlp_ratios=(4, 4, 3, 3),
        decay_ranges=(6, 6, 6, 6),
        num_factorised=3,
        num_scaled=2,
    ),
}
"""RMT without regions: a hierarchical backbone."""

DARMT_PRESETS = {
    "darmt_s": DarmtPreset(**vars(RMT_PRESETS["rmt_s"])),
    "darmt_l6": DarmtPreset(**vars(RMT_PRESETS["rmt_l6"])),
}
"""The authors' RMTs, behind their image reshaper."""

AUTHORS_PRESETS: dict[str, DarvitPreset | DarvimPreset] = {**DARVIT_PRESETS, **DARVIM_PRESETS}
"""The models of DART's authors whose tokens are regions."""

PRESETS: dict[str, Preset] = {
    **AUTHORS_PRESETS,
    **VIM_PRESETS,
    **VIDEO_PRESETS,
    **RMT_PRESETS,
    **DARMT_PRESETS,
}
"""Name, and what it means."""
