"""Say a thing that a user should know once per process."""

import functools
import warnings

__all__ = ["say_once"]


@functools.cache
def say_once(message: str) -> None:
    """Warn with `message` (`UserWarning`) the first time it is said in this process."""
    warnings.warn(message, UserWarning, stacklevel=3)
