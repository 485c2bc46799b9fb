"""timm's `VisionTransformer` and its distilled DeiT."""

import copy

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dartok.models.families.parts import Family, Parts, check_whole_patches
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.vit import HOST_CLASSES, RegionHost

__all__ = ["FAMILIES", "attach", "plain_parts", "position_map", "share"]


def plain_parts(host: nn.Module, positions: Tensor | None) -> Parts:
    """The parts of a timm host whose `patch_embed` is a plain `PatchEmbed`.

    Raises:
        ValueError: If it is another kind of embedding, or ignores a border of the picture.
    """
    name, embed = type(host).__name__, host.patch_embed
    if type(embed) is not PatchEmbed:
        raise ValueError(
            f"adapt cannot carry over {name}: its patch_embed is a {type(embed).__name__}, not a "
            "plain PatchEmbed of patches side by side"
        )
    check_whole_patches(name, embed.img_size, embed.patch_size)
    return Parts(embed.proj, embed.norm, positions, embed.img_size)


def position_map(
    name: str, positions: Tensor, num_prefix: int, grid_size: tuple[int, int]
) -> Tensor:
    """Positions `(1, prefix + patches, D)` as a map `(1, D, rows, columns)` of the patches alone.

    Raises:
        ValueError: If they are not one for each cell of the grid.
    """
    rows, columns = grid_size
    patches = positions.detach()[:, num_prefix:]
    if patches.shape[1] != rows * columns:
        raise ValueError(
            f"adapt cannot carry over {name}: it has {patches.shape[1]} patch "
            f"positions for a grid of {rows} x {columns}"
        )
    return (
        patches.transpose(1, 2)
        .unflatten(2, (rows, columns))
        .clone(memory_format=torch.contiguous_format)
    )


def share(host: nn.Module, cls: type[nn.Module]) -> nn.Module:
    """A model of class `cls` with the host's own parts and settings: the same parameters.

    Parts can be exchanged in one without changing the other.
    """
    model = cls.__new__(cls)
    for name, value in vars(host).items():
        shared = copy.copy(value) if isinstance(value, dict | list | set) else value
        model.__dict__[name] = shared
    return model


def attach(host: VisionTransformer, embed: RegionPatchEmbed) -> RegionHost:
    """The host's blocks behind `embed`, in a new model; the host is not changed.

    The positions of the prefix tokens are folded into the tokens themselves: then `pos_embed` can
    be None, and the tokenizer owns the positions of the patches.
    """
    model = share(host, HOST_CLASSES[type(host)])
    assert isinstance(model, RegionHost)
    model.patch_embed = embed
    if host.pos_embed is not None and not host.no_embed_class:
        _fold_prefix_positions(host, model)
    model.pos_embed = None
    # The tokenizer takes any size and returns a flat sequence; timm declares the name as final.
    model.__dict__["dynamic_img_size"] = False
    return model


def _fold_prefix_positions(host: VisionTransformer, model: RegionHost) -> None:
    assert host.pos_embed is not None
    names = [name for name in ("cls_token", "dist_token", "reg_token") if _has(host, name)]
    lengths = [getattr(host, name).shape[1] for name in names]
    prefix = host.pos_embed.detach()[:, : sum(lengths)].split(lengths, dim=1)
    for name, position in zip(names, prefix, strict=True):
        token = getattr(host, name)
        folded = nn.Parameter(token.detach() + position, requires_grad=token.requires_grad)
        setattr(model, name, folded)


def _has(host: nn.Module, name: str) -> bool:
    return getattr(host, name, None) is not None


class _TimmViT:
    def take_apart(self, host: nn.Module) -> Parts:
        assert isinstance(host, VisionTransformer)
        positions = None
        parts = plain_parts(host, positions)
        if host.pos_embed is not None:
            prefix = 0 if host.no_embed_class else host.num_prefix_tokens
            name, grid = type(host).__name__, host.patch_embed.grid_size
            parts = parts._replace(positions=position_map(name, host.pos_embed, prefix, grid))
        return parts

    def put_together(self, host: nn.Module, embed: RegionPatchEmbed) -> nn.Module:
        assert isinstance(host, VisionTransformer)
        if host.pos_embed is not None and embed.pos_embed is not None:
            embed.pos_embed.requires_grad_(host.pos_embed.requires_grad)
        return attach(host, embed)

    def features(self, model: nn.Module, images: Tensor) -> Tensor:
        assert isinstance(model, VisionTransformer)
        return model.forward_features(images)


FAMILIES: dict[type[nn.Module], Family] = dict.fromkeys(HOST_CLASSES, _TimmViT())
"""Class of a host, and what knows it."""
