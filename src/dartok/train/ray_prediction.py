"""Predictions by Ray Data: pictures spread over actors that each hold the model."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dartok.data.samples import BadSample
from dartok.train.pictures import Part, read_pictures
from dartok.train.prediction import Prediction, PredictJob, load_model, predict
from dartok.train.prediction_parts import predictions_of, table_of

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = ["predict_with_ray"]


def predict_with_ray(
    job: PredictJob, parts: Sequence[Part], *, actors: int = 1, gpu: bool = False
) -> Iterator[Prediction | BadSample]:
    """As `predict`, in order, by actors on the cluster that RAY_ADDRESS names, or here.

    Model, pictures and this process's folder must be at the same paths on every machine. Ray
    reports nothing to its makers, unless RAY_USAGE_STATS_ENABLED says so.

    Args:
        job: What is asked.
        parts: Such as `list_parts` gives.
        actors: Copies of the model that work at the same time.
        gpu: Whether each takes a GPU.
    Raises:
        ImportError: Without Ray; names the extra.
    """
    with _started():
        from ray import data

        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        items = data.from_items([_item(part) for part in parts])
        only_files = all(part.row_group is None for part in parts)
        tables = items.map_batches(
            _Actor,
            fn_constructor_args=(job, "cuda" if gpu else "cpu", Path.cwd()),
            batch_size=job.batch_size if only_files else 1,  # a row group is a batch and more
            compute=data.ActorPoolStrategy(size=actors),
            num_gpus=int(gpu),
        )
        for table in tables.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from predictions_of(table)


class _Actor:
    """Loads the model once, then answers batch after batch."""

    def __init__(self, job: PredictJob, device: str, folder: Path) -> None:
        os.chdir(folder)  # the actor is a process of its own; paths mean what they do to the caller
        self.job, self.device = job, torch.device(device)
        self.package = load_model(job)

    def __call__(self, batch: dict[str, Any]) -> Iterator["Table"]:
        columns = (batch[name].tolist() for name in ("path", "row_group", "first_row"))
        parts = [
            Part(Path(path), None if group < 0 else group, row)
            for path, group, row in zip(*columns, strict=True)
        ]
        pictures = read_pictures(parts, column=self.job.column)
        found = predict(self.package, pictures, self.job, device=self.device)
        while chunk := list(islice(found, self.job.batch_size)):
            yield table_of(chunk)


def _item(part: Part) -> dict[str, object]:
    group = -1 if part.row_group is None else part.row_group
    return {"path": str(part.path), "row_group": group, "first_row": part.first_row}


@contextmanager
def _started() -> Iterator[None]:
    """Ray, quiet; stopped again if it was not running."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
    try:
        import pyarrow  # noqa: F401
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError("engine ray needs Ray: pip install 'dartok[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        if ours:
            ray.shutdown()
