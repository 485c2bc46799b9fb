"""Options by name: refuse a name that is not one of them."""

from typing import Any, TypeVar, get_args

__all__ = ["one_of"]

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
        raise ValueError(f"{option} must be one of {', '.join(known)}, got {value!r}")
    return value
