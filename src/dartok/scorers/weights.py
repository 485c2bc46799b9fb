"""Read and write state dicts: never executing what a file says, and never half a file."""

import argparse
import pickle
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from zipfile import BadZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from dartok.core.files import write_beside

__all__ = ["load_strictly", "model_in", "read_state", "write_state"]

_MOST_NAMED = 4

_READING_ERRORS = (
    SafetensorError,
    pickle.UnpicklingError,
    BadZipFile,
    RuntimeError,
    OSError,
    # What the unpickler raises for bytes that are no pickle at all:
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    struct.error,
)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a `.safetensors` file or a torch file, on the CPU.

    A torch file may hold the state dict itself or under "model" (training checkpoints, with or
    without `args`). Nothing but tensors and plain containers is unpickled (`weights_only=True`).

    Raises:
        ValueError: If the file is missing, unreadable, truncated, or holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"checkpoint {path} is not a file; check the path")
    content = _read(path)
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not _all_tensors(state):
        raise ValueError(
            f"checkpoint {path} holds no state dict; expected named tensors, bare or under 'model'"
        )
    return dict(state)


def model_in(path: str | Path) -> str | None:
    """The model that a file of ours says it is of: "model" in the notes of a `.safetensors` file.

    None where it does not say, or is another kind of file.
    """
    if Path(path).suffix != ".safetensors":
        return None
    with safe_open(path, "pt") as file:
        return (file.metadata() or {}).get("model")


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except _READING_ERRORS as error:
        # The first sentence only: torch goes on to advise unpickling without its safeguard.
        reason = f"{type(error).__name__}: {error}".split("\n")[0].split(". ")[0]
        raise ValueError(
            f"checkpoint {path} cannot be read ({reason}); it may be truncated, or not a checkpoint"
        ) from error


def _all_tensors(state: Mapping[object, object]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())


def load_strictly(module: nn.Module, state: Mapping[str, Tensor], *, source: str) -> None:
    """Load `state` into `module` if names and shapes agree exactly; else change nothing.

    Raises:
        ValueError: Naming the missing, unexpected and misshapen entries, in one line.
    Example:
        >>> load_strictly(nn.Linear(2, 1), {"weight": torch.ones(1, 3)}, source="a.pth")
        Traceback (most recent call last):
        ValueError: a.pth does not fit Linear: missing: bias; misshapen: weight (1, 3), not (1, 2)
    """
    own = module.state_dict()
    misshapen = [
        f"{name} {tuple(state[name].shape)}, not {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    faults = {
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
        "misshapen": misshapen,
    }
    if any(faults.values()):
        listed = "; ".join(f"{kind}: {_few(names)}" for kind, names in faults.items() if names)
        raise ValueError(f"{source} does not fit {type(module).__name__}: {listed}")
    module.load_state_dict(state)


def _few(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def write_state(
    state: Mapping[str, Tensor], path: str | Path, *, metadata: Mapping[str, str]
) -> None:
    """Write a state dict as safetensors: beside its place first, then renamed.

    Raises:
        ValueError: If the folder does not exist or the name does not end in `.safetensors`.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"output must end in .safetensors, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"output folder {path.parent} does not exist; create it first")
    content = save({name: value.contiguous() for name, value in state.items()}, dict(metadata))
    write_beside(path, lambda target: target.write_bytes(content))
