"""Metrics of a run, written as it goes: JSON lines, and TensorBoard where asked for."""

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["Records", "read_records"]


class Records:
    """Appends one JSON object per report to `metrics.jsonl`.

    When a run resumes, lines of steps that will be done again are dropped first.

    Args:
        path: The file.
        first_step: Steps done before this start.
    """

    def __init__(self, path: Path, *, first_step: int = 0) -> None:
        self.path = path
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= first_step]
        path.write_text("".join(line + "\n" for line in kept))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values of a step; a process that is killed loses at most this line."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")

    def close(self) -> None:
        """Nothing is kept open."""


def read_records(path: Path) -> list[dict[str, float]]:
    """Every line of a `metrics.jsonl`."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> list[str]:
    """The whole lines of a file; a killed process may have left part of one."""
    if not path.exists():
        return []
    return [line for line in path.read_text().split("\n") if line.endswith("}")]
