"""Models by name: ours, and the same ones in timm's registry."""

import difflib
import fnmatch
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dartok.core.notices import say_once
from dartok.models.presets import (
    AUTHORS_PRESETS,
    DARMT_PRESETS,
    PRESETS,
    RMT_PRESETS,
    VIDEO_PRESETS,
    VIM_PRESETS,
    VideoPreset,
)

if TYPE_CHECKING:  # timm imports this module to register our names: it must not wait for timm
    from dartok.models.named import NamedModel

__all__ = ["ADAPTED", "SEGMENTER", "create_model", "list_models", "register_with_timm"]

ADAPTED = "dart_vit"
"""timm's name for an adapted host, so that its folder can be loaded by timm."""

SEGMENTER = "dart_segmenter"
"""timm's name for an adapted host with a decoder of pixels' classes, likewise."""


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows, filtered by a shell pattern.

    Example:
        >>> list_models("darvit_tiny*")
        ['darvit_tiny', 'darvit_tiny_121p', 'darvit_tiny_v2']
    """
    return sorted(fnmatch.filter(PRESETS, pattern))


_SAVED = ("local-dir:", "hf-hub:")

_SCORED = {**AUTHORS_PRESETS, **DARMT_PRESETS}
"""Models with a score net."""

_ON_A_GRID = {**VIM_PRESETS, **VIDEO_PRESETS}
"""Hosts that `adapt` puts regions on."""


def create_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    num_tokens: int | None = None,
    num_rows: int | None = None,
    num_classes: int | None = None,
    num_channels: int = 3,
    num_frames: int | None = None,
    score_size: int | None = None,
    scorer_weights: str | Path | None = None,
    drop_rate: float = 0.0,
    drop_path_rate: float = 0.0,
) -> "NamedModel":
    """One of DART's authors' models, a Vision Mamba to adapt, an RMT, or a saved model.

    In eval mode when weights are loaded. "local-dir:FOLDER" is what `dartok train` keeps in `best/`
    and `dartok.save_pretrained` writes, "hf-hub:NAME" the same on the hub (see
    `dartok.from_pretrained`); of the options they take `num_tokens`, `num_rows` and `num_classes`.

    `darvit_*` and `darvim_*` run in their authors' mode, since only that gives their numbers:
    scores standardised over the batch, corner sampling, the score net at the image's full size.
    Images of 448 px, ImageNet mean and deviation. `dartok.calibrate` makes results independent of
    the batch.

    `darmt_*` are the authors' RMTs behind their image reshaper (see `dartok.models.dair`): always
    14 x 14 regions, of images of 448 or 224 px; the rest as above. `rmt_*` are RMTs without it, for
    images of any size.

    `vim_*` and `videomamba_*` are on their fixed grid, 224 px. `dartok.adapt` puts regions on them,
    unless their patches overlap (`*_stride8`), as on any ViT of timm; options of regions are its.
    `videomamba_*_video` see clips `(B, T, C, H, W)`; from a checkpoint of another number of frames
    their positions in time are resampled linearly.

    Args:
        name: See `list_models`; or "local-dir:FOLDER", "hf-hub:NAME".
        checkpoint: The official `.pth`, or a converted `.safetensors`; loaded strictly.
        num_tokens: Regions per image; None for the model's own.
        num_rows: Rows of regions; None for about square regions.
        num_classes: Outputs of the head; None for a saved model's own, or 1000 (video: 400).
        num_channels: Channels of the images.
        num_frames: Frames of a clip, for `videomamba_*_video`; None for 8.
        score_size: Side in pixels of the copy that the score net sees; None for the image itself.
        scorer_weights: For the score net's backbone: None, "imagenet" or a file.
        drop_rate: Dropout before the head.
        drop_path_rate: Stochastic depth of the last block.
    Raises:
        ValueError: If the name is unknown, the checkpoint does not fit, the folder holds no model,
            or an option does not apply to that model.
    Example:
        >>> model = create_model("darvit_tiny", num_tokens=121)
        >>> model.patch_embed.num_tokens
        121
    """
    if name.startswith(_SAVED):
        others = (checkpoint, score_size, scorer_weights, drop_rate, drop_path_rate, num_frames)
        if any(others):
            raise ValueError(
                f"a saved model such as {name!r} takes num_tokens, num_rows and num_classes only; "
                "drop the other options"
            )
        from dartok.models.sharing import from_pretrained

        return from_pretrained(
            name, num_tokens=num_tokens, num_rows=num_rows, num_classes=num_classes
        )
    _check_name(name)
    of_regions: dict[str, Any] = {
        "num_tokens": num_tokens,
        "num_rows": num_rows,
        "score_size": score_size,
        "scorer_weights": scorer_weights,
    }
    options = {
        "num_classes": _default_num_classes(name) if num_classes is None else num_classes,
        "in_chans": num_channels,
        "drop_rate": drop_rate,
        "drop_path_rate": drop_path_rate,
    }
    if num_frames is not None:
        _refuse_frames(name)
        options["num_frames"] = num_frames
    _refuse_regions(name, of_regions)
    if name in _SCORED:
        _say_what_to_know(name, random_scorer=checkpoint is None and scorer_weights is None)
        options |= {key: value for key, value in of_regions.items() if value is not None}
    return _built(name, options, checkpoint)


def _default_num_classes(name: str) -> int:
    preset = PRESETS[name]
    return preset.num_classes if isinstance(preset, VideoPreset) else 1000


def _refuse_frames(name: str) -> None:
    if name not in VIDEO_PRESETS:
        raise ValueError(
            f"{name} is made for pictures and takes no num_frames; use one of "
            f"{', '.join(VIDEO_PRESETS)}"
        )


def _refuse_regions(name: str, options: dict[str, Any]) -> None:
    """Refuse the options of regions that a model does not have."""
    given = [option for option, value in options.items() if value is not None]
    if name in RMT_PRESETS and given:
        raise ValueError(
            f"{name} sees a picture as it is and takes no {given[0]}; {', '.join(DARMT_PRESETS)} "
            "have a reshaper in front"
        )
    fixed = [option for option in given if option in ("num_tokens", "num_rows")]
    if name in DARMT_PRESETS and fixed:
        raise ValueError(
            f"{name} always has 14 x 14 regions and takes no {fixed[0]}; leave it out, or use a "
            "darvit_* or darvim_* model"
        )
    if name in _ON_A_GRID:
        _refuse_on_a_grid(name, given)


def _refuse_on_a_grid(name: str, given: list[str]) -> None:
    if given and _ON_A_GRID[name].patch_stride != 16:
        raise ValueError(
            f"{name} has overlapping patches and takes no {given[0]}: regions lie side by side; "
            f"use {name.partition('_stride')[0]!r}"
        )
    if given:
        raise ValueError(
            f"{name} has a fixed grid and takes no {given[0]}; use "
            f"dartok.adapt(dartok.create_model({name!r}), num_tokens=...)"
        )


def _built(name: str, options: dict[str, Any], checkpoint: str | Path | None) -> "NamedModel":
    from dartok.models.named import build_named
    from dartok.models.preprocessing import note_pixels

    model = build_named(name, **options)
    model.pretrained_cfg = model.default_cfg = dict(default_cfgs[name])
    note_pixels(model)
    if checkpoint is not None:
        from dartok.models.checkpoints import load_checkpoint

        load_checkpoint(model, checkpoint, name=name)
        model.eval()
    return model


def register_with_timm() -> None:
    """Make every name of `list_models` known to `timm.create_model`; harmless when repeated."""
    from timm.models import is_model, register_model

    for name in PRESETS:
        if not is_model(name):
            register_model(_entrypoint(name))
    if not is_model(ADAPTED):
        register_model(_adapted_entrypoint())
    ours = {*PRESETS, ADAPTED}
    __all__[:] = [name for name in __all__ if name not in ours]  # timm appends them


def _check_name(name: str) -> None:
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"known: {', '.join(list_models())}"
        raise ValueError(
            f"unknown model {name!r}; {hint} (a timm ViT: dartok.adapt(timm.create_model(...)))"
        )


def _say_what_to_know(name: str, *, random_scorer: bool) -> None:
    say_once(
        "darvit_*, darvim_* and darmt_* models standardise scores over the batch, as their authors "
        "do, so a result depends on the batch; dartok.calibrate(model, images) freezes the "
        "statistics"
    )
    if random_scorer:
        say_once(
            f"the score net of {name!r} is meant to be pretrained but starts from random weights; "
            "pass checkpoint=, or scorer_weights='imagenet' or a file"
        )


def _timm_config(name: str) -> dict[str, Any]:
    """What timm's transforms need to know: the authors evaluate at 448 px of 512, others at 224."""
    side = 448 if name in _SCORED else 224
    is_rmt = name in RMT_PRESETS or name in DARMT_PRESETS
    return {
        "architecture": name,
        "num_classes": _default_num_classes(name),
        "input_size": (3, side, side),
        "pool_size": None,
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bicubic",
        "fixed_input_size": name in _ON_A_GRID or name in DARMT_PRESETS,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.proj.0" if is_rmt else "patch_embed.proj",
        "classifier": "head",
        "license": "apache-2.0",
    }


default_cfgs = {name: _timm_config(name) for name in PRESETS}
"""Read by timm when the names are registered."""


def _entrypoint(name: str) -> Callable[..., Any]:
    """A builder with timm's signature: timm passes its configuration beside the model's options."""

    def create(pretrained: bool = False, **options: Any) -> Any:
        from timm.models import build_model_with_cfg
        from timm.models._pretrained import PretrainedCfg

        given = options.pop("pretrained_cfg", None)
        if pretrained and not _has_weights(given):
            raise ValueError(
                f"{name} has no weights that timm can download; use "
                f"dartok.create_model({name!r}, checkpoint=...) with the official file"
            )
        options["pretrained_cfg"] = given or PretrainedCfg(**default_cfgs[name])
        if name in _SCORED:
            random_scorer = not pretrained and options.get("scorer_weights") is None
            _say_what_to_know(name, random_scorer=random_scorer)
        build = _Builder(name)
        model = build_model_with_cfg(
            build, name, pretrained, feature_cfg=_feature_config(options, name), **options
        )
        return _settled(model, given, options)

    create.__name__ = create.__qualname__ = name
    create.__doc__ = f"{PRESETS[name].summary}; see `dartok.create_model`."
    create.__module__ = __name__
    return create


def _feature_config(options: dict[str, Any], name: str = ADAPTED) -> dict[str, Any]:
    """How timm makes a feature extractor of our models: by their `forward_intermediates`."""
    of_stages = name in RMT_PRESETS or name in DARMT_PRESETS
    last = 4 if of_stages else 3
    return {"out_indices": options.pop("out_indices", last), "feature_cls": "getter"}


def _settled(model: Any, given: Any, options: dict[str, Any]) -> Any:
    """Tell the tokenizer what the model was saved for: the range of its pixels, and their size."""
    from dartok.models.dials import tokenizer_of
    from dartok.models.patch_embed import RegionPatchEmbed
    from dartok.models.preprocessing import note_pixels

    note_pixels(model)
    if model.pretrained_cfg["architecture"] in {**_ON_A_GRID, **RMT_PRESETS, **DARMT_PRESETS}:
        return model
    if _has_weights(given) and options.get("img_size") is None:
        embed = tokenizer_of(model)
        assert isinstance(embed, RegionPatchEmbed)
        embed.set_input_size(tuple(model.pretrained_cfg["input_size"][1:]))
    return model


def _has_weights(given: Any) -> bool:
    """Whether timm's configuration says where the weights are: in a folder or on the hub."""
    source = given.get("source") if isinstance(given, dict) else getattr(given, "source", None)
    return source in ("local-dir", "hf-hub")


def _adapted_entrypoint() -> Callable[..., Any]:
    """`adapt` of a timm ViT as a name of its own, built from options that JSON can hold."""

    def dart_vit(pretrained: bool = False, **options: Any) -> Any:
        from timm.models import build_model_with_cfg
        from timm.models._pretrained import PretrainedCfg

        from dartok.models.hosts import adapted_host, host_config
        from dartok.scorers.build import say_if_random

        given = options.pop("pretrained_cfg", None)
        if pretrained and not _has_weights(given):
            raise ValueError(f"{ADAPTED} has no weights of its own; use host_pretrained=True")
        host = options.get("host", "vit_tiny_patch16_224")
        options["pretrained_cfg"] = given or PretrainedCfg(**host_config(host))
        if not pretrained:
            say_if_random(options.get("scorer", "conv"), options.get("scorer_weights"))
        model = build_model_with_cfg(
            adapted_host, ADAPTED, pretrained, feature_cfg=_feature_config(options), **options
        )
        return _settled(model, given, options)

    dart_vit.__module__ = __name__
    dart_vit.__doc__ = "A timm ViT with regions; see `dartok.adapt`."
    return dart_vit


class _Builder:
    """`build_named` of one name, as the class that timm thinks it builds."""

    def __init__(self, name: str) -> None:
        self.name = self.__name__ = name

    def __call__(self, **options: Any) -> "NamedModel":
        from dartok.models.named import build_named

        return build_named(self.name, **options)
