"""What models of transformers call the parts that the tokenizer takes over."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dartok.models.families.parts import Parts
from dartok.models.families.timm_vit import position_map

__all__ = ["Layout", "pair", "parts_of", "position_table", "prefix_of", "whole_grid"]


class Layout(NamedTuple):
    """Names in the `embeddings` of a host."""

    patches: str = "patch_embeddings"
    """The patch embedding: a convolution, or a module that holds one as `projection`."""
    prefix: tuple[str, ...] = ("cls_token",)
    """Tokens before the patches' that have a position, in order."""
    registers: tuple[str, ...] = ()
    """Tokens between those and the patches' that have none."""
    norm: str | None = None
    """What follows the projection."""
    kept: tuple[str, ...] = ()
    """Settings that the host reads from its `embeddings`."""
    has_positions: bool = True
    """Whether the host adds a position to each token."""


def parts_of(host: Any, layout: Layout) -> Parts:
    """The parts of a host whose `embeddings` follow a layout.

    Raises:
        ValueError: If it ignores a border of the picture or its positions are no map.
    """
    name, embeddings = type(host).__name__, host.embeddings
    patches = getattr(embeddings, layout.patches)
    proj = getattr(patches, "projection", patches)
    image_px = _image_px(host, patches)
    grid = whole_grid(name, image_px, proj.kernel_size)
    positions = None
    if layout.has_positions:
        num_prefix = sum(token.shape[1] for token in _tokens(embeddings, layout.prefix))
        positions = position_map(name, position_table(host), num_prefix, grid)
    norm = None if layout.norm is None else getattr(embeddings, layout.norm)
    return Parts(proj, norm, positions, image_px)


def prefix_of(host: Any, layout: Layout) -> nn.Parameter | None:
    """Class token, registers and the like as one parameter `(1, prefix, D)`, positions added."""
    first = _tokens(host.embeddings, layout.prefix)
    tokens = [*first, *_tokens(host.embeddings, layout.registers)]
    if not tokens:
        return None
    folded = torch.cat([token.detach() for token in tokens], dim=1)
    if layout.has_positions:
        num_prefix = sum(token.shape[1] for token in first)
        folded[:, :num_prefix] += position_table(host).detach()[:, :num_prefix]
    learns = getattr(host.embeddings, (layout.prefix + layout.registers)[0]).requires_grad
    return nn.Parameter(folded, requires_grad=learns)


def position_table(host: Any) -> Tensor:
    """The learnt positions of a host, `(1, prefix + patches, D)`.

    Raises:
        ValueError: If it keeps none.
    """
    for place in ("position_embeddings", "position_embedding"):
        table = getattr(host.embeddings, place, None)
        if isinstance(table, nn.Embedding):
            # Not a view of the graph: whether the table learns must show under `no_grad` too.
            return table.weight.detach().unsqueeze(0).requires_grad_(table.weight.requires_grad)
        if isinstance(table, Tensor):
            return table
    raise ValueError(
        f"adapt cannot carry over {type(host).__name__}: its embeddings compute positions from the "
        "size of the picture instead of keeping one for each patch"
    )


def pair(size: int | Iterable[int]) -> tuple[int, int]:
    """Height and width of what transformers configures as one number or two.

    Example:
        >>> pair(224), pair([224, 448])
        ((224, 224), (224, 448))
    """
    if isinstance(size, int):
        return size, size
    height, width = size
    return height, width


def whole_grid(name: str, image_px: tuple[int, int], patch_px: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a host's patches.

    Raises:
        ValueError: If the host ignores a border of its pictures: regions cover all of them.
    """
    rows, columns = image_px[0] // patch_px[0], image_px[1] // patch_px[1]
    whole = (rows * patch_px[0], columns * patch_px[1])
    if whole != image_px:
        size = whole[0] if whole[0] == whole[1] else whole
        raise ValueError(
            f"adapt cannot carry over {name} at {image_px} px: it ignores the border beyond its "
            f"last {patch_px} px patch; load it with image_size={size}, and give it such pictures"
        )
    return rows, columns


def _tokens(embeddings: Any, names: tuple[str, ...]) -> list[Tensor]:
    tokens = [getattr(embeddings, name) for name in names]
    return [token.reshape(1, -1, token.shape[-1]) for token in tokens]


def _image_px(host: Any, patches: Any) -> tuple[int, int]:
    for owner in (patches, host.embeddings):
        if hasattr(owner, "image_size"):
            return pair(owner.image_size)
    return pair(host.config.image_size)
