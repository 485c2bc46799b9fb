"""Which module made the first value that is not finite."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["first_not_finite"]


def first_not_finite(
    model: nn.Module,
    run: Callable[[], Tensor],
    *,
    any_of: Callable[[bool], bool] = lambda flag: flag,
) -> str | None:
    """Repeat a forward and backward pass and name the module where it first goes wrong.

    Args:
        model: The model that `run` runs.
        run: Computes the loss; called once, and its gradient is taken
            into the parameters' own, which are emptied first.
        any_of: Whether a flag is set in any of the processes that run this together: they must
            agree to go backward.
    Returns:
        Such as "the output of blocks.3.attn", "the gradient at blocks.2.mlp" (of its inputs) or
        "the gradient of cls_token". "the loss" if every output is finite but the loss is not; None
        if nothing goes wrong this time.
    """
    found: list[str] = []
    model.zero_grad(set_to_none=True)
    # Compiled code does not know of hooks that were added after it.
    with torch.compiler.set_stance("force_eager"), _watch(model, found):
        loss = run()
        if not found and not loss.isfinite():
            found.append("the loss")
        if not any_of(bool(found)):
            loss.backward()
    for name, parameter in model.named_parameters():  # the last resort: they have no order
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            found.append(f"the gradient of {name}")
    return found[0] if found else None


@contextmanager
def _watch(model: nn.Module, found: list[str]) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        label = name or "the model"
        handles.append(module.register_forward_hook(_note(found, f"the output of {label}", 2)))
        handles.append(
            module.register_full_backward_hook(_note(found, f"the gradient at {label}", 1))
        )
    try:
        with warnings.catch_warnings():
            # It is no news that images need no gradient.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            yield
    finally:
        for handle in handles:
            handle.remove()


def _note(found: list[str], label: str, position: int) -> Callable[..., None]:
    """A hook that notes `label` if the hook's argument at `position` holds a value not finite."""

    def hook(*arguments: Any) -> None:
        if not found and any(not value.isfinite().all() for value in _tensors(arguments[position])):
            found.append(label)

    return hook


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
