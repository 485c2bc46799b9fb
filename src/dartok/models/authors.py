"""The tokenizer in the mode of DART's authors, which alone gives the numbers of their models."""

from pathlib import Path

from dartok.models.families.parts import Parts
from dartok.models.patch_embed import RegionPatchEmbed
from dartok.models.presets import AuthorsPreset
from dartok.scorers.build import build_scorer

__all__ = ["INPUT_PX", "authors_embed"]

INPUT_PX = 448
"""Side of the pictures that the authors' models are meant for."""


def authors_embed(
    parts: Parts,
    preset: AuthorsPreset,
    *,
    num_tokens: int | None,
    num_rows: int | None,
    score_size: int | None,
    scorer_weights: str | Path | None,
) -> RegionPatchEmbed:
    """Batch statistics, corner sampling, their epsilons.

    Args:
        parts: Of the host.
        preset: One of the authors' models.
        num_tokens: Regions per image; None for the preset's.
        num_rows: Rows; None for `round(sqrt(num_tokens))` on square images.
        score_size: Side in pixels of the copy that the scorer sees; None for the image itself.
        scorer_weights: For the scorer's backbone: None, "imagenet" or a file.
    """
    scorer = build_scorer(
        preset.scorer,
        weights=scorer_weights,
        num_channels=parts.proj.in_channels,
        side_px=score_size,
        statistics="batch",
    )
    return RegionPatchEmbed(
        img_size=(INPUT_PX, INPUT_PX),
        scorer=scorer,
        proj=parts.proj,
        positions=parts.positions,
        num_tokens=preset.num_tokens if num_tokens is None else num_tokens,
        num_rows=num_rows,
        partition="authors",
        sampling="corner",
    )
