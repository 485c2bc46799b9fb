"""Plots of a training run: its curves, and which classes are taken for which."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from PIL import Image

from dartok.draw.files import save_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_confusion", "plot_curves"]

_MOST_NAMED = 40
"""Classes whose names fit on the axes."""
_SMOOTHED_POINTS = 100
_SHARES = {
    "eval/top1": "top-1 accuracy",
    "eval/mean_class_top1": "mean class top-1 accuracy",
    "eval/miou": "mIoU",
    "eval/pixel_accuracy": "pixel accuracy",
}
"""Measures that are drawn, where they were taken, and their names."""


def plot_curves(records: Sequence[Mapping[str, float]], path: Path) -> None:
    """Loss while training, and loss and accuracy or mIoU of the evaluations, over the steps.

    The loss is shown for each step and as a moving mean over a hundredth of them.

    Args:
        records: The lines of `metrics.jsonl`.
        path: PNG file to write; written beside, then renamed.
    Raises:
        ImportError: Without matplotlib, the extra `train`.
        ValueError: If there is no record.
    """
    if not records:
        raise ValueError("records must hold at least one step, got none")
    figure = _figure(width_in=9, height_in=4)
    losses, shares = figure.subplots(1, 2)
    steps, values = _series(records, "loss")
    losses.plot(steps, values, color="0.8", linewidth=0.8)
    losses.plot(steps, _smooth(values), label="training")
    losses.plot(*_series(records, "eval/loss"), "o-", label="evaluation")
    losses.set(xlabel="step", ylabel="loss / nats")
    losses.legend()
    for measure, label in _SHARES.items():
        if any(measure in record for record in records):
            steps, values = _series(records, measure)
            shares.plot(steps, 100 * values, "o-", label=label)
            shares.legend()
    shares.set(xlabel="step", ylabel="share / %")
    _save(figure, path)


def plot_confusion(
    counts: Float[np.ndarray, "K K"], class_names: Sequence[str], path: Path
) -> None:
    """How often each class (row) is taken for each class (column), as shares of the row.

    Args:
        counts: Pictures of class row that were taken for class column.
        class_names: K names; shown on the axes where they fit.
        path: PNG file to write; written beside, then renamed.
    Raises:
        ImportError: Without matplotlib, the extra `train`.
    """
    num_classes = len(class_names)
    side_in = min(20.0, 4 + 0.22 * num_classes)
    figure = _figure(width_in=side_in + 1, height_in=side_in)
    axes = figure.subplots()
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, label="share of the class / %", shrink=0.8)
    if num_classes <= _MOST_NAMED:
        axes.set_xticks(range(num_classes), class_names, rotation=90)
        axes.set_yticks(range(num_classes), class_names)
    axes.set(xlabel="predicted", ylabel="labelled")
    _save(figure, path)


def _figure(*, width_in: float, height_in: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'dartok[train]'") from error
    return Figure(figsize=(width_in, height_in), layout="constrained")


def _series(
    records: Sequence[Mapping[str, float]], name: str
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    pairs = [(record["step"], record[name]) for record in records if name in record]
    steps, values = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    return steps, values


def _smooth(values: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Mean over a window around each point, narrower at the ends."""
    half = len(values) // _SMOOTHED_POINTS
    windows = [values[max(0, at - half) : at + half + 1] for at in range(len(values))]
    return np.array([window.mean() for window in windows])


def _save(figure: "Figure", path: Path) -> None:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight")
    save_image(Image.open(buffer).convert("RGB"), path)
