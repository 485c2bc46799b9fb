"""Scorers by name."""

import difflib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dartok.core.notices import say_once
from dartok.scorers.detail import DetailScorer
from dartok.scorers.edges import ConvScorer, EdgeScorer, Uniform
from dartok.scorers.features import (
    TORCHVISION_FEATURES,
    FeatureScorer,
    timm_features,
    torchvision_features,
)
from dartok.scorers.heads import GatedHead, LocalHead
from dartok.scorers.motion import MotionScorer
from dartok.scorers.statistics import StatisticsName
from dartok.scorers.weights import load_strictly, read_state

__all__ = ["build_scorer", "create_scorer", "list_scorers", "say_if_random", "scorer_options"]

_GATED = "_v2"
_TIMM = "timm/"
_MOTION = "motion/"
_PIXEL_HIDDEN = 64
_SIDE_PX = 224

_NAME = "built_as"
"""Attribute of a scorer that was built by name: such a model can be saved and built again."""

_NAMES: dict[type[nn.Module], str] = {
    Uniform: "uniform",
    EdgeScorer: "edge",
    ConvScorer: "conv",
    DetailScorer: "detail",
}
"""What scorers are that were made without a name."""


def list_scorers() -> list[str]:
    """Names that `create_scorer` knows, besides `timm/<model>` for any timm feature extractor.

    Each may follow `motion/`, for clips (`MotionScorer`).

    Example:
        >>> list_scorers()[:3]
        ['conv', 'edge', 'uniform']
    """
    pretrained = [name + version for name in TORCHVISION_FEATURES for version in ("", _GATED)]
    return ["conv", "edge", "uniform", "detail", "pixels", *pretrained]


def create_scorer(
    name: str,
    *,
    weights: str | Path | None = None,
    num_channels: int = 3,
    side_px: int | None = _SIDE_PX,
    statistics: StatisticsName = "running",
) -> nn.Module:
    """A module that maps images `(B, C, H, W)` to positive scores `(B, h, w)`.

    - "conv": edge energy plus a small trainable net; the default. "edge": edge energy alone.
      "uniform": the fixed grid. "detail": deviation of the pixels, which tells busy images from
      flat ones, for `num_tokens="auto"` without training.
    - "mobilenetv3_small", "mobilenetv3_large", "mnasnet", "squeezenet", "efficientnet_b0": frozen
      torchvision features under the authors' first head; with "_v2", under their second.
    - "timm/<model>": the last feature map of a timm model, frozen, under the first head.
    - "motion/<any of these>": for clips: what a frame repeats of the one before scores low.
    - "pixels": the first head on raw pixels, the authors' scorer without a backbone.

    Args:
        name: One of the names above.
        weights: None for random weights, "imagenet" for the backbone's ImageNet weights (from the
            library's cache, or downloaded since you asked), or a file: the backbone's checkpoint,
            or the state dict of the whole scorer.
        num_channels: Channels of the images; pretrained backbones need 3.
        side_px: Side of the copy that is scored, in pixels; None for the image itself.
        statistics: How the heads standardise: see `ScoreStatistics`.
    Raises:
        ValueError: If the name is unknown or the weights do not fit it.
    Example:
        >>> import torch
        >>> create_scorer("conv")(torch.rand(1, 3, 100, 200)).shape
        torch.Size([1, 28, 28])
    """
    scorer = build_scorer(
        name, weights=weights, num_channels=num_channels, side_px=side_px, statistics=statistics
    )
    say_if_random(name, weights)
    return scorer


def say_if_random(name: str, weights: str | Path | None) -> None:
    """Say once that a scorer which is meant to be pretrained is not."""
    if weights is None and _has_backbone(name):
        say_once(
            f"scorer {name!r} starts from random weights; pass scorer_weights='imagenet' or a file"
        )


def build_scorer(
    name: str,
    *,
    weights: str | Path | None = None,
    num_channels: int = 3,
    side_px: int | None = _SIDE_PX,
    statistics: StatisticsName = "running",
) -> nn.Module:
    """`create_scorer` without its notice, for a caller that loads the weights right after."""
    _check_name(name)
    base = partial(
        _build,
        name.removeprefix(_MOTION),
        num_channels=num_channels,
        side_px=side_px,
        statistics=statistics,
    )
    scorer = _motion_scorer(base, weights) if name.startswith(_MOTION) else base(weights=weights)
    vars(scorer)[_NAME] = name
    return scorer


def _check_name(name: str) -> None:
    base = name.removeprefix(_MOTION)
    if base.startswith(_TIMM) or base in list_scorers():
        return
    prefix = name.removesuffix(base)
    near = difflib.get_close_matches(base, list_scorers(), n=3, cutoff=0.4)
    names = ", ".join(prefix + known for known in near or list_scorers())
    hint = f"did you mean {names}?" if near else f"known: {names}"
    raise ValueError(f"unknown scorer {name!r}; {hint}")


def _motion_scorer(base: Callable[..., nn.Module], weights: str | Path | None) -> MotionScorer:
    """Weights are of all of it if they have its names, else what its base takes."""
    if weights not in (None, "imagenet"):
        scorer, state = MotionScorer(base(weights=None)), read_state(str(weights))
        if state.keys() == scorer.state_dict().keys():
            load_strictly(scorer, state, source=str(weights))
            return scorer
    return MotionScorer(base(weights=weights))


def scorer_options(scorer: nn.Module) -> dict[str, Any] | None:
    """Options of `create_scorer`, name first, that make such a scorer again; None if it cannot.

    Only what differs from the defaults is named beside the name.

    Example:
        >>> scorer_options(create_scorer("edge", side_px=320))
        {'name': 'edge', 'side_px': 320}
    """
    name = vars(scorer).get(_NAME, _NAMES.get(type(scorer)))
    if name is None:
        return None
    options: dict[str, Any] = {"name": name}
    if isinstance(scorer, MotionScorer):
        scorer = scorer.base
    if getattr(scorer, "side_px", _SIDE_PX) != _SIDE_PX:
        options["side_px"] = scorer.side_px
    if isinstance(scorer, FeatureScorer) and scorer.statistics.source != "running":
        options["statistics"] = scorer.statistics.source
    return options


def _build(
    name: str,
    weights: str | Path | None,
    num_channels: int,
    side_px: int | None,
    statistics: StatisticsName,
) -> nn.Module:
    scorer = _light_scorer(name, num_channels, side_px, statistics)
    if scorer is not None:
        if weights == "imagenet":
            raise ValueError(
                f"scorer_weights='imagenet' needs a pretrained backbone, got scorer {name!r}"
            )
        if weights is not None:
            load_strictly(scorer, read_state(weights), source=str(weights))
        return scorer
    if num_channels != 3:
        raise ValueError(
            f"num_channels must be 3 for scorer {name!r}, got {num_channels}; "
            "use scorer='conv', or pass a scorer module of your own"
        )
    state = None if weights in (None, "imagenet") else read_state(str(weights))
    whole = state is not None and "statistics.frozen" in state
    backbone = None if whole else weights
    head: LocalHead | GatedHead
    if name.startswith(_TIMM):
        features, head = timm_features(name.removeprefix(_TIMM), backbone)
    else:
        stem = name.removesuffix(_GATED)
        features, head = torchvision_features(stem, backbone, gated=name != stem)
    scorer = FeatureScorer(features, head, side_px=side_px, statistics=statistics)
    if whole and state is not None:
        load_strictly(scorer, state, source=str(weights))
    return scorer


def _has_backbone(name: str) -> bool:
    name = name.removeprefix(_MOTION)
    return name.startswith(_TIMM) or name.removesuffix(_GATED) in TORCHVISION_FEATURES


def _light_scorer(
    name: str, num_channels: int, side_px: int | None, statistics: StatisticsName
) -> nn.Module | None:
    """The scorer without a backbone of that name, None for a backbone's."""
    if name == "uniform":
        return Uniform()
    if name == "detail":
        return DetailScorer(side_px=side_px)
    if name == "edge":
        return EdgeScorer(side_px=side_px)
    if name == "conv":
        return ConvScorer(num_channels=num_channels, side_px=side_px)
    if name == "pixels":
        head = LocalHead(num_channels, _PIXEL_HIDDEN)
        return FeatureScorer(nn.Identity(), head, side_px=side_px, statistics=statistics)
    return None
