"""RMT behind the authors' image reshaper, as their names and checkpoints mean it."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from dartok.models.dair import DAIR, SIDES_PX
from dartok.models.presets import DarmtPreset, RmtPreset
from dartok.models.rmt.host import RMT, Pooling
from dartok.scorers.build import build_scorer

__all__ = ["RegionRMT", "build_darmt", "rmt_options"]


class RegionRMT(RMT):
    """`RMT` that sees pictures with what matters enlarged: `logits = RMT(DAIR(images))`.

    Maps are of the reshaped picture. `pre_image` cuts the regions; in train mode that is a forward
    pass of its scorer.

    Args:
        pre_image: The reshaper.
        options: Of `RMT`.
    """

    def __init__(self, pre_image: DAIR, **options: Any) -> None:
        super().__init__(**options)  # RMT refuses names it does not know
        self.pre_image = pre_image

    def _entrance(self, images: Float[Tensor, "B channels H H"]) -> Float[Tensor, "B h w C"]:
        return super()._entrance(self.pre_image(images))


def build_darmt(
    preset: DarmtPreset,
    *,
    num_classes: int = 1000,
    score_size: int | None = None,
    img_size: int | tuple[int, int] = SIDES_PX[0],
    scorer_weights: str | Path | None = None,
    in_chans: int = 3,
    global_pool: Pooling = "avg",
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> RegionRMT:
    """One of the authors' models in their mode: see `DAIR`, and scores standardised over the batch.

    The stochastic depth is the caller's: their L6 has 0.5 fixed.

    Source: reference code (models_rmt.py).

    Args:
        preset: An entry of `DARMT_PRESETS`.
        num_classes: Outputs of the head; 0 for none.
        score_size: Side in pixels of the copy that the scorer sees; None for the image itself, as
            the authors do.
        img_size: Side of the images in pixels, 448 or 224; the model takes both.
        scorer_weights: For the scorer's backbone: None, "imagenet" or a file.
        in_chans: Channels of the images.
        global_pool: "avg" or "".
        drop_rate: Dropout before the head.
        drop_path_rate: Stochastic depth of the last block.
    Raises:
        ValueError: If the images are of another size, or the scorer cannot see their channels.
    """
    sides = {img_size} if isinstance(img_size, int) else set(img_size)
    if len(sides) != 1 or not sides <= set(SIDES_PX):
        raise ValueError(f"img_size must be {SIDES_PX[0]} or {SIDES_PX[1]}, got {img_size}")
    scorer = build_scorer(
        preset.scorer,
        weights=scorer_weights,
        num_channels=in_chans,
        side_px=score_size,
        statistics="batch",
    )
    return RegionRMT(
        DAIR(scorer, num_channels=in_chans),
        **rmt_options(preset),
        num_classes=num_classes,
        in_chans=in_chans,
        global_pool=global_pool,
        drop_rate=drop_rate,
        drop_path_rate=drop_path_rate,
    )


def rmt_options(preset: RmtPreset) -> dict[str, Any]:
    """What a preset says, as options of `RMT`."""
    names = ("embed_dims", "depths", "num_heads", "mlp_ratios", "decay_ranges")
    return {name: getattr(preset, name) for name in (*names, "num_factorised", "num_scaled")}
