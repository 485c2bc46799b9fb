"""`dartok audit`: before any training, whether adaptive tokens can help on a data set."""

import json as json_module
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter
from rich.table import Table

from dartok.cli.console import print_table, say

if TYPE_CHECKING:
    from dartok.bench.ceiling_audit import Audit, Cut, Row

__all__ = ["AuditConfig", "audit"]

_MOST_TOKENS = 65536
_HELPFUL = 0.01
"""Of the mIoU: what an oracle must give for regions to be called helpful."""
_SHARES = (0.5, 0.9)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What is audited."""

    task: Literal["segmentation"] = "segmentation"
    """What the tokens are for."""
    num_tokens: str = "49,98,196,392"
    """Regions per picture: one number, or several as in 98,196."""
    scorer: str = "edge"
    """Scorer of the adaptive regions, untrained: edge, conv, detail, mobilenetv3_small, ..."""
    scorer_weights: str | None = None
    """Weights of the scorer: a file, or `imagenet`."""
    model: Path | None = None
    """Folder of a trained model, such as best/ of a run: its regions too."""
    split: str = "train"
    """Part of the data set: train, val, or another that it has."""
    limit: int = 200
    """The most pictures looked at, evenly spread over the part."""
    per_class: bool = False
    """Also print the ceiling of each class, and the share of its objects that is resolved."""
    json: bool = False
    """Print JSON instead of tables, each class included."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise ValueError(f"limit must be >= 1, got {self.limit}")
        _ = self.budgets

    @property
    def budgets(self) -> tuple[int, ...]:
        """The numbers of tokens."""
        parts = [part.strip() for part in self.num_tokens.split(",")]
        if not all(part.isdigit() and 1 <= int(part) <= _MOST_TOKENS for part in parts):
            raise ValueError(
                f"num-tokens must be numbers from 1 to {_MOST_TOKENS} as in 98,196, "
                f"got {self.num_tokens!r}"
            )
        return tuple(dict.fromkeys(int(part) for part in parts))


def audit(data: Path, /, *, config: AuditConfig = AuditConfig()) -> None:
    """Say how well tokens can do at most on pictures with label maps, before any training.

    If every region got one class, no model could exceed the ceiling, and one that knew the labels
    would attain what is printed beside it. Compared are the fixed grid, the regions of an untrained
    scorer, and those of an oracle that knows where the boundaries are.

    Args:
        data: Folder of ADE20K, Cityscapes, PASCAL VOC 2012 or CamVid, or your own with classes.txt,
            images/train, labels/train.
        config: The options.
    """
    from dartok.bench.ceiling_audit import audit_ceilings
    from dartok.data.label_maps import open_label_maps
    from dartok.scorers import create_scorer

    source = open_label_maps(data, config.split)
    scorer = create_scorer(config.scorer, weights=config.scorer_weights).eval()
    result = audit_ceilings(
        source,
        budgets=config.budgets,
        scorer=scorer,
        scorer_name=config.scorer,
        limit=config.limit,
        model_cut=None if config.model is None else _model_cut(config.model),
    )
    if config.json:
        say(json_module.dumps([_as_json(row, result) for row in result.rows]))
        return
    taken = f"{result.num_pictures} of {len(source)} pictures of {config.split}"
    spread = ", evenly spread" if result.num_pictures < len(source) else ""
    say(f"{taken}{spread}; {len(result.class_names)} classes")
    _print_rows(result.rows)
    if config.per_class:
        for num_tokens in config.budgets:
            say(f"\n{num_tokens} tokens")
            _print_classes([r for r in result.rows if r.num_tokens == num_tokens], result)
    say(f"\n{verdict(result.rows)}")


def _model_cut(folder: Path) -> "Cut":
    from dartok.bench.ceiling_audit import model_regions
    from dartok.train.package import load_package

    package = load_package(folder)
    return model_regions(package.model, package.pixels)


def _print_rows(rows: list["Row"]) -> None:
    table = Table(box=None, pad_edge=False)
    names = ("ceiling mIoU", "attained mIoU", "half resolved", "90 % resolved", "objects resolved")
    for name in ("tokens", "regions", *names):
        table.add_column(name, justify="left" if name == "regions" else "right")
    for row in rows:
        kind = f"{row.kind} ({row.setting})" if row.setting else row.kind
        reached = [_percent(row.ceiling.miou), _percent(row.ceiling.attained_miou)]
        sides = [_side(row.smallest_px(share)) for share in _SHARES]
        table.add_row(str(row.num_tokens), kind, *reached, *sides, _percent(row.resolved_share))
    print_table(table)


def _print_classes(rows: list["Row"], result: "Audit") -> None:
    """Classes down, kinds of regions across."""
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    for name in ("objects", *(f"{row.kind} IoU" for row in rows)):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_column(f"{row.kind} resolved", justify="right")
    for label, name in enumerate(result.class_names):
        number = int((rows[0].objects.label == label).sum())
        highest = [_percent(float(row.ceiling.highest[label])) for row in rows]
        resolved = [_percent(float(row.resolved_by_class[label])) for row in rows]
        table.add_row(name, str(number), *highest, *resolved)
    print_table(table)


def verdict(rows: list["Row"]) -> str:
    """One sentence: whether adaptive regions can help, and by how many points of mIoU."""
    from dartok.bench.ceiling_audit import FIXED, ORACLE

    fixed = {row.num_tokens: row.ceiling.miou for row in rows if row.kind == FIXED}
    gains: dict[str, list[float]] = {}
    for row in rows:
        if row.kind != FIXED:
            gain = row.ceiling.miou - fixed[row.num_tokens]
            gains.setdefault(row.kind, []).append(gain)
    best = max(gains[ORACLE])
    can = "can help here" if best >= _HELPFUL else "can hardly help here"
    told = [
        f"those of {'the model' if kind == 'model' else kind} by {_points(values)}"
        for kind, values in gains.items()
        if kind != ORACLE
    ]
    return (
        f"Adaptive regions {can}: against the fixed grid, those of an oracle move the ceiling by "
        f"{_points(gains[ORACLE])} points of mIoU, {', '.join(told)}."
    )


def _as_json(row: "Row", result: "Audit") -> dict[str, object]:
    classes = {
        name: {
            "ceiling": _number(float(row.ceiling.highest[label])),
            "attained": _number(float(row.ceiling.attained[label])),
            "objects_resolved": _number(float(row.resolved_by_class[label])),
        }
        for label, name in enumerate(result.class_names)
    }
    return {
        "num_tokens": row.num_tokens,
        "regions": row.kind,
        "setting": row.setting,
        "ceiling_miou": row.ceiling.miou,
        "attained_miou": row.ceiling.attained_miou,
        "half_resolved_px": row.smallest_px(_SHARES[0]),
        "90_percent_resolved_px": row.smallest_px(_SHARES[1]),
        "objects_resolved": _number(row.resolved_share),
        "objects": len(row.objects.label),
        "pictures": result.num_pictures,
        "classes": classes,
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


def _side(side_px: float | None) -> str:
    return "-" if side_px is None else f"from {side_px:.0f} px"


def _points(gains: list[float]) -> str:
    low, high = (f"{100 * gain:+.1f}" for gain in (min(gains), max(gains)))
    return low if low == high else f"{low} to {high}"
