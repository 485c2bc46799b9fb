"""Scorers on the features of a frozen classifier: the authors' design, with any backbone."""

from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.scorers.heads import GatedHead, LocalHead
from dartok.scorers.resize import fixed_copy
from dartok.scorers.statistics import ScoreStatistics, StatisticsName
from dartok.scorers.weights import load_strictly, read_state

__all__ = ["TORCHVISION_FEATURES", "FeatureScorer", "timm_features", "torchvision_features"]


class FeatureScorer(nn.Module):
    """Frozen features, a trained head, a resize to the score grid, and standardisation.

    `score = head.score(standardise(resize(head(features(images)))))`. The features are really
    frozen: no gradient, and they stay in eval mode so that no statistic of theirs drifts while
    training (in the authors' code they do; `scorer.features.train()` brings that back).

    Source: DART, arXiv:2506.10390, score prediction network; reference code (spn.py).

    Args:
        features: Maps images `(B, 3, H, W)` to features `(B, C, h, w)`.
        head: `LocalHead` or `GatedHead` for C channels.
        grid: Height and width of the score map, in cells.
        side_px: Side of the copy that the features see, in pixels; None for the image itself.
        statistics: "running", or "batch" as in the authors' code: see `ScoreStatistics`.
    Example:
        >>> scorer = FeatureScorer(nn.Identity(), LocalHead(3, 64)).eval()
        >>> scorer(torch.rand(2, 3, 300, 400)).shape
        torch.Size([2, 14, 14])
    """

    def __init__(
        self,
        features: nn.Module,
        head: LocalHead | GatedHead,
        *,
        grid: tuple[int, int] = (14, 14),
        side_px: int | None = 224,
        statistics: StatisticsName = "running",
    ) -> None:
        super().__init__()
        # Channels last: a quarter faster on the CPU, and what GPUs prefer in half precision.
        self.features = features.requires_grad_(False).eval().to(memory_format=torch.channels_last)
        self.head = head
        self.grid = grid
        self.side_px = side_px
        self.statistics = ScoreStatistics(statistics)

    def train(self, mode: bool = True) -> "FeatureScorer":
        """Set the mode of the head and the statistics; the features stay in eval mode."""
        super().train(mode)
        self.features.eval()
        return self

    def logits(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w"]:
        """The head's map on the score grid before standardisation, in float32 or wider."""
        copy = fixed_copy(images, self.side_px).to(next(self.head.parameters()).dtype)
        with torch.no_grad():
            features = self.features(copy.contiguous(memory_format=torch.channels_last))
        logits = self.head(features)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).unsqueeze(1)
        return F.interpolate(logits, self.grid, mode="bilinear", align_corners=False).squeeze(1)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B h w"]:
        return self.head.score(self.statistics(self.logits(images)))


class _Backbone(NamedTuple):
    classifier: str  # torchvision's name
    trunk: str  # attribute that holds the features
    num_stages_local: int  # leading modules kept under a LocalHead, after the authors
    channels_local: int
    hidden_local: int
    num_stages_gated: int
    channels_gated: int


_HIDDEN_GATED = 96

TORCHVISION_FEATURES = {
    "mobilenetv3_small": _Backbone("mobilenet_v3_small", "features", 11, 96, 96, 13, 576),
    "mobilenetv3_large": _Backbone("mobilenet_v3_large", "features", 15, 160, 160, 17, 960),
    "efficientnet_b0": _Backbone("efficientnet_b0", "features", 9, 1280, 96, 9, 1280),
    "mnasnet": _Backbone("mnasnet1_0", "layers", 17, 1280, 96, 17, 1280),
    "squeezenet": _Backbone("squeezenet1_1", "features", 13, 512, 96, 13, 512),
}
"""The five backbones of the paper's ablation. MnasNet and SqueezeNet are kept whole: the authors
published no code for them."""


def torchvision_features(
    name: str, weights: str | Path | None, *, gated: bool
) -> tuple[nn.Module, LocalHead | GatedHead]:
    """Leading stages of a torchvision classifier, and a fresh head for them.

    Args:
        name: A key of `TORCHVISION_FEATURES`.
        weights: None, "imagenet" (torchvision's cache or download), or a file with the classifier's
            state dict.
        gated: `GatedHead` (the authors' v2) instead of `LocalHead` (v1).
    Example:
        >>> features, head = torchvision_features("mobilenetv3_small", None, gated=False)
        >>> head(features(torch.rand(1, 3, 64, 64))).shape
        torch.Size([1, 2, 2])
    """
    import torchvision

    spec = TORCHVISION_FEATURES[name]
    # The authors' weights by their own name: torchvision's DEFAULT moves between releases.
    pretrained = "IMAGENET1K_V1" if weights == "imagenet" else None
    with torch.random.fork_rng(devices=[]):  # a frozen net must not shift the caller's seed
        classifier = torchvision.models.get_model(spec.classifier, weights=pretrained)
    if weights is not None and pretrained is None:
        load_strictly(classifier, read_state(weights), source=str(weights))
    trunk = getattr(classifier, spec.trunk)
    if gated:
        head: LocalHead | GatedHead = GatedHead(spec.channels_gated, _HIDDEN_GATED)
        return trunk[: spec.num_stages_gated], head
    return trunk[: spec.num_stages_local], LocalHead(spec.channels_local, spec.hidden_local)


def timm_features(name: str, weights: str | Path | None) -> tuple[nn.Module, LocalHead]:
    """The last feature map of any timm model that has `features_only`, and a fresh `LocalHead`.

    Args:
        name: timm's model name.
        weights: None, "imagenet" (timm's default weights: its cache or download), or a file.
    Raises:
        ValueError: If timm does not know the model or it gives no feature maps.
    Example:
        >>> features, head = timm_features("resnet10t", None)
        >>> head(features(torch.rand(1, 3, 64, 64))).shape
        torch.Size([1, 2, 2])
    """
    import timm
    from timm.models import FeatureInfo

    overlay = None if weights in (None, "imagenet") else {"file": str(weights)}
    if not timm.is_model(name):
        raise ValueError(f"scorer 'timm/{name}': timm has no model {name!r}; see timm.list_models")
    fault = "it gives no feature maps" if weights is None else f"{weights} does not fit it"
    try:
        with torch.random.fork_rng(devices=[]):  # a frozen net must not shift the caller's seed
            net = timm.create_model(
                name,
                pretrained=weights is not None,
                pretrained_cfg_overlay=overlay,
                features_only=True,
                out_indices=(-1,),
            )
    except (RuntimeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"scorer 'timm/{name}': {fault} ({reason})") from error
    assert isinstance(net.feature_info, FeatureInfo)
    num_channels = net.feature_info.channels()[-1]
    return _LastMap(net), LocalHead(num_channels, min(num_channels, _HIDDEN_GATED))


class _LastMap(nn.Module):
    """The last of a timm feature extractor's maps, channels first."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        features = self.net(images)[-1]
        return features.permute(0, 3, 1, 2) if self.net.output_fmt == "NHWC" else features
