"""Files of a run: checkpoints to resume from, and the best model to use and share."""

import re
from pathlib import Path
from typing import Any

import torch

from dartok.core.files import write_beside

__all__ = ["latest_checkpoint", "load_checkpoint", "save_checkpoint"]

_FORMAT = 1
_NAME = re.compile(r"step-(\d+)\.pt")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], *, keep_last: int) -> Path:
    """Write `step-<step>.pt`, then remove all but the newest `keep_last`.

    The file is complete or absent, whatever stops the process; older ones go only once it is
    there.

    Raises:
        OSError: If it cannot be written, such as on a full disk; older ones then stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    content = {"format": _FORMAT, "step": step, **state}
    write_beside(path, lambda target: torch.save(content, target))
    for old in [*_checkpoints(folder)[:-keep_last], *folder.glob(".step-*.pt.*")]:
        old.unlink()  # what is half-written is of a process that was killed
    return path


def latest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint with the most steps, if there is any."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint; nothing in it is executed.

    Raises:
        ValueError: If it is not one of ours, or damaged.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise ValueError(
            f"checkpoint {path} cannot be read ({reason}); remove it to resume from the one before"
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"checkpoint {path} was not written by dartok train; check the path")
    return content


def _checkpoints(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if _NAME.fullmatch(path.name))
