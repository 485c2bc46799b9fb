"""Metrics of a run, sent to the trackers that are asked for, beside `metrics.jsonl`."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from dartok.core.files import write_beside

__all__ = ["Tracker", "create_trackers"]

_PROJECT = "dartok"


class Tracker(Protocol):
    """Takes the metrics of a run, as `Records` does."""

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Note the values of a step; they may be NaN."""

    def close(self) -> None:
        """Write what is still held, and end the run there."""


def create_trackers(
    names: Sequence[str], folder: Path, settings: Mapping[str, object], *, first_step: int = 0
) -> list[Tracker]:
    """The trackers of a run, started; only its main process should.

    - "tensorboard": files below `folder/tensorboard`.
    - "wandb": files below `folder`; sent as wandb's own settings say (WANDB_MODE, WANDB_PROJECT).
    - "mlflow": `folder/mlflow.db`, or the server that MLFLOW_TRACKING_URI names.

    A run that resumes goes on under the same id, kept in `folder`. TensorBoard then drops the steps
    that are done again; the others show them twice.

    Args:
        names: Of the trackers.
        folder: Of the run; its name is the run's.
        settings: By the names of their flags.
        first_step: Steps done before this start; 0 begins a new run.
    Raises:
        ValueError: If a name is unknown, or wandb cannot start.
        ImportError: If a tracker's package is missing; names the extra.
    """
    unknown = [name for name in names if name not in _TRACKERS]
    if unknown:
        raise ValueError(f"track must be of {', '.join(_TRACKERS)}, got {unknown[0]!r}")
    return [_TRACKERS[name](folder, settings, first_step) for name in names]


class _TensorBoard:
    def __init__(self, folder: Path, settings: Mapping[str, object], first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard", "tensorboard", "train") from error
        where = str(folder / "tensorboard")
        self._writer: Any = SummaryWriter(where, purge_step=first_step + 1)
        lines = (f"    {name} = {value}" for name, value in settings.items())
        self._writer.add_text("settings", "\n".join(lines), 0)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    """Steps are a metric of their own: wandb's counter refuses to go back when a run resumes."""

    def __init__(self, folder: Path, settings: Mapping[str, object], first_step: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb", "wandb", "wandb") from error
        kept = _kept_id(folder / "wandb.id", first_step)
        try:
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                name=os.environ.get("WANDB_NAME", folder.name),
                dir=str(folder),
                id=kept,
                resume="allow" if kept else None,
                config=dict(settings),
                settings=wandb.Settings(console="off"),  # not what the terminal shows
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"track wandb cannot start ({reason}); log in by wandb login, or set "
                "WANDB_MODE=offline"
            ) from error
        _keep_id(folder / "wandb.id", self._run.id)
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def add(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """Through MLflow's client, which leaves its global state, and the user's other runs, alone."""

    def __init__(self, folder: Path, settings: Mapping[str, object], first_step: int) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read at import
        try:
            import alembic  # noqa: F401  # what mlflow-skinny leaves out, and a local store needs
            import sqlalchemy  # noqa: F401
            from mlflow import MlflowClient
        except ImportError as error:
            raise _missing("mlflow", "mlflow-skinny, sqlalchemy and alembic", "mlflow") from error
        local = f"sqlite:///{(folder / 'mlflow.db').resolve().as_posix()}"
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or local)
        kept = _kept_id(folder / "mlflow.id", first_step)
        self._id = kept or self._start(folder, settings)
        self._client.update_run(self._id, status="RUNNING")
        _keep_id(folder / "mlflow.id", self._id)

    def _start(self, folder: Path, settings: Mapping[str, object]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        known = self._client.get_experiment_by_name(name)
        experiment = known.experiment_id if known else self._client.create_experiment(name)
        run_id: str = self._client.create_run(experiment, run_name=folder.name).info.run_id
        for key, value in settings.items():
            self._client.log_param(run_id, key, value)
        return run_id

    def add(self, step: int, values: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now_ms, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._id)


_TRACKERS: dict[str, Callable[[Path, Mapping[str, object], int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _Wandb,
    "mlflow": _MLflow,
}


def _missing(name: str, package: str, extra: str) -> ImportError:
    return ImportError(f"track {name} needs {package}: pip install 'dartok[{extra}]'")


def _kept_id(path: Path, first_step: int) -> str | None:
    """The id under which a run that resumes is known, if it was tracked before."""
    return path.read_text().strip() if first_step and path.exists() else None


def _keep_id(path: Path, run_id: str) -> None:
    write_beside(path, lambda target: target.write_text(run_id + "\n"))
