"""Models that share parameters and nothing else."""

import copy
from collections.abc import Iterable
from typing import TypeVar

from torch import nn

__all__ = ["twin"]

Model = TypeVar("Model", bound=nn.Module)


def twin(model: Model, exchange: Iterable[tuple[object, object]] = ()) -> Model:
    """A second model on the same parameters and buffers: what is set in one stays out of the other.

    Modules are copied, not shared, because transformers keeps settings in them: hooks that record
    hidden states are installed once per model, and on shared layers those of two models would
    record everything twice.

    Args:
        model: Any module.
        exchange: Pairs of an object of the model and what the twin has in its place.
    Example:
        >>> first = nn.Sequential(nn.Linear(2, 2))
        >>> second = twin(first)
        >>> second[0].weight is first[0].weight, second[0] is first[0]
        (True, False)
    """
    tensors = (*model.parameters(), *model.buffers())
    memo: dict[int, object] = {id(tensor): tensor for tensor in tensors}
    memo.update({id(old): new for old, new in exchange})
    return copy.deepcopy(model, memo)
