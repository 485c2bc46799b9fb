"""A Vision Mamba that reads forwards, over tokens that come in parts."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from dartok.models.mamba.block import MambaBlock
from dartok.models.mamba.causal import MixerState
from dartok.models.mamba.vim import Vim

__all__ = ["Streamed", "stream"]


class Streamed(NamedTuple):
    """What one part of a sequence gives."""

    tokens: Float[Tensor, "B L D"]
    """Behind the last norm."""
    states: list[MixerState]
    """One for each block: what the next part starts from."""


def stream(
    model: Vim, tokens: Float[Tensor, "B L D"], states: Sequence[MixerState] | None = None
) -> Streamed:
    """All blocks and the last norm over the next part of a sequence.

    Parts, one after the other, give what the model gives for the whole; time and memory of a part
    do not grow with what was before. To ask at any time, give the class token as a part and keep
    the states from before it: it is then the last of what was read.

    Args:
        model: With `directions="forward"`.
        tokens: The part, positions added; of at least one token.
        states: What the part before returned; None at the start.
    Raises:
        ValueError: If the model reads in both directions, or the states do not fit.
    Example:
        >>> from torch import rand
        >>> options = {"directions": "forward", "class_token": "last"}
        >>> model = Vim(img_size=32, embed_dim=16, depth=2, **options)
        >>> first = stream(model, rand(1, 3, 16))
        >>> second = stream(model, rand(1, 5, 16), first.states)
        >>> answer = model.head(stream(model, model.cls_token, second.states).tokens[:, 0])
        >>> answer.shape
        torch.Size([1, 1000])
    """
    if states is not None and len(states) != len(model.layers):
        raise ValueError(
            f"states must be one for each of the {len(model.layers)} blocks, got {len(states)}"
        )
    hidden, residual, after = tokens, None, []
    for index, block in enumerate(model.layers):
        assert isinstance(block, MambaBlock)
        before = None if states is None else states[index]
        hidden, residual, state = block.resume(hidden, residual, before)
        after.append(state)
    final = model.norm_f(residual + model.drop_path(hidden))
    return Streamed(final.to(model.cls_token.dtype), after)
