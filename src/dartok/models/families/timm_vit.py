"""timm's `VisionTransformer` and its distilled DeiT."""

import copy
from typing import Any

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dartok.models.families.parts import Family, Parts, check_whole_patches
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.vit import HOST_CLASSES, RegionHost

__all__ = [
    "FAMILIES",
    "REFUSED",
    "attach",
    "fold_prefix_positions",
    "parts_with_positions",
    "plain_parts",
    "position_map",
    "share",
]


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
    fold_prefix_positions(host, model)
    # The tokenizer takes any size and returns a flat sequence; timm declares the name as final.
    model.__dict__["dynamic_img_size"] = False
    return model


def fold_prefix_positions(host: Any, model: Any) -> None:
    """Add the positions of the host's prefix tokens to the tokens themselves, in `model`.

    Then `pos_embed` of a timm host can be None in the model: the tokenizer owns the others.
    """
    if _has(host, "pos_embed") and not getattr(host, "no_embed_class", False):
        names = [name for name in ("cls_token", "dist_token", "reg_token") if _has(host, name)]
        lengths = [getattr(host, name).shape[1] for name in names]
        prefix = host.pos_embed.detach()[:, : sum(lengths)].split(lengths, dim=1)
        for name, position in zip(names, prefix, strict=True):
            token = getattr(host, name)
            folded = nn.Parameter(token.detach() + position, requires_grad=token.requires_grad)
            setattr(model, name, folded)
    model.pos_embed = None


def _has(host: Any, name: str) -> bool:
    return getattr(host, name, None) is not None


def parts_with_positions(host: Any) -> Parts:
    """The parts of a timm host, with the positions of its patches where it has some.

    Raises:
        ValueError: If the patch embedding or the positions are of another kind.
    """
    parts = plain_parts(host, None)
    if not _has(host, "pos_embed"):
        return parts
    prefix = 0 if getattr(host, "no_embed_class", False) else host.num_prefix_tokens
    name, grid = type(host).__name__, host.patch_embed.grid_size
    return parts._replace(positions=position_map(name, host.pos_embed, prefix, grid))


class _TimmViT:
    def take_apart(self, host: nn.Module) -> Parts:
        assert isinstance(host, VisionTransformer)
        return parts_with_positions(host)

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

_WINDOWS = "its attention runs in windows of a pixel grid, which regions are not"
_STAGES = "its stages merge neighbours of a pixel grid, which regions are not"
_CONVOLUTIONS = "its blocks convolve over the grid of patches, which regions are not"

REFUSED = {
    "SwinTransformer": _WINDOWS,
    "SwinTransformerV2": _WINDOWS,
    "SwinTransformerV2Cr": _WINDOWS,
    "MaxxVit": _WINDOWS,
    "GlobalContextVit": _WINDOWS,
    "Twins": _WINDOWS,
    "VOLO": _WINDOWS,
    "VisionTransformerSAM": _WINDOWS,
    "Hiera": _STAGES,
    "HieraDet": _STAGES,
    "MultiScaleVit": _STAGES,
    "PyramidVisionTransformerV2": _STAGES,
    "Nest": _STAGES,
    "PoolingVisionTransformer": _STAGES,
    "Levit": _STAGES,
    "LevitDistilled": _STAGES,
    "TinyVit": _STAGES,
    "EfficientVitMsra": _STAGES,
    "Xcit": _CONVOLUTIONS,
    "CoaT": _CONVOLUTIONS,
    "ConVit": "its attention weighs offsets on a fixed grid of patches, which regions are not",
    "TNT": "it embeds the pixels of each patch as tokens too, which a region has no fixed grid of",
    "CrossVit": "it cuts each image into two grids of patches at once",
}
"""Class, and why its models cannot be carried over."""
