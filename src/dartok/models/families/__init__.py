"""Kinds of hosts that `adapt` can carry over: one file for each, imported when a host needs it."""

import importlib
from collections.abc import Iterator
from types import ModuleType

from torch import nn

from dartok.models.families.parts import Family, Parts

__all__ = ["Family", "Parts", "family_for", "family_of", "refuse_by_name", "takes_any_length"]

_HOMES = {
    "timm": ("timm_vit", "timm_eva", "timm_relative", "timm_naflex"),
    "torchvision": ("torchvision_vit",),
    "transformers": ("hf_vit", "hf_dinov3", "hf_siglip2", "hf_backbones"),
    "dartok": ("vim",),
}
"""Library that a host's class comes from, and the files that know its models.

A file has `FAMILIES`, by class or by its dotted name; it may have `REFUSED`, which says why models
of a class cannot be carried over, and `WRAPPERS`, classes that hold an encoder and take its tokens
as a sequence of any length.
"""

_MOST_NAMES = 8
_ELSEWHERE = "; dartok.reshape warps pictures for any model instead"


def family_of(host: nn.Module) -> Family:
    """The family that a host belongs to, by its exact class: a subclass may compute anything.

    Raises:
        ValueError: If no family knows the class.
    """
    cls = type(host)
    family = family_for(cls)
    if family is not None:
        return family
    refuse_by_name(cls)
    library = _library_of(cls)
    known = [_short_name(key) for home in _homes_of(cls) for key in home.FAMILIES]
    if not known:
        raise ValueError(
            f"adapt cannot carry over {cls.__name__} of {library!r}: it knows models of "
            f"{', '.join(sorted(_HOMES))}"
        )
    names = ", ".join(f"{library}'s {name}" for name in known[:_MOST_NAMES])
    more = "" if len(known) <= _MOST_NAMES else f" and {len(known) - _MOST_NAMES} more"
    raise ValueError(
        f"adapt cannot carry over {cls.__name__}: it knows models of {names}{more}{_ELSEWHERE}"
    )


def refuse_by_name(cls: type[nn.Module]) -> None:
    """Refuse a class of which it is known why its models cannot be carried over.

    Raises:
        ValueError: Saying why.
    """
    for home in _homes_of(cls):
        reason = getattr(home, "REFUSED", {}).get(cls.__name__)
        if reason is not None:
            raise ValueError(f"adapt cannot carry over {cls.__name__}: {reason}{_ELSEWHERE}")


def family_for(cls: type[nn.Module]) -> Family | None:
    """The family of a class, or None if none knows it."""
    name = f"{cls.__module__}.{cls.__qualname__}"
    for home in _homes_of(cls):
        for key in (cls, name):
            if key in home.FAMILIES:
                return home.FAMILIES[key]
    return None


def takes_any_length(wrapper: nn.Module) -> bool:
    """Whether what holds an encoder is known to take any number of tokens, or is of the user's own.

    A class of a library of encoders must be known: many of them lay tokens out as a fixed grid.
    """
    cls = type(wrapper)
    if _library_of(cls) not in _HOMES:
        return True
    return any(cls.__name__ in getattr(home, "WRAPPERS", ()) for home in _homes_of(cls))


def _homes_of(cls: type[nn.Module]) -> Iterator[ModuleType]:
    for home in _HOMES.get(_library_of(cls), ()):
        yield importlib.import_module(f"{__name__}.{home}")


def _library_of(cls: type[nn.Module]) -> str:
    return cls.__module__.split(".")[0]


def _short_name(key: type[nn.Module] | str) -> str:
    return key.split(".")[-1] if isinstance(key, str) else key.__name__
