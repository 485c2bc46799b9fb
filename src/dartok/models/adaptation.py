"""`adapt`: put regions on a timm ViT, as the same function at the start, or refuse by name."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from dartok.core.partition import PartitionName
from dartok.core.precision import without_autocast
from dartok.core.sampling import SamplingName
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.vit import HOST_CLASSES, RegionHost
from dartok.scorers.tokenizer import as_scorer

__all__ = ["adapt", "attach"]

_LARGEST_DIFFERENCE = {torch.float64: 1e-5, torch.float32: 1e-5}
"""Relative, between host and adapted model at the start; half precision rounds far above it."""

_LARGEST_DIFFERENCE_HALF = 5e-2


def adapt(
    host: nn.Module,
    *,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    scorer: str | nn.Module = "conv",
    scorer_weights: str | Path | None = None,
    partition: PartitionName = "flow",
    sampling: SamplingName = "centred",
    oversample: int = 1,
    strength: float = 0.0,
) -> RegionHost:
    """A timm ViT whose patches are regions: any image size, any number of tokens.

    The result is a new model of the host's class that shares the host's blocks and head; the host
    itself is left as it was (`copy.deepcopy` it first to train both). At strength 0, the host's own
    image size and number of tokens, the result is the same function; this is checked here on a
    random picture, and a host that cannot be carried over is refused by name. Raise the strength
    with `dartok.set_strength`: in steps while fine-tuning a pretrained host, or to 1 at once when
    training from scratch.

    Class token, registers, `no_embed_class`, LayerScale, distilled DeiT and every pooling of timm's
    `VisionTransformer` are carried over.

    Args:
        host: A `VisionTransformer` or `VisionTransformerDistilled` of timm.
        num_tokens: Regions per image; None for the host's own count.
        num_rows: Rows of regions; None for about square regions.
        scorer: A name that `dartok.scorers.create_scorer` knows, or a module that maps images to
            positive scores `(B, h, w)`.
        scorer_weights: For a scorer by name: None, "imagenet" or a file.
        partition: "flow" or "grid".
        sampling: "centred" or "corner".
        oversample: Samples averaged per patch pixel and axis.
        strength: From 0, the fixed grid, to 1, the full method.
    Returns:
        The adapted model, with timm's methods, in the host's mode, dtype and device.
    Raises:
        ValueError: If the host cannot be carried over, or an option is out of range.
    Example:
        >>> import timm
        >>> host = timm.create_model("vit_tiny_patch16_224")
        >>> model = adapt(host, num_tokens=50)
        >>> model(torch.rand(1, 3, 96, 160)).shape
        torch.Size([1, 1000])
    """
    checked = _check_host(host)
    embed = RegionPatchEmbed(
        img_size=checked.patch_embed.img_size,
        scorer=as_scorer(scorer, scorer_weights, checked.patch_embed.proj.in_channels),
        proj=checked.patch_embed.proj,
        norm=checked.patch_embed.norm,
        positions=_position_map(checked),
        num_tokens=checked.patch_embed.num_patches if num_tokens is None else num_tokens,
        num_rows=num_rows,
        partition=partition,
        sampling=sampling,
        oversample=oversample,
        strength=strength,
    )
    model = attach(checked, embed)
    _check_same_function(checked, model)
    return model


def attach(host: VisionTransformer, embed: RegionPatchEmbed) -> RegionHost:
    """The host's blocks behind `embed`, in a new model; the host is not changed.

    The positions of the prefix tokens are folded into the tokens themselves: then `pos_embed` can
    be None, and the tokenizer owns the positions of the patches.
    """
    cls = HOST_CLASSES[type(host)]
    model = cls.__new__(cls)
    for name, value in vars(host).items():
        shared = copy.copy(value) if isinstance(value, dict | list | set) else value
        model.__dict__[name] = shared
    embed.scorer.to(host.patch_embed.proj.weight)
    model.patch_embed = embed.to(host.patch_embed.proj.weight.device).train(host.training)
    if host.pos_embed is not None and embed.pos_embed is not None:
        embed.pos_embed.requires_grad_(host.pos_embed.requires_grad)
    if host.pos_embed is not None and not host.no_embed_class:
        names = [name for name in ("cls_token", "dist_token", "reg_token") if _has(host, name)]
        lengths = [getattr(host, name).shape[1] for name in names]
        prefix = host.pos_embed.detach()[:, : sum(lengths)].split(lengths, dim=1)
        for name, position in zip(names, prefix, strict=True):
            token = getattr(host, name)
            folded = nn.Parameter(token.detach() + position, requires_grad=token.requires_grad)
            setattr(model, name, folded)
    model.pos_embed = None
    # The tokenizer takes any size and returns a flat sequence; timm declares the name as final.
    model.__dict__["dynamic_img_size"] = False
    return model


def _has(host: nn.Module, name: str) -> bool:
    return getattr(host, name, None) is not None


def _check_host(host: nn.Module) -> VisionTransformer:
    name = type(host).__name__
    if isinstance(host, RegionHost):
        raise ValueError(f"host is adapted already, got {name}; adapt the original model")
    if type(host) not in HOST_CLASSES:
        known = ", ".join(f"timm's {cls.__name__}" for cls in HOST_CLASSES)
        raise ValueError(f"adapt cannot carry over {name}: it knows models of {known}")
    assert isinstance(host, VisionTransformer)
    embed = host.patch_embed
    if type(embed) is not PatchEmbed:
        raise ValueError(
            f"adapt cannot carry over {name}: its patch_embed is a {type(embed).__name__}, not a "
            "plain PatchEmbed of patches side by side"
        )
    if embed.proj.weight.is_meta:
        raise ValueError(f"adapt cannot carry over {name} on the meta device: load it first")
    if any(side % patch for side, patch in zip(embed.img_size, embed.patch_size, strict=True)):
        whole = tuple(s // p * p for s, p in zip(embed.img_size, embed.patch_size, strict=True))
        raise ValueError(
            f"adapt cannot carry over {name} at {embed.img_size} px: it ignores the border beyond "
            f"its last {embed.patch_size} px patch; call host.set_input_size({whole}) first"
        )
    return host


def _position_map(host: VisionTransformer) -> Tensor | None:
    """The patch positions as a map `(1, D, rows, columns)`, without the prefix tokens'."""
    if host.pos_embed is None:
        return None
    prefix = 0 if host.no_embed_class else host.num_prefix_tokens
    rows, columns = host.patch_embed.grid_size
    patches = host.pos_embed.detach()[:, prefix:]
    if patches.shape[1] != rows * columns:
        raise ValueError(
            f"adapt cannot carry over {type(host).__name__}: it has {patches.shape[1]} patch "
            f"positions for a grid of {rows} x {columns}"
        )
    return (
        patches.transpose(1, 2)
        .unflatten(2, (rows, columns))
        .clone(memory_format=torch.contiguous_format)
    )


@torch.no_grad()
def _check_same_function(host: VisionTransformer, model: RegionHost) -> None:
    weight = host.patch_embed.proj.weight
    generator = torch.Generator().manual_seed(0)
    shape = (1, host.patch_embed.proj.in_channels, *host.patch_embed.img_size)
    images = torch.randn(shape, generator=generator, device="cpu").to(weight)
    # On a GPU the host's convolution would round to TF32, and our matrix product would not.
    exact = torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled, allow_tf32=False)
    neutral = _neutral(model.patch_embed, host.patch_embed.num_patches)
    with exact, without_autocast(weight), _in_eval_mode(host, model), neutral:
        expected, actual = host.forward_features(images), model.forward_features(images)
    difference = float((actual - expected).norm() / expected.norm())
    largest = _LARGEST_DIFFERENCE.get(weight.dtype, _LARGEST_DIFFERENCE_HALF)
    if not difference <= largest:
        raise ValueError(
            f"adapt cannot carry over {type(host).__name__}: on the fixed grid its features differ "
            f"by {difference:.1e} (relative), more than {largest:.0e}"
        )


@contextmanager
def _in_eval_mode(*models: nn.Module) -> Iterator[None]:
    modes = {module: module.training for model in models for module in model.modules()}
    try:
        for model in models:
            model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _neutral(embed: RegionPatchEmbed, num_tokens: int) -> Iterator[None]:
    """The host's own fixed grid for a while: strength 0, its own count, one sample per pixel."""
    count, rows, oversample = embed.num_tokens, embed.num_rows, embed.oversample
    strength = embed.strength.clone()
    try:
        embed.set_num_tokens(num_tokens)
        embed.oversample = 1
        embed.strength.zero_()
        yield
    finally:
        embed.set_num_tokens(count, rows)
        embed.oversample = oversample
        embed.strength.copy_(strength)
