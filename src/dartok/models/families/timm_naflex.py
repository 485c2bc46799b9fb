"""timm's `NaFlexVit`, for images: a projection by convolution or by patch, and its positions."""

from typing import Any

import torch
from jaxtyping import Float
from timm.models.naflexvit import NaFlexVit
from torch import Tensor, nn

from dartok.models.families.parts import Family, Parts
from dartok.models.families.timm_rotary import rotary_of
from dartok.models.families.timm_vit import share
from dartok.models.naflex import RegionNaFlexVit
from dartok.models.patch_embed import RegionPatchEmbed

__all__ = ["FAMILIES"]


class _NaFlexVit:
    def take_apart(self, host: nn.Module) -> Parts:
        assert isinstance(host, NaFlexVit)
        embeds: Any = host.embeds
        if getattr(embeds, "norm_input", None) is not None:
            raise ValueError(
                "adapt cannot carry over NaFlexVit: its norm_input is a "
                f"{type(embeds.norm_input).__name__}, which normalises the pixels of each patch"
            )
        rows, columns = _grid_size(host)
        _rotary(host)  # read here already: a refusal should come before any work
        image_px = (rows * embeds.patch_size[0], columns * embeds.patch_size[1])
        return Parts(_projection(embeds), embeds.norm, _positions(embeds), image_px)

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        assert isinstance(host, NaFlexVit)
        model: Any = share(host, RegionNaFlexVit)
        embeds: Any = share(host.embeds, type(host.embeds))
        table = embeds.pos_embed if embeds.pos_embed is not None else embeds.pos_embed_y
        if table is not None and embed.pos_embed is not None:
            embed.pos_embed.requires_grad_(table.requires_grad)
        for name in ("proj", "norm", "pos_embed", "pos_embed_y", "pos_embed_x"):
            setattr(embeds, name, None)
        model.embeds, model.patch_embed, model.rope = embeds, embed, _rotary(host)
        if model.rope is not None:
            model.rope.train(host.training)
        return model

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(model, NaFlexVit)
        features = model.forward_features(images)
        assert isinstance(features, Tensor)
        return features


def _grid_size(host: Any) -> tuple[int, int]:
    grid = host.embeds.pos_embed_grid_size
    if grid is None:
        raise ValueError(
            "adapt cannot carry over NaFlexVit: it was made without a grid, got "
            "pos_embed_grid_size=None and no img_size; create it with img_size="
        )
    return grid[0], grid[1]


def _rotary(host: Any) -> nn.Module | None:
    if host.rope is None:
        return None
    return rotary_of(type(host).__name__, host.rope, _grid_size(host))


def _projection(embeds: Any) -> nn.Conv2d:
    """A linear projection of flat patches is a convolution with its weights laid out anew."""
    if not embeds.is_linear:
        return embeds.proj
    linear, size = embeds.proj, tuple(embeds.patch_size)
    proj = nn.Conv2d(
        embeds.in_chans,
        linear.out_features,
        size,
        size,
        bias=linear.bias is not None,
        device=linear.weight.device,
        dtype=linear.weight.dtype,
    )
    if getattr(embeds, "channels_last", True):
        weight = linear.weight.detach().unflatten(1, (*size, embeds.in_chans)).permute(0, 3, 1, 2)
    else:
        weight = linear.weight.detach().unflatten(1, (embeds.in_chans, *size))
    proj.weight = nn.Parameter(weight.contiguous(), requires_grad=linear.weight.requires_grad)
    if linear.bias is not None:
        proj.bias = linear.bias
    return proj


def _positions(embeds: Any) -> Float[Tensor, "1 D rows columns"] | None:
    """Learnt positions as a map; those of rows and columns apart are added up."""
    if embeds.pos_embed is not None:
        table = embeds.pos_embed
    elif embeds.pos_embed_y is not None:
        table = embeds.pos_embed_y.unsqueeze(2) + embeds.pos_embed_x.unsqueeze(1)
    else:
        return None
    return table.detach().permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)


FAMILIES: dict[type[nn.Module], Family] = {NaFlexVit: _NaFlexVit()}
"""Class of a host, and what knows it."""
