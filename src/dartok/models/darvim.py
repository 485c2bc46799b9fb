"""Vision Mamba with DART as the authors' names and checkpoints mean it."""

from pathlib import Path

from dartok.models.authors import INPUT_PX, authors_embed
from dartok.models.families.vim import attach_vim, vim_parts
from dartok.models.mamba.region_vim import RegionVim
from dartok.models.mamba.vim import Pooling, Vim
from dartok.models.presets import DarvimPreset

__all__ = ["build_darvim"]

_POSITION_GRID_PX = 224  # 14 x 14 positions


def build_darvim(
    preset: DarvimPreset,
    *,
    num_classes: int = 1000,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    score_size: int | None = None,
    img_size: int | tuple[int, int] = INPUT_PX,
    scorer_weights: str | Path | None = None,
    in_chans: int = 3,
    global_pool: Pooling = "token",
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> RegionVim:
    """One of the authors' models in their mode: batch statistics, corner sampling, their epsilons.

    Initial weights are Vim's, with the scorer's backbone as it comes: the authors draw that again.

    Source: reference code (models_mamba.py), reference checkpoints.

    Args:
        preset: An entry of `DARVIM_PRESETS`.
        num_classes: Outputs of the head; 0 for none.
        num_tokens: Regions per image; None for the preset's.
        num_rows: Rows; None for `round(sqrt(num_tokens))` on square images.
        score_size: Side in pixels of the copy that the scorer sees; None for the image itself, as
            the authors do. The costs they publish are those of 224.
        img_size: Size in pixels that the model is meant for; every size works.
        scorer_weights: For the scorer's backbone: None, "imagenet" or a file.
        in_chans: Channels of the images.
        global_pool: "token", "avg" or "".
        drop_rate: Dropout before the head.
        pos_drop_rate: Dropout after the positions.
        drop_path_rate: Stochastic depth after the last block.
    """
    host = Vim(
        img_size=_POSITION_GRID_PX,
        in_chans=in_chans,
        num_classes=num_classes,
        global_pool=global_pool,
        embed_dim=preset.embed_dim,
        depth=preset.depth,
        drop_rate=drop_rate,
        pos_drop_rate=pos_drop_rate,
        drop_path_rate=drop_path_rate,
    )
    embed = authors_embed(
        vim_parts(host),
        preset,
        num_tokens=num_tokens,
        num_rows=num_rows,
        score_size=score_size,
        scorer_weights=scorer_weights,
    )
    model = attach_vim(host, embed)
    model.patch_embed.set_input_size(img_size)
    return model
