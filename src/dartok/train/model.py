"""Build the model that a configuration asks for, and say how to build it again."""

from pathlib import Path
from typing import Any

import timm
from timm.data import resolve_model_data_config
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from dartok.core.partition import default_num_rows
from dartok.core.sides import bounds_of, check_bounds
from dartok.core.tokenizer import Tokenizer
from dartok.data.augment import PixelConfig
from dartok.models.checkpoints import load_checkpoint
from dartok.models.mamba.vim import Vim
from dartok.models.named import NamedModel
from dartok.models.presets import AUTHORS_PRESETS, DARMT_PRESETS, PRESETS, RMT_PRESETS
from dartok.models.recipes import Recipe
from dartok.models.registry import ADAPTED
from dartok.models.rmt.host import RMT
from dartok.scorers.weights import load_strictly, read_state
from dartok.tasks.segmentation.segmenter import Segmenter
from dartok.train.model_config import ModelConfig, Parts

__all__ = ["build_model", "choose_parts", "pixels_of", "ramp_steps", "recipe_of", "region_args"]


def recipe_of(config: ModelConfig, *, num_classes: int, image_px: int | None) -> Recipe:
    """The model of a configuration: a fixed-grid host, an adapted one, or one of the authors'.

    Raises:
        ValueError: If the name is unknown.
    """
    args: dict[str, Any] = {"num_classes": num_classes}
    if config.drop_path:
        args["drop_path_rate"] = config.drop_path
    budget = None if config.budget is None else config.budget.most
    if config.model in AUTHORS_PRESETS:
        if budget is not None:
            args["num_tokens"] = budget
        return Recipe(config.model, args)
    if not timm.is_model(config.model):
        raise ValueError(
            f"model {config.model!r} is unknown; see dartok models and timm.list_models('*vit*')"
        )
    if budget is not None and config.model in {**RMT_PRESETS, **DARMT_PRESETS}:
        raise ValueError(f"model {config.model} takes no num-tokens, got {budget}; drop it")
    if budget is None:
        fixed = image_px and config.model not in RMT_PRESETS
        return Recipe(config.model, args | ({"img_size": image_px} if fixed else {}))
    return Recipe(ADAPTED, args | region_args(config))


def region_args(config: ModelConfig, num_frames: int = 1) -> dict[str, Any]:
    """Options of `adapted_host` that put a configuration's regions on its model.

    `num_frames` is that of the clips that share a number of tokens.

    Raises:
        ValueError: If the sizes of regions are bounded so that no budget of the run can keep them.
    """
    assert config.budget is not None
    _check_sides(config, num_frames)
    args = {
        "host": config.model,
        "num_tokens": config.budget.most,
        "num_rows": config.num_rows,
        "scorer": config.scorer,
        "partition": config.partition,
        "antialias": config.antialias or None,
        "size_embedding": config.size_embedding or None,
        "min_region": config.min_region,
        "max_region": config.max_region,
    }
    return {name: value for name, value in args.items() if value is not None}


def _check_sides(config: ModelConfig, num_frames: int) -> None:
    """Refuse bounds that a picture as high as wide cannot keep at some number of its tokens."""
    bounds = bounds_of(config.min_region, config.max_region)
    if bounds is None or config.budget is None:
        return
    for num_tokens in range(config.budget.least, config.budget.most + 1):
        num_rows = config.num_rows or default_num_rows(
            num_tokens, 1, 1, kind=config.partition, num_frames=num_frames
        )
        check_bounds(bounds, num_tokens, num_rows, num_frames=num_frames)


def build_model(config: ModelConfig, recipe: Recipe) -> nn.Module:
    """The model with the weights to start from: random, pretrained, or of a file.

    Raises:
        ValueError: If a model cannot be built from these options, or the file does not fit.
    """
    args: dict[str, Any] = dict(recipe.args)
    if recipe.name in {ADAPTED, *AUTHORS_PRESETS, *DARMT_PRESETS}:
        args["scorer_weights"] = config.scorer_weights
    if recipe.name == ADAPTED:
        args["host_pretrained"] = config.pretrained
    elif config.pretrained:
        args["pretrained"] = True
    try:
        model: nn.Module = timm.create_model(recipe.name, **args)
    except (TypeError, RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"model {config.model!r} cannot be built ({reason})") from error
    if config.checkpoint is not None:
        _load(model, config.checkpoint, config.model)
    choose_parts(model, config.parts)
    return model


def _load(model: nn.Module, path: Path, name: str) -> None:
    if isinstance(model, NamedModel) and name in PRESETS:
        load_checkpoint(model, path, name=name, any_head=True)  # in its official layout or in ours
    else:
        load_strictly(model, read_state(path), source=f"checkpoint {path} as {name}")


def choose_parts(model: nn.Module, parts: Parts) -> None:
    """Freeze what is not to learn.

    Raises:
        ValueError: If the model has no such part.
    """
    if parts == "all":
        return
    if not isinstance(model, VisionTransformer | Vim | RMT | Segmenter):
        raise ValueError(
            f"parts {parts} needs a timm ViT, a Vision Mamba or an RMT, got a "
            f"{type(model).__name__}; give all"
        )
    head: Any = model.get_classifier()
    learners: list[nn.Module] = [*head] if isinstance(head, tuple) else [head]  # distilled: two
    if parts == "tokenizer":
        tokenizers = [module for module in model.modules() if isinstance(module, Tokenizer)]
        if not tokenizers:
            raise ValueError("parts tokenizer needs regions; give --num-tokens too")
        learners += tokenizers
    wanted = {id(p) for learner in learners for p in learner.parameters() if p.requires_grad}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in wanted)


def pixels_of(model: nn.Module, image_px: int | None) -> PixelConfig:
    """What the model expects of its pixels, in timm's words.

    Raises:
        ValueError: If its fixed grid does not fit that size.
    """
    embed = getattr(getattr(model, "encoder", model), "patch_embed", None)
    patch_px = embed.patch_size[0] if isinstance(embed, PatchEmbed) else 1
    if image_px is not None and image_px % patch_px and not isinstance(embed, Tokenizer):
        raise ValueError(
            f"image-px must be a multiple of {patch_px}, the patch of this fixed grid, got "
            f"{image_px}; give --num-tokens for regions, which take any size"
        )
    data = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    height, width = data["input_size"][1:]
    return PixelConfig(
        size_px=image_px or height,
        width_px=None if image_px or height == width else width,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        crop_share=data["crop_pct"],
    )


def ramp_steps(config: ModelConfig, num_steps: int) -> int:
    """Steps of the strength ramp: as configured, else a quarter of a retrofit's run."""
    if config.strength_ramp is not None:
        return config.strength_ramp
    retrofit = config.pretrained and config.num_tokens and config.model not in AUTHORS_PRESETS
    return num_steps // 4 if retrofit else 0
