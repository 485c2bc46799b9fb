"""`dartok models`: what `create_model` knows."""

import difflib
import json as json_module
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, TypedDict

from rich.table import Table

from dartok.cli.console import print_table, say

if TYPE_CHECKING:
    from dartok.models.presets import Preset

__all__ = ["ModelEntry", "models"]

_CUTOFF = 0.3


class ModelEntry(TypedDict):
    """One line of the table."""

    name: str
    tokens: int | None
    rows: int | None
    parameters: int
    summary: str


def models(pattern: str = "*", /, *, json: bool = False) -> None:
    """List models: names, tokens, rows on square images, parameters, and what they are.

    Args:
        pattern: Part of a name, or a shell pattern such as '*_1??p'.
        json: Print JSON instead of a table.
    """
    entries = [_entry(name) for name in _names(pattern)]
    if json:
        say(json_module.dumps(entries, indent=2))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("name", no_wrap=True)
    for column in ("tokens", "rows", "parameters"):
        table.add_column(column, justify="right")
    table.add_column("what it is")
    for entry in entries:
        millions = f"{entry['parameters'] / 1e6:.2f} M"
        tokens, rows = (str(entry["tokens"] or "-"), str(entry["rows"] or "-"))
        counts = (tokens, rows, millions)
        table.add_row(f"[bold]{entry['name']}[/bold]", *counts, entry["summary"])
    print_table(table)
    say("dartok.adapt puts regions on any ViT of timm, and on vim_* and videomamba_* of stride 16.")


def _names(pattern: str) -> list[str]:
    from dartok.models import list_models

    names = list_models(pattern if any(c in pattern for c in "*?[") else f"*{pattern}*")
    if not names:
        near = difflib.get_close_matches(pattern.strip("*"), list_models(), n=3, cutoff=_CUTOFF)
        raise ValueError(
            f"no model matches {pattern!r}; nearest: {', '.join(near or list_models())}"
        )
    return names


def _entry(name: str) -> ModelEntry:
    from dartok.core.partition import default_num_rows
    from dartok.models.presets import PRESETS, RmtPreset, VideoPreset, VimPreset

    preset = PRESETS[name]
    layout: Preset = preset
    frames = preset.num_frames if isinstance(preset, VideoPreset) else 1
    if not isinstance(preset, VimPreset | RmtPreset):
        layout = replace(preset, num_tokens=196)
    return {
        "name": name,
        "tokens": preset.num_tokens,
        "rows": preset.num_tokens and default_num_rows(preset.num_tokens, 1, 1, num_frames=frames),
        "parameters": _num_parameters(layout),
        "summary": preset.summary,
    }


@cache  # models that differ in nothing but the tokens are built once
def _num_parameters(layout: "Preset") -> int:
    import torch

    from dartok.models.named import build_named
    from dartok.models.presets import PRESETS

    name = next(name for name, preset in PRESETS.items() if preset == layout)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_named(name).parameters())
