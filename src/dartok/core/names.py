"""Options and counts: refuse a name that is not one of the known, a number that is not whole."""

from numbers import Integral
from typing import Any, TypeVar, get_args

__all__ = ["one_of", "whole_number"]

Name = TypeVar("Name", bound=str)


def one_of(option: str, value: Name, names: Any) -> Name:
    """`value`, if it is one of the `Literal` type `names`.

    Raises:
        ValueError: Naming the option, its names and the value.
    Example:
        >>> from typing import Literal
        >>> one_of("sampling", "corner", Literal["centred", "corner"])
        'corner'
    """
    known = get_args(names)
    if value not in known:
        shown = ", ".join(name or "''" for name in known)
        raise ValueError(f"{option} must be one of {shown}, got {value!r}")
    return value


def whole_number(option: str, value: object) -> int:
    """`value`, if it is a whole number of at least 1.

    Raises:
        ValueError: Naming the option and the value.
    Example:
        >>> whole_number("num_tokens", 196)
        196
    """
    if not isinstance(value, Integral):
        raise ValueError(f"{option} must be a whole number, got {value!r}")
    if value < 1:
        raise ValueError(f"{option} must be >= 1, got {value}")
    return int(value)
