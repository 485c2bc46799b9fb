"""`reshape`: DART-Grid before any model that takes a picture, the same function at the start."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dartok.core.names import whole_number
from dartok.core.reshaper import GridReshaper
from dartok.core.scoring import Scored
from dartok.models.host_maps import tensors_in
from dartok.models.reshaped_hosts import ReshapedModel, ReshapedTimm
from dartok.models.same_function import (
    comparing,
    largest_difference,
    noise,
    relative_difference,
)
from dartok.scorers.tokenizer import as_scorer

__all__ = ["reshape"]

_USUAL_PX = (224, 224)
_PX_PER_CELL = 16


def reshape(
    backbone: nn.Module,
    *,
    grid: int | tuple[int, int] | None = None,
    size_px: int | tuple[int, int] | None = None,
    scorer: str | nn.Module = "conv",
    scorer_weights: str | Path | None = None,
    oversample: int = 1,
    min_region: float | None = None,
    max_region: float | None = None,
    strength: float = 0.0,
) -> ReshapedModel:
    """Any model of pictures behind a warp that enlarges what matters: DART-Grid in one call.

    ConvNeXt, Swin, ResNet, RegNet or ViT of timm, classifiers and `features_only` models alike, and
    any module of your own that maps images to logits or maps. At strength 0 the warp is a plain
    resize, and for pictures of the size that the model gets no change at all; that the result is
    then the same function is checked here on a random picture, and a model for which it is not is
    refused by name. Raise the strength with `dartok.set_strength`, in steps while fine-tuning.

    The result holds the model itself, as `host`, with its parameters; `copy.deepcopy` it first to
    train both. It takes pictures of any size. What it gives lies in the warped picture: see
    `ReshapedModel` for the way back, of features, logits and boxes.

    Source: DART, arXiv:2506.10390, DART-Grid; see `GridReshaper`.

    Args:
        backbone: The model.
        grid: Rows and columns of cells, or both; None for one to 16 px of the model's usual size.
        size_px: Height and width, or both, of the picture that the model gets; None for those of
            the images, or for the model's own where it takes no other, as Swin.
        scorer: A name that `dartok.scorers.create_scorer` knows, or a module that maps images to
            positive scores `(B, h, w)`.
        scorer_weights: For a scorer by name: None, "imagenet" or a file.
        oversample: Samples averaged per pixel and axis, times those that a reduction needs.
        min_region: Least height of a row and width of a column, as a share of the picture's.
        max_region: Largest, likewise, so that nothing above a stated size is reduced away.
        strength: From 0, a plain resize, to 1, the full method.
    Returns:
        The reshaped model, in the model's mode, dtype and device: a `ReshapedTimm`, with timm's
        methods, of a model of timm.
    Raises:
        ValueError: If the model cannot take such pictures or changes its function, or an option is
            out of range.
    Example:
        >>> import timm
        >>> model = reshape(timm.create_model("test_convnext"), strength=1.0).eval()
        >>> images = torch.randn(1, 3, 96, 160)
        >>> model(images).shape
        torch.Size([1, 1000])
        >>> [tuple(one.shape) for one in model.dense_features(images, [(24, 40), (12, 20)])]
        [(1, 48, 24, 40), (1, 64, 12, 20)]
    """
    _check_backbone(backbone)
    own_px = _own_size(backbone)
    fixed = own_px if _takes_one_size(backbone) else None
    usual_px = own_px or _USUAL_PX
    reshaper = GridReshaper(
        scorer=as_scorer(scorer, scorer_weights, _num_channels(backbone)),
        grid=_cells_of(usual_px) if grid is None else _both("grid", grid),
        size_px=fixed if size_px is None else _both("size_px", size_px),
        oversample=oversample,
        min_region=min_region,
        max_region=max_region,
        strength=strength,
    )
    of_timm = callable(getattr(backbone, "forward_features", None))
    like = next(backbone.parameters(), torch.zeros(()))
    model = (ReshapedTimm if of_timm else ReshapedModel)(backbone, reshaper.to(like))
    _check_same_function(backbone, model, reshaper.size_px or usual_px, like)
    return model


def _check_backbone(backbone: nn.Module) -> None:
    if not isinstance(backbone, nn.Module):
        raise ValueError(f"backbone must be an nn.Module, got {backbone!r}; give a model itself")
    name = type(backbone).__name__
    if any(isinstance(module, Scored) for module in backbone.modules()):
        raise ValueError(f"backbone is adapted already, got {name}; reshape the original model")
    if any(parameter.is_meta for parameter in backbone.parameters()):
        raise ValueError(f"reshape cannot check {name} on the meta device: load it first")


def _check_same_function(
    host: nn.Module, model: ReshapedModel, size_px: tuple[int, int], like: Tensor
) -> None:
    images = noise((_num_channels(host), *size_px)).to(like)
    with comparing(like, model), model.reshaper.neutral():
        expected, actual = _features(host, images), _features(model, images)
    difference = relative_difference(expected, actual)
    if not difference <= largest_difference(like.dtype):
        raise ValueError(
            f"reshape cannot be put in front of {type(host).__name__}: on the even grid its "
            f"features differ by {difference:.1e} (relative), more than "
            f"{largest_difference(like.dtype):.0e}; it may not be a function of the picture alone"
        )


def _features(model: nn.Module, images: Tensor) -> list[Tensor]:
    """What to compare: a head may start at zero."""
    name = type(model).__name__
    compute = getattr(model, "forward_features", model)
    try:
        found = tensors_in(compute(images))
    except (RuntimeError, ValueError, TypeError, AssertionError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} cannot take a picture {tuple(images.shape)} ({reason}); "
            "give the size that it takes as size_px"
        ) from error
    if not found:
        raise ValueError(f"backbone must map images to tensors, got none from {name}")
    return found


def _own_size(backbone: nn.Module) -> tuple[int, int] | None:
    """Height and width in pixels of the pictures that a model is meant for, if it says so."""
    sizes = (getattr(module, "img_size", None) for module in backbone.modules())
    known: Any = next((size for size in sizes if isinstance(size, tuple | list)), None)
    if known is None:
        known = (_settings(backbone).get("input_size") or ())[1:]
    return (int(known[0]), int(known[1])) if len(known) == 2 else None


def _takes_one_size(backbone: nn.Module) -> bool:
    return bool(_settings(backbone).get("fixed_input_size"))


def _settings(backbone: nn.Module) -> Mapping[str, Any]:
    return getattr(backbone, "pretrained_cfg", None) or {}


def _num_channels(backbone: nn.Module) -> int:
    first = (module for module in backbone.modules() if isinstance(module, nn.Conv2d))
    return next((module.in_channels for module in first), 3)


def _cells_of(size_px: tuple[int, int]) -> tuple[int, int]:
    return max(1, round(size_px[0] / _PX_PER_CELL)), max(1, round(size_px[1] / _PX_PER_CELL))


def _both(option: str, sides: int | tuple[int, int]) -> tuple[int, int]:
    if isinstance(sides, tuple | list):
        return sides  # the reshaper looks at it
    return (whole_number(option, sides),) * 2
