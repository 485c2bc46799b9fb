"""`RegionTokenizer`: the tokenizer with its parts made from names and numbers."""

from pathlib import Path

import torch
from torch import nn

from dartok.core.partition import PartitionName
from dartok.core.sampling import SamplingName
from dartok.core.tokenizer import Tokenizer
from dartok.scorers.build import create_scorer

__all__ = ["RegionTokenizer", "as_scorer"]


class RegionTokenizer(Tokenizer):
    """Images of any size to `num_tokens` tokens, for a model of your own.

    `Tokenizer` describes the method; this class builds its projection, positions and scorer.

    Source: DART, arXiv:2506.10390.

    Args:
        embed_dim: D, width of the tokens.
        num_tokens: Regions per image, `>= 1`; see `set_num_tokens`.
        scorer: A name that `dartok.scorers.create_scorer` knows, or a module that maps images to
            positive scores `(B, h, w)`.
        scorer_weights: For a scorer by name: None, "imagenet" or a file.
        patch_size: Samples per region and axis.
        num_channels: Channels of the images.
        position_grid: Height and width of the learnt position map in cells; None for no positions.
        num_rows: Rows of regions; None for about square regions.
        partition: "flow" or "grid".
        sampling: "centred" or "corner".
        oversample: Samples averaged per patch pixel and axis.
        antialias: Whether regions of more pixels than samples are averaged.
        size_embedding: Whether a token is told how large its region is (see `SizeEmbedding`).
        min_region: Least height and width of any region, as a share of the picture's; None for any.
        max_region: Largest, likewise.
        strength: From 0, the fixed grid, to 1, the full method.
    Raises:
        ValueError: As `Tokenizer` and `create_scorer`.
    Example:
        >>> tokenizer = RegionTokenizer(embed_dim=8, num_tokens=10)
        >>> tokens, regions = tokenizer(torch.rand(2, 3, 50, 80))
        >>> tokens.shape, regions.num_rows
        (torch.Size([2, 10, 8]), 2)
    """

    def __init__(
        self,
        *,
        embed_dim: int,
        num_tokens: int,
        scorer: str | nn.Module = "conv",
        scorer_weights: str | Path | None = None,
        patch_size: int = 16,
        num_channels: int = 3,
        position_grid: tuple[int, int] | None = (14, 14),
        num_rows: int | None = None,
        partition: PartitionName = "flow",
        sampling: SamplingName = "centred",
        oversample: int = 1,
        antialias: bool = False,
        size_embedding: bool = False,
        min_region: float | None = None,
        max_region: float | None = None,
        strength: float = 1.0,
    ) -> None:
        positions = None
        if position_grid is not None:
            positions = nn.init.trunc_normal_(torch.empty(1, embed_dim, *position_grid), std=0.02)
        super().__init__(
            scorer=as_scorer(scorer, scorer_weights, num_channels),
            proj=nn.Conv2d(num_channels, embed_dim, kernel_size=patch_size, stride=patch_size),
            num_tokens=num_tokens,
            num_rows=num_rows,
            positions=positions,
            partition=partition,
            sampling=sampling,
            oversample=oversample,
            antialias=antialias,
            size_embedding=size_embedding,
            min_region=min_region,
            max_region=max_region,
            strength=strength,
        )


def as_scorer(scorer: str | nn.Module, weights: str | Path | None, num_channels: int) -> nn.Module:
    """The scorer named, or the module given.

    Raises:
        ValueError: If weights are given for a module, which brings its own; or as `create_scorer`.
    """
    if isinstance(scorer, str):
        return create_scorer(scorer, weights=weights, num_channels=num_channels)
    if not isinstance(scorer, nn.Module):
        raise ValueError(f"scorer must be a name or an nn.Module, got {scorer!r}")
    if weights is not None:
        raise ValueError("scorer_weights needs a scorer by name, got a module; load it yourself")
    return scorer
