"""Kinds of hosts that `adapt` can carry over: one file for each, imported when a host needs it."""

import importlib

from torch import nn

from dartok.models.families.parts import Family, Parts

__all__ = ["Family", "Parts", "family_of"]

_HOMES = {
    "timm": ("timm_vit",),
}
"""Library that a host's class comes from, and the files that know its models."""


def family_of(host: nn.Module) -> Family:
    """The family that a host belongs to, by its exact class: a subclass may compute anything.

    Raises:
        ValueError: If no family knows the class.
    """
    library = type(host).__module__.split(".")[0]
    known: list[str] = []
    for home in _HOMES.get(library, ()):
        families = importlib.import_module(f"{__name__}.{home}").FAMILIES
        for cls, family in families.items():
            if type(host) is cls:
                return family
            known.append(f"{library}'s {cls.__name__}")
    name = type(host).__name__
    if not known:
        raise ValueError(
            f"adapt cannot carry over {name} of {library!r}: it knows models of "
            f"{', '.join(sorted(_HOMES))}"
        )
    raise ValueError(f"adapt cannot carry over {name}: it knows models of {', '.join(known)}")
