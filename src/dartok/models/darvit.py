"""DeiT with DART as the authors' names and checkpoints mean it."""

from pathlib import Path
from typing import Literal

from timm.models.vision_transformer import VisionTransformer

from dartok.models.authors import INPUT_PX, authors_embed
from dartok.models.families.timm_vit import attach, parts_with_positions
from dartok.models.presets import DarvitPreset
from dartok.models.vit import RegionHost

__all__ = ["build_darvit"]

_PATCH_PX = 16
_POSITION_GRID_PX = 224  # 14 x 14 positions


def build_darvit(
    preset: DarvitPreset,
    *,
    num_classes: int = 1000,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    score_size: int | None = None,
    img_size: int | tuple[int, int] = INPUT_PX,
    scorer_weights: str | Path | None = None,
    in_chans: int = 3,
    global_pool: Literal["", "avg", "avgmax", "max", "token", "map"] = "token",
    drop_rate: float = 0.0,
    pos_drop_rate: float = 0.0,
    proj_drop_rate: float = 0.0,
    attn_drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> RegionHost:
    """One of the authors' models in their mode: batch statistics, corner sampling, their epsilons.

    Source: reference code (models_deit.py), reference checkpoints.

    Args:
        preset: An entry of `DARVIT_PRESETS`.
        num_classes: Outputs of the head; 0 for none.
        num_tokens: Regions per image; None for the preset's.
        num_rows: Rows; None for `round(sqrt(num_tokens))` on square images.
        score_size: Side in pixels of the copy that the scorer sees; None for the image itself, as
            the authors do. The costs they publish are those of 224.
        img_size: Size in pixels that the model is meant for; every size works.
        scorer_weights: For the scorer's backbone: None, "imagenet" or a file.
        in_chans: Channels of the images.
        global_pool: timm's pooling.
        drop_rate: Dropout before the head.
        pos_drop_rate: Dropout after the positions.
        proj_drop_rate: Dropout after attention and MLP.
        attn_drop_rate: Dropout of the attention weights.
        drop_path_rate: Stochastic depth of the last block.
    """
    host = VisionTransformer(
        img_size=_POSITION_GRID_PX,
        patch_size=_PATCH_PX,
        in_chans=in_chans,
        num_classes=num_classes,
        global_pool=global_pool,
        embed_dim=preset.embed_dim,
        depth=preset.depth,
        num_heads=preset.num_heads,
        drop_rate=drop_rate,
        pos_drop_rate=pos_drop_rate,
        proj_drop_rate=proj_drop_rate,
        attn_drop_rate=attn_drop_rate,
        drop_path_rate=drop_path_rate,
    )
    embed = authors_embed(
        parts_with_positions(host),
        preset,
        num_tokens=num_tokens,
        num_rows=num_rows,
        score_size=score_size,
        scorer_weights=scorer_weights,
    )
    model = attach(host, embed)
    model.patch_embed.set_input_size(img_size)
    return model
