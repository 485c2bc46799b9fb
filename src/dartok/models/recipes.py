"""How to build a model again from what JSON can hold: told from the model, and checked."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dartok.core.modes import in_eval_mode
from dartok.core.projection import Projection
from dartok.core.tokenizer import Tokenizer
from dartok.models.dair import SIDES_PX
from dartok.models.darmt import RegionRMT
from dartok.models.dials import tokenizer_of
from dartok.models.hosts import adapted_host, host_record
from dartok.models.named import build_named
from dartok.models.presets import AUTHORS_PRESETS, DARMT_PRESETS, RMT_PRESETS
from dartok.models.registry import ADAPTED
from dartok.models.rmt.host import RMT
from dartok.scorers.build import scorer_options

__all__ = ["Recipe", "check_recipe", "derive_recipe"]

_LARGEST_DIFFERENCE = 1e-4
"""Relative, between the logits of a model and of the one built from its recipe."""

_LARGEST_DIFFERENCE_HALF = 5e-2

_CHECK_PATCHES = (5, 7)
"""Rows and columns of patches of the picture that both look at: no host's own size."""


class Recipe(NamedTuple):
    """How to build a model again with timm, without its weights."""

    name: str
    """timm's name."""
    args: dict[str, Any]
    """Options for `timm.create_model`, plain enough for JSON."""


def derive_recipe(model: nn.Module, host_args: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe of an adapted timm model, of one of the authors', or of an RMT, as it is now.

    Args:
        model: The model; not changed.
        host_args: Options of `timm.create_model` for the host that cannot be told from the model.
    Raises:
        ValueError: If the model has no tokenizer or no known origin, if its scorer was not built by
            name, or if `host_args` is not what JSON can hold.
    """
    name = _architecture(model)
    if host_args and name in {**AUTHORS_PRESETS, **RMT_PRESETS, **DARMT_PRESETS}:
        raise ValueError(f"host_args must be None for {name}, which has no host of its own")
    if name is not None and isinstance(model, RMT):
        return Recipe(name, _rmt_args(model))
    tokenizer = tokenizer_of(model)
    if name in AUTHORS_PRESETS:
        return Recipe(name, _authors_args(model, tokenizer))
    host = host_record(model)
    if host is None:
        raise ValueError(
            f"a model to save must come from timm.create_model, got a {type(model).__name__} "
            "without pretrained_cfg['architecture']; adapt timm.create_model(NAME, ...)"
        )
    args = {"host": host.name, **_adapt_args(model, tokenizer)}
    options = {**host.args, **(host_args or {})}
    if options:
        args["host_args"] = options
    return Recipe(ADAPTED, _as_json(args))


def check_recipe(model: nn.Module, recipe: Recipe) -> None:
    """Build the recipe's model, and hold it to the given one: entries, shapes, and logits.

    Raises:
        ValueError: Naming the first entry that differs, or the difference of the logits.
    """
    state = model.state_dict()
    with torch.random.fork_rng(devices=[]):  # saving in mid-training must not shift its seed
        built = _built(recipe)
        fault = _first_fault(built.state_dict(), state)
        if fault:
            raise ValueError(f"model cannot be built again as {recipe.name}: {fault}; {_REMEDY}")
        weight = _projection(model).weight
        built.to(weight)
        built.load_state_dict(state)
        difference = _largest_difference(model, built)
    half = weight.dtype not in (torch.float32, torch.float64)
    if not difference <= (_LARGEST_DIFFERENCE_HALF if half else _LARGEST_DIFFERENCE):
        raise ValueError(
            f"model cannot be built again as {recipe.name}: the outputs of the one built from its "
            f"recipe differ by {difference:.1e} (relative); {_REMEDY}"
        )


_REMEDY = "pass what its host was created with as host_args={...}"


def _architecture(model: nn.Module) -> str | None:
    config = getattr(model, "pretrained_cfg", None)
    return config.get("architecture") if isinstance(config, Mapping) else None


def _projection(model: nn.Module) -> Projection:
    """The first layer that sees pixels."""
    if not isinstance(model, RMT):
        return tokenizer_of(model).proj
    first = model.patch_embed.proj[0]
    assert isinstance(first, nn.Conv2d)
    return first


def _rmt_args(model: RMT) -> dict[str, Any]:
    args: dict[str, Any] = {"num_classes": model.num_classes, "global_pool": model.global_pool}
    in_chans = _projection(model).in_channels
    if in_chans != 3:
        args["in_chans"] = in_chans
    side_px = model.pre_image.scorer.side_px if isinstance(model, RegionRMT) else None
    return args if side_px is None else {**args, "score_size": side_px}


def _authors_args(model: nn.Module, tokenizer: Tokenizer) -> dict[str, Any]:
    args = {**_host_options(model, tokenizer), **_dials(tokenizer)}
    side_px = getattr(tokenizer.scorer, "side_px", None)
    return args if side_px is None else {**args, "score_size": side_px}


def _adapt_args(model: nn.Module, tokenizer: Tokenizer) -> dict[str, Any]:
    options = scorer_options(tokenizer.scorer)
    if options is None:
        raise ValueError(
            f"scorer must be one by name to be saved, got a {type(tokenizer.scorer).__name__}; "
            "see dartok.scorers.list_scorers(), or keep model.state_dict() beside your own code"
        )
    args: dict[str, Any] = {**_host_options(model, tokenizer), **_dials(tokenizer)}
    args["scorer"] = options.pop("name")
    if options:
        args["scorer_args"] = options
    args |= {"partition": tokenizer.partition, "sampling": tokenizer.sampling}
    return {**args, "oversample": tokenizer.oversample, **_options_in_use(tokenizer)}


def _options_in_use(tokenizer: Tokenizer) -> dict[str, Any]:
    """Options that are set: most recipes have none."""
    bounds = {} if tokenizer.bounds is None else tokenizer.bounds._asdict()
    options = {"antialias": tokenizer.antialias or None, **bounds}
    options["size_embedding"] = None if tokenizer.size_embed is None else True
    times = tokenizer.time_embed
    if times is not None and isinstance(tokenizer.proj, nn.Conv2d):
        options["num_frames"] = times.shape[2]
    return {name: value for name, value in options.items() if value is not None}


def _host_options(model: nn.Module, tokenizer: Tokenizer) -> dict[str, Any]:
    """What timm's factory takes for every ViT, read from the model as it is now."""
    args: dict[str, Any] = {"num_classes": int(getattr(model, "num_classes", 1000))}
    if isinstance(getattr(model, "global_pool", None), str):
        args["global_pool"] = model.global_pool
    if tokenizer.proj.in_channels != 3:
        args["in_chans"] = tokenizer.proj.in_channels
    return args


def _dials(tokenizer: Tokenizer) -> dict[str, Any]:
    args: dict[str, Any] = {"num_tokens": tokenizer.num_tokens}
    if tokenizer.num_rows is not None:
        args["num_rows"] = tokenizer.num_rows
    budget = tokenizer.budget
    if budget is not None:
        args["budget"] = {name: getattr(budget, name) for name in ("mean", "least", "most", "step")}
    return args


def _as_json(args: dict[str, Any]) -> dict[str, Any]:
    for name, value in {**args, **args.get("host_args", {})}.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"host_args must be what JSON can hold to be saved, got {name}={value!r}; "
                "give its name in place of the object"
            ) from error
    return args


def _built(recipe: Recipe) -> nn.Module:
    try:
        if recipe.name == ADAPTED:
            return adapted_host(**recipe.args)
        return build_named(recipe.name, **recipe.args)
    except (TypeError, RuntimeError, AssertionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"model cannot be built again as {recipe.name} ({reason}); {_REMEDY}"
        ) from error


def _first_fault(built: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str | None:
    """Where two state dicts first differ in names or shapes."""
    for name, value in state.items():
        if name not in built:
            return f"that one has no {name}"
        if built[name].shape != value.shape:
            return f"its {name} is {tuple(built[name].shape)}, not {tuple(value.shape)}"
    more = [name for name in built if name not in state]
    return f"that one has {more[0]} too" if more else None


@torch.no_grad()
def _largest_difference(model: nn.Module, built: nn.Module) -> float:
    """Relative, of scores and logits: at strength 0 the logits do not show the scores."""
    projection = _projection(model)
    shape = (projection.in_channels, *_check_size(model))
    frames = projection.kernel_size[0] if isinstance(projection, nn.Conv3d) else None
    images = torch.randn(2, *(() if frames is None else (frames,)), *shape).to(projection.weight)
    pairs = [(model, built)]
    if not isinstance(model, RMT):
        pairs.insert(0, (tokenizer_of(model).scorer, tokenizer_of(built).scorer))
    with in_eval_mode(model, built):
        differences = [_difference(ours(images), theirs(images)) for ours, theirs in pairs]
    return max(differences)


def _check_size(model: nn.Module) -> tuple[int, int]:
    """Height and width of the picture that both look at."""
    if isinstance(model, RegionRMT):
        return SIDES_PX[1], SIDES_PX[1]
    sides = (16, 16) if isinstance(model, RMT) else tokenizer_of(model).patch_size
    return _CHECK_PATCHES[0] * sides[0], _CHECK_PATCHES[1] * sides[1]


def _difference(expected: Tensor, actual: Tensor) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    expected, actual = expected.double(), actual.double()
    tiny = torch.finfo(expected.dtype).tiny
    return float((actual - expected).norm() / expected.norm().clamp_min(tiny))
