"""The configuration as a TOML file: the record of a run, and what another can start from."""

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

from dartok.core.files import write_beside
from dartok.train.config import TrainConfig

__all__ = ["flat", "same_run", "write_config"]

_MAY_CHANGE = {
    "out", "resume", "device", "workers", "save_every", "eval_every", "keep_last", "max_bad_share",
    "track",
}  # fmt: skip
"""Settings that do not change what is learnt."""


def write_config(config: TrainConfig, path: Path) -> None:
    """Write every setting as a line `flag = value`, under a comment for each part."""
    lines = ["# Every setting of a run: dartok train --config FILE repeats it."]
    for part in dataclasses.fields(config):
        lines += ["", f"# {part.name}"]
        for name, value in _plain(getattr(config, part.name)):
            flag = name.replace("_", "-")
            lines.append(f"# {flag}: unset" if value is None else f"{flag} = {_toml(value)}")
    text = "\n".join(lines) + "\n"
    write_beside(path, lambda target: target.write_text(text, encoding="utf-8"))


def same_run(config: TrainConfig, path: Path, *, stream: bool = False) -> None:
    """Refuse to continue a run with settings that change what is learnt.

    Args:
        config: Of the run that continues.
        path: The record of what it continues.
        stream: Whether its pictures come as a stream, whose order depends on the workers too.
    Raises:
        ValueError: Naming the first setting that differs, or if there is no readable record.
    """
    try:
        before = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(
            f"the record {path} of the run to resume cannot be read ({error}); choose another --out"
        ) from error
    for name, value in flat(config).items():
        flag = name.replace("_", "-")
        free = name in _MAY_CHANGE and not (stream and name == "workers")
        if not free and before.get(flag) != value:
            raise ValueError(
                f"{flag} must be {_shown(before.get(flag))}, as in the run to resume ({path}), "
                f"got {_shown(value)}; change it back, or choose another --out"
            )


def flat(config: TrainConfig) -> dict[str, object]:
    """Every setting by its name, whichever part it belongs to, as TOML holds it."""
    parts = (getattr(config, part.name) for part in dataclasses.fields(config))
    return {name: value for part in parts for name, value in _plain(part)}


def _plain(part: object) -> Iterator[tuple[str, object]]:
    assert dataclasses.is_dataclass(part)
    for entry in dataclasses.fields(part):
        value = getattr(part, entry.name)
        simple = value is None or isinstance(value, (bool, int, float, str))
        yield entry.name, value if simple else str(value)


def _toml(value: object) -> str:
    """Numbers, truth values and texts as TOML writes them, which is as JSON does."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _shown(value: object) -> str:
    return "unset" if value is None else repr(value)
