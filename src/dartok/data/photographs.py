"""Real photographs that ship inside an installed package."""

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["PhotographName", "load_photograph"]

PhotographName = Literal["astronaut", "chelsea", "coffee", "rocket"]


def load_photograph(name: PhotographName) -> Float[Tensor, "3 H W"]:
    """One of scikit-image's sample pictures, read from its wheel: nothing is downloaded.

    "chelsea" (a cat) and "coffee" are CC0, "astronaut" and "rocket" are in the public domain.

    Returns:
        Float32 in [0, 1].
    Raises:
        ImportError: Without scikit-image, the extra `demo`.
        ValueError: If `name` is unknown.
    Example:
        >>> load_photograph("coffee").shape
        torch.Size([3, 400, 600])
    """
    if name not in get_args(PhotographName):
        known = ", ".join(get_args(PhotographName))
        raise ValueError(f"photograph must be one of {known}, got {name!r}")
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError(
            "the photographs need scikit-image: pip install 'dartok[demo]'"
        ) from error
    pixels = torch.from_numpy(getattr(data, name)())
    return pixels.permute(2, 0, 1).float() / 255
