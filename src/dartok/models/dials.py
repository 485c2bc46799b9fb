"""What can be turned on a model at any time: budget, strength, scan; and what it looks at."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn

from dartok.core.budget import AutoBudget
from dartok.core.names import one_of
from dartok.core.regions import Regions
from dartok.core.reshaper import GridReshaper
from dartok.core.scoring import Scored
from dartok.core.steering import Priority, Steering
from dartok.core.tokenizer import Tokenizer
from dartok.models.mamba.mixer import Mixer
from dartok.models.scan import ScanName, scan_of

__all__ = [
    "regions",
    "scored_of",
    "set_num_tokens",
    "set_scan",
    "set_strength",
    "steer",
    "tokenizer_of",
]


def tokenizer_of(model: nn.Module) -> Tokenizer:
    """The tokenizer inside a model, or the model itself if it is one.

    Raises:
        ValueError: If there is none.
    """
    for module in model.modules():
        if isinstance(module, Tokenizer):
            return module
    name = type(model).__name__
    if any(isinstance(module, GridReshaper) for module in model.modules()):
        raise ValueError(
            f"model must hold a dartok tokenizer, got {name}, which only has a reshaper; to keep "
            "it, save its state_dict() and load that into dartok.reshape of the same host"
        )
    raise ValueError(f"model must hold a dartok tokenizer, got {name}; see dartok.adapt")


def scored_of(model: nn.Module) -> Scored:
    """The tokenizer or reshaper inside a model, or the model itself if it is one.

    Raises:
        ValueError: If there is none.
    """
    found = (module for module in model.modules() if isinstance(module, Scored))
    scored = next(found, None)
    return tokenizer_of(model) if scored is None else scored


def set_num_tokens(
    model: nn.Module,
    num_tokens: int | Literal["auto"],
    *,
    num_rows: int | None = None,
    mean: int | None = None,
    least: int | None = None,
    most: int | None = None,
    step: int | None = None,
) -> None:
    """Change the number of tokens per image, from the next call on.

    "auto" gives each image its own number, from the mass of its scores (`AutoBudget` says how),
    `mean` on average. How much mass a token is worth is learnt while training, or set by
    `dartok.calibrate_num_tokens` on some pictures.

    Args:
        model: An adapted model or a tokenizer.
        num_tokens: `>= 1`, or "auto".
        num_rows: Rows of regions, from 1 to `num_tokens`; None for about square regions.
        mean: For "auto": tokens per image on average; None for as many as so far.
        least: For "auto": the fewest of an image; None for a quarter of the mean.
        most: For "auto": the most of an image; None for twice the mean.
        step: For "auto": counts lie this far apart; None for an eighth of the mean.
    Raises:
        ValueError: If a count is out of range, the model has no tokenizer, or it cannot give each
            image a count of its own.
    Example:
        >>> from dartok.scorers import RegionTokenizer
        >>> tokenizer = RegionTokenizer(embed_dim=8, num_tokens=196)
        >>> set_num_tokens(tokenizer, 121)
        >>> tokenizer.num_tokens
        121
        >>> set_num_tokens(tokenizer, "auto", least=50)
        >>> tokenizer.budget
        AutoBudget(mean=121, least=50, most=242, step=15)
    """
    if isinstance(scored_of(model), GridReshaper):
        raise ValueError(
            f"{type(model).__name__} has no number of tokens, got {num_tokens}: its reshaper only "
            "warps the picture; dartok.reshape(host, size_px=...) sets how large it becomes"
        )
    tokenizer = tokenizer_of(model)
    if isinstance(num_tokens, str):
        one_of("num_tokens", num_tokens, Literal["auto"])
        mean = tokenizer.num_tokens if mean is None else mean
        budget = AutoBudget(mean, least=least, most=most, step=step)
        _check_host_can_budget(model)
        if tokenizer.budget is not None:  # as calibrated, for the new mean
            budget.start_from(tokenizer.budget)
        tokenizer.set_budget(budget, num_rows)
        return
    if any(option is not None for option in (mean, least, most, step)):
        raise ValueError(f"mean, least, most and step need num_tokens='auto', got {num_tokens}")
    tokenizer.set_num_tokens(num_tokens, num_rows)


def _check_host_can_budget(model: nn.Module) -> None:
    """Refuse a model whose blocks, or whose wrapper, would look at the padding."""
    for name in ("_orig_mod", "module"):  # a compiled model, and one of several processes
        model = getattr(model, name, model)
    if not isinstance(model, Tokenizer) and not getattr(model, "takes_budgets", False):
        raise ValueError(
            f"num_tokens='auto' cannot be used in {type(model).__name__}, which would take padding "
            "for tokens; give a number of tokens, or set it on an adapted model of timm"
        )


@contextmanager
def steer(model: nn.Module, priority: Priority, *, weight: float = 2.0) -> Iterator[None]:
    """Direct tokens to what is important, in the calls made meanwhile: no training is needed.

    The model is steered whoever calls it: from several threads use `model(images, priority=...)`.

    `log score + weight * priority`, so a place of priority 1 gets about `exp(weight)` times as many
    tokens as without, as far as they reach; the number of tokens stays. Weight 0 changes nothing,
    to the last bit.

    Args:
        model: An adapted or a reshaped model, or a tokenizer.
        priority: A map `(B, h, w)` or, for each image, boxes `(M, 4)` or points `(M, 2)` in [0, 1]:
            see `dartok.core.steering.priority_map`.
        weight: Any finite number; negative pushes tokens away.
    Raises:
        ValueError: If the model has no tokenizer; in the calls, if the priority does not fit.
    Example:
        >>> import torch
        >>> from dartok.scorers import RegionTokenizer
        >>> tokenizer = RegionTokenizer(embed_dim=8, num_tokens=16, scorer="uniform")
        >>> images, box = torch.rand(1, 3, 64, 64), torch.tensor([[0.0, 0.0, 0.5, 0.5]])
        >>> with steer(tokenizer, [box], weight=2.0):
        ...     smallest = regions(tokenizer, images).areas().min()
        >>> bool(smallest < 1 / 32)
        True
    """
    with scored_of(model).steered(Steering(priority, weight)):
        yield


def set_strength(model: nn.Module, strength: float) -> None:
    """Set how far the regions leave the fixed grid: 0 not at all, 1 the full method.

    The strength is a buffer, saved with the weights; an averaged copy of the model (EMA) follows
    slowly unless it is set there too.

    Raises:
        ValueError: If `strength` is outside [0, 1] or the model has no tokenizer.
    Example:
        >>> from dartok.scorers import RegionTokenizer
        >>> tokenizer = RegionTokenizer(embed_dim=8, num_tokens=196)
        >>> set_strength(tokenizer, 0.5)
        >>> float(tokenizer.strength)
        0.5
    """
    scored_of(model).set_strength(strength)


def set_scan(model: nn.Module, kind: ScanName) -> None:
    """Choose how a Vision Mamba computes its selective scans: see `selective_scan` for the names.

    Raises:
        ValueError: If the name is unknown or the model has no selective scan.
        ImportError: If the package that it needs is not installed.
    Example:
        >>> from dartok.models.registry import create_model
        >>> model = create_model("vim_tiny")
        >>> set_scan(model, "associative")
        >>> model.layers[0].mixer.scan
        'associative'
    """
    scan_of(one_of("kind", kind, ScanName))
    mixers = [module for module in model.modules() if isinstance(module, Mixer)]
    if not mixers:
        raise ValueError(f"model must be a Vision Mamba, got {type(model).__name__}")
    for mixer in mixers:
        mixer.scan = kind


def regions(model: nn.Module, images: Tensor) -> Regions:
    """The regions that a model cuts images into; they are not kept in the model.

    In train mode this is a forward pass of the scorer like any other: its statistics move.

    Args:
        model: An adapted or a reshaped model, or a tokenizer.
        images: `(B, C, H, W)`, normalised as for the model.
    Raises:
        ValueError: If the images cannot be cut or the model has no tokenizer.
    Example:
        >>> import torch
        >>> from dartok.scorers import RegionTokenizer
        >>> tokenizer = RegionTokenizer(embed_dim=8, num_tokens=6, num_rows=2)
        >>> regions(tokenizer, torch.rand(1, 3, 40, 60)).boxes().shape
        torch.Size([1, 6, 4])
    """
    return scored_of(model).regions(images)
