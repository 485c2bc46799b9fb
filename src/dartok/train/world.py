"""The processes of a run: one, or as many as torchrun started."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, distributed

__all__ = ["World", "start_world"]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class World:
    """This process among all of them."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=partial(torch.device, "cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def add_up(self, *tensors: Tensor) -> None:
        """Replace tensors by their sums over all processes."""
        if self.size > 1:
            for tensor in tensors:
                distributed.all_reduce(tensor)

    def gather(self, value: object) -> list[object]:
        """The value of every process, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[object] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values

    def any_of(self, flag: bool) -> bool:
        """Whether the flag of any process is set."""
        return any(self.gather(flag))

    def in_step(self, items: Iterable[T]) -> Iterator[T | None]:
        """As many items as the process with the most of them has; None where this one has no more.

        Example:
            >>> list(World().in_step("ab"))
            ['a', 'b']
        """
        remaining = iter(items)
        while self.any_of((item := next(remaining, None)) is not None):
            yield item

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()


@contextmanager
def start_world(device: str = "auto") -> Iterator[World]:
    """Join the processes that torchrun started, if it did, and leave them at the end.

    Args:
        device: "auto" for a GPU if there is one, each process its own; or a device's name.
    Raises:
        ValueError: If the device does not exist here.
    Example:
        >>> with start_world("cpu") as world:
        ...     world.size
        1
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    place = _device(device, int(os.environ.get("LOCAL_RANK", 0)))
    if place.type == "cuda":
        torch.cuda.set_device(place)  # whose generator is the one that is seeded
    if size == 1:
        yield World(device=place)
        return
    distributed.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield World(rank=rank, size=size, device=place)
    finally:
        distributed.destroy_process_group()


def _device(name: str, local_rank: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(f"cuda:{local_rank}" if name == "cuda" else name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise ValueError(f"device {name!r} is not to be had here ({reason}); try cpu") from error
    return device
