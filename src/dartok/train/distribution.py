"""Spread a model over processes by PyTorch's own means, and collect its state again."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from dartok.train.world import World

__all__ = [
    "distribute",
    "exchange",
    "full_state",
    "load_optimiser",
    "load_state",
    "optimiser_state",
    "share_buffers",
    "whole",
]


def distribute(model: nn.Module, world: World, *, shard: bool) -> nn.Module:
    """The module to call in training: gradients are averaged over the processes.

    Args:
        model: On the world's device; with `shard` its parameters become shares of themselves
            (FSDP2, block by block), so an optimiser must be made afterwards.
        world: This process among all.
        shard: Whether each process keeps only its share of weights, gradients and optimiser state;
            else each keeps all (DDP).
    """
    if shard and world.size > 1:
        return _sharded(model, world)
    if world.size == 1:
        return model
    device_ids = [world.device.index] if world.device.type == "cuda" else None
    return DistributedDataParallel(model, device_ids=device_ids)


def exchange(trained: nn.Module, *, last: bool) -> AbstractContextManager[object]:
    """Around a micro-batch: processes exchange gradients once per step, with the last one."""
    if isinstance(trained, DistributedDataParallel) and not last:
        return trained.no_sync()
    if isinstance(trained, FSDPModule):
        return _gradient_sync(trained, last)
    return nullcontext()


def share_buffers(model: nn.Module, world: World) -> None:
    """Give every process the first one's buffers, such as running statistics."""
    if world.size > 1:
        for buffer in model.buffers():
            distributed.broadcast(buffer, src=0)


def full_state(model: nn.Module) -> dict[str, Any]:
    """The whole state of a model; of a sharded one on the CPU, for the main process only.

    Every process must call it.
    """
    if not isinstance(model, FSDPModule):
        return model.state_dict()
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    return get_model_state_dict(model, options=_options())


def load_state(model: nn.Module, state: dict[str, Any]) -> None:
    """Take over a whole state, strictly; each process must have read it.

    Raises:
        RuntimeError: If it is of another model.
    """
    if not isinstance(model, FSDPModule):
        model.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict

    set_model_state_dict(model, state, options=StateDictOptions(full_state_dict=True))


def optimiser_state(model: nn.Module, optimiser: Optimizer) -> dict[str, Any]:
    """The optimiser's whole state; of a sharded model by parameter names, for the main process."""
    if not isinstance(model, FSDPModule):
        return optimiser.state_dict()
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    return dict(get_optimizer_state_dict(model, optimiser, options=_options()))


def load_optimiser(model: nn.Module, optimiser: Optimizer, state: dict[str, Any]) -> None:
    """Take over what `optimiser_state` gave.

    Raises:
        ValueError: If it is of another model or optimiser.
    """
    if not isinstance(model, FSDPModule):
        optimiser.load_state_dict(state)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(model, optimiser, state, options=options)


def whole(value: Tensor) -> Tensor:
    """A tensor that may be shared out over processes, as one."""
    from torch.distributed.tensor import DTensor

    return value.full_tensor() if isinstance(value, DTensor) else value


def _sharded(model: nn.Module, world: World) -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh

    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()  # no other layout can be shared out
    mesh = init_device_mesh(world.device.type, (world.size,))
    for block in getattr(model, "blocks", ()):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


@contextmanager
def _gradient_sync(model: FSDPModule, last: bool) -> Iterator[None]:
    model.set_requires_gradient_sync(last)
    try:
        yield
    finally:
        model.set_requires_gradient_sync(True)


def _options() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(full_state_dict=True, cpu_offload=True)
