"""Order within a sequence: the class token's place, and reading backwards, at any length."""

from typing import Literal, TypeGuard

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["ClassPlace", "class_first", "place_of", "reversed_within", "with_class_token"]

ClassPlace = Literal["middle", "first", "last"]
"""Where the class token stands among the N others: before number N // 2, before or behind all."""


def place_of(where: ClassPlace, num_tokens: int | Int[Tensor, "B"]) -> int | Int[Tensor, "B"]:
    """Index of the class token in the sequence, for all sequences or for each.

    Example:
        >>> [place_of(where, 196) for where in ("middle", "first", "last")]
        [98, 0, 196]
    """
    if where == "last":
        return num_tokens
    return num_tokens // 2 if where == "middle" else num_tokens * 0


def with_class_token(
    tokens: Float[Tensor, "B N D"],
    class_token: Float[Tensor, "#B 1 D"],
    place: int | Int[Tensor, "B"],
) -> Float[Tensor, "B N+1 D"]:
    """The tokens with the class token among them, at `place`.

    Example:
        >>> tokens = torch.tensor([[[1.0], [2.0], [0.0]]])
        >>> with_class_token(tokens, torch.tensor([[[9.0]]]), 1).flatten()
        tensor([1., 9., 2., 0.])
        >>> with_class_token(tokens, torch.tensor([[[9.0]]]), torch.tensor([2])).flatten()
        tensor([1., 2., 9., 0.])
    """
    one = class_token.expand(tokens.shape[0], -1, -1)
    if not _differs(place):
        return torch.cat([tokens[:, :place], one, tokens[:, place:]], dim=1)
    index = torch.arange(tokens.shape[1] + 1, device=tokens.device)
    source = torch.where(index < place[:, None], index + 1, index)
    source = source.masked_fill(index == place[:, None], 0)
    return _in_order(torch.cat([one, tokens], dim=1), source)


def class_first(
    sequence: Float[Tensor, "B N+1 D"], place: int | Int[Tensor, "B"]
) -> Float[Tensor, "B 1+N D"]:
    """The inverse of `with_class_token`: the class token in front, as timm's models have it.

    Example:
        >>> class_first(torch.tensor([[[1.0], [9.0], [2.0]]]), 1).flatten()
        tensor([9., 1., 2.])
    """
    if not _differs(place):
        one = sequence[:, place : place + 1]
        return torch.cat([one, sequence[:, :place], sequence[:, place + 1 :]], dim=1)
    index = torch.arange(sequence.shape[1], device=sequence.device)
    source = torch.where(index <= place[:, None], index - 1, index)
    return _in_order(sequence, torch.where(index == 0, place[:, None], source))


def reversed_within(
    sequence: Float[Tensor, "B L *rest"], lengths: Int[Tensor, "B"] | None
) -> Float[Tensor, "B L *rest"]:
    """Each sequence read backwards; its own inverse.

    With lengths, what lies behind a sequence's end stays there: read backwards, too, a sequence
    begins at its own first entry, so that no recurrence meets the padding before it.

    Example:
        >>> reversed_within(torch.tensor([[1.0, 2.0, 3.0, 0.0]]), torch.tensor([3]))
        tensor([[3., 2., 1., 0.]])
    """
    if lengths is None:
        return sequence.flip(1)
    index = torch.arange(sequence.shape[1], device=sequence.device)
    backwards = lengths[:, None] - 1 - index
    return _in_order(sequence, torch.where(backwards >= 0, backwards, index))


def _differs(place: int | Int[Tensor, "B"]) -> TypeGuard[Tensor]:
    """Whether each sequence has a place of its own; in a trace an int is a tensor, too."""
    return isinstance(place, Tensor) and place.ndim > 0


def _in_order(sequence: Tensor, source: Int[Tensor, "B L"]) -> Tensor:
    index = source.reshape(*source.shape, *[1] * (sequence.ndim - 2))
    return sequence.gather(1, index.expand(-1, -1, *sequence.shape[2:]))
