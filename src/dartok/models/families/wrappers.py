"""Models that hold an encoder: which part of one `adapt` carries over, and the whole around it."""

from typing import TypeVar

from torch import nn

from dartok.models.families import family_for, family_of, refuse_by_name, takes_any_length
from dartok.models.families.twins import twin

__all__ = ["around", "encoder_in"]

Host = TypeVar("Host", bound=nn.Module)


def encoder_in(host: nn.Module) -> str:
    """Where the one encoder of a host lies that a family knows: "" if the host is one itself.

    Raises:
        ValueError: If there is none or more than one, or what holds it may need a fixed grid.
    Example:
        >>> import timm
        >>> encoder_in(nn.Sequential(timm.create_model("test_vit"), nn.Linear(1000, 2)))
        '0'
    """
    if family_for(type(host)) is not None:
        return ""
    refuse_by_name(type(host))
    found = [name for name, module in host.named_modules() if family_for(type(module)) is not None]
    if not found:
        family_of(host)  # refuses, with what is known
    name = type(host).__name__
    if len(found) > 1:
        raise ValueError(
            f"adapt must know which encoder of {name} to carry over, got {len(found)}: "
            f"{', '.join(found)}; set one in its place, as {_by_hand(found[0])}"
        )
    if not takes_any_length(host):
        raise ValueError(
            f"adapt cannot carry over {name}: it may read the tokens of its encoder as a fixed "
            f"grid; if it does not, set {_by_hand(found[0])}"
        )
    return found[0]


def around(host: Host, place: str, model: nn.Module) -> Host:
    """The host with `model` in the place of its encoder: a new model on the same parameters.

    Example:
        >>> host = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> around(host, "1", nn.GELU())
        Sequential(
          (0): Linear(in_features=2, out_features=2, bias=True)
          (1): GELU(approximate='none')
        )
    """
    if not place:
        assert isinstance(model, type(host))
        return model
    encoder = host.get_submodule(place)
    exchange: list[tuple[object, object]] = [(encoder, model)]
    if hasattr(encoder, "config") and hasattr(model, "config"):
        # transformers tells the configurations of parts apart by identity.
        exchange.append((encoder.config, model.config))
    return twin(host, exchange)


def _by_hand(place: str) -> str:
    return f"model.{place} = dartok.adapt(model.{place})"
