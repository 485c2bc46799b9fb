"""What can be turned on a model at any time: its budget and strength; and what it looks at."""

from torch import Tensor, nn

from dartok.core.regions import Regions
from dartok.core.tokenizer import Tokenizer

__all__ = ["regions", "set_num_tokens", "set_strength", "tokenizer_of"]


def tokenizer_of(model: nn.Module) -> Tokenizer:
    """The tokenizer inside a model, or the model itself if it is one.

    Raises:
        ValueError: If there is none.
    """
    for module in model.modules():
        if isinstance(module, Tokenizer):
            return module
    raise ValueError(
        f"model must hold a dartok tokenizer, got {type(model).__name__}; see dartok.adapt"
    )


def set_num_tokens(model: nn.Module, num_tokens: int, *, num_rows: int | None = None) -> None:
    """Change the number of tokens per image, from the next call on.

    Args:
        model: An adapted model or a tokenizer.
        num_tokens: `>= 1`.
        num_rows: Rows of regions, from 1 to `num_tokens`; None for about square regions.
    Raises:
        ValueError: If a count is out of range or the model has no tokenizer.
    Example:
        >>> from dartok.scorers import RegionTokenizer
        >>> tokenizer = RegionTokenizer(embed_dim=8, num_tokens=196)
        >>> set_num_tokens(tokenizer, 121)
        >>> tokenizer.num_tokens
        121
    """
    tokenizer_of(model).set_num_tokens(num_tokens, num_rows)


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
    tokenizer_of(model).set_strength(strength)


def regions(model: nn.Module, images: Tensor) -> Regions:
    """The regions that a model cuts images into; they are not kept in the model.

    In train mode this is a forward pass of the scorer like any other: its statistics move.

    Args:
        model: An adapted model or a tokenizer.
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
    return tokenizer_of(model).regions(images)
