"""Our own `Vim`: Vision Mamba, and VideoMamba for images and clips."""

import torch
from torch import Tensor, nn

from dartok.models.families.parts import Family, Parts
from dartok.models.families.timm_vit import plain_parts, share
from dartok.models.mamba.overlapping import OverlappingPatchEmbed
from dartok.models.mamba.region_video import RegionVideoVim
from dartok.models.mamba.region_vim import RegionVim
from dartok.models.mamba.sequence import class_first
from dartok.models.mamba.video import VideoVim
from dartok.models.mamba.vim import Vim
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["FAMILIES", "attach_vim", "vim_parts"]


def attach_vim(host: Vim, embed: RegionPatchEmbed) -> RegionVim:
    """The host's blocks behind `embed`, in a new model; the host is not changed.

    The class token's position is folded into the class token; the tokenizer owns the others.
    """
    model = share(host, RegionVideoVim if isinstance(host, VideoVim) else RegionVim)
    assert isinstance(model, RegionVim)
    model.patch_embed = embed
    if host.pos_embed is not None:
        position = _positions(host)[:, :1]
        token = host.cls_token
        folded = nn.Parameter(token.detach() + position, requires_grad=token.requires_grad)
        model.cls_token, model.pos_embed = folded, None
    if isinstance(model, VideoVim):
        model.temporal_pos_embedding = None
    return model


def _positions(host: Vim) -> Tensor:
    """All positions, the class token's first."""
    assert host.pos_embed is not None
    return class_first(host.pos_embed.detach(), host.class_position)


def vim_parts(host: Vim) -> Parts:
    """The parts of a host that the tokenizer takes over.

    Raises:
        ValueError: If its patches overlap: regions lie side by side.
    """
    if isinstance(host.patch_embed, OverlappingPatchEmbed):
        patch_px, stride_px = host.patch_embed.patch_size[0], host.patch_embed.proj.stride[0]
        raise ValueError(
            f"adapt cannot carry over {type(host).__name__}: its patches of {patch_px} px overlap "
            f"at a stride of {stride_px} px, and regions lie side by side; use a host of stride "
            f"{patch_px} px"
        )
    patches = _positions(host)[:, 1:].transpose(1, 2)
    grid = patches.unflatten(2, host.patch_embed.grid_size)
    grid = grid.clone(memory_format=torch.contiguous_format)
    return _video_parts(host, grid) if isinstance(host, VideoVim) else plain_parts(host, grid)


def _video_parts(host: VideoVim, positions: Tensor) -> Parts:
    embed, steps = host.patch_embed, host.temporal_pos_embedding
    assert steps is not None
    return Parts(
        proj=embed.proj,
        norm=None,
        positions=positions,
        image_px=embed.img_size,
        time_positions=steps.detach().transpose(1, 2).clone(memory_format=torch.contiguous_format),
        num_frames=embed.num_frames,
    )


class _Vim:
    def take_apart(self, host: nn.Module) -> Parts:
        assert isinstance(host, Vim)
        return vim_parts(host)

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        assert isinstance(host, Vim)
        if host.pos_embed is not None and embed.pos_embed is not None:
            embed.pos_embed.requires_grad_(host.pos_embed.requires_grad)
        steps = host.temporal_pos_embedding if isinstance(host, VideoVim) else None
        if steps is not None and embed.time_embed is not None:
            embed.time_embed.requires_grad_(steps.requires_grad)
        return attach_vim(host, embed)

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(model, Vim)
        return model.forward_features(images)


FAMILIES: dict[type[nn.Module], Family] = dict.fromkeys((Vim, VideoVim), _Vim())
"""Class of a host, and what knows it."""
