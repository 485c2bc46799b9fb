"""Trackers: what is added can be read back, also after a resume; nothing leaves the folder."""

import json
import math
import struct
import sys
import time

import pytest
from refusals import refused

from dartok.train.trackers import create_trackers

WAIT_S = 60
SETTINGS = {"model": "test_vit", "learning-rate": 0.001, "val": None}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A run's folder; whatever a tracker keeps elsewhere goes beside it, and nothing is sent."""
    for name in ("CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(tmp_path / "elsewhere" / name))
    for name in ("WANDB_PROJECT", "WANDB_NAME", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    (tmp_path / "a run").mkdir()
    yield tmp_path / "a run"
    assert list((tmp_path / "cwd").iterdir()) == []


def track(name, folder, losses, first_step=0):
    """Losses by step, and one accuracy that is not a number, through a tracker."""
    (tracker,) = create_trackers([name], folder, SETTINGS, first_step=first_step)
    for step, loss in losses.items():
        tracker.add(step, {"loss": loss, "eval/top1": math.nan})
    tracker.close()


def read_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    assert math.isnan(events.Scalars("eval/top1")[0].value)
    return [(event.step, round(event.value, 6)) for event in events.Scalars("loss")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_each_step_once_also_after_a_resume(folder):
    track("tensorboard", folder, {1: 0.5, 2: 0.25, 3: 0.125})
    assert read_tensorboard(folder) == [(1, 0.5), (2, 0.25), (3, 0.125)]
    track("tensorboard", folder, {3: 7.0, 4: 8.0}, first_step=2)
    assert read_tensorboard(folder) == [(1, 0.5), (2, 0.25), (3, 7.0), (4, 8.0)]
    track("tensorboard", folder, {1: 9.0})
    assert read_tensorboard(folder) == [(1, 9.0)]


def read_mlflow(folder):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("dartok")
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"])
    for run in runs:
        assert run.data.params == {key: str(value) for key, value in SETTINGS.items()}
        assert (run.info.run_name, run.info.status) == (folder.name, "FINISHED")
        assert math.isnan(client.get_metric_history(run.info.run_id, "eval/top1")[0].value)
    histories = [client.get_metric_history(run.info.run_id, "loss") for run in runs]
    return [[(metric.step, metric.value) for metric in history] for history in histories]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow's own packages
def test_mlflow_goes_on_with_the_run_that_resumes_and_begins_another_for_a_new_one(folder):
    track("mlflow", folder, {1: 0.5, 2: 0.25})
    track("mlflow", folder, {3: 7.0}, first_step=2)
    assert read_mlflow(folder) == [[(1, 0.5), (2, 0.25), (3, 7.0)]]
    track("mlflow", folder, {1: 9.0})
    assert read_mlflow(folder) == [[(1, 0.5), (2, 0.25), (3, 7.0)], [(1, 9.0)]]


def wandb_records(path):
    """Records of wandb's file: after 7 bytes, chunks in blocks of 32 KiB as LevelDB's log has."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, data = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if (left := 32768 - place % 32768) < 7:
            place += left
        _, length, kind = struct.unpack_from("<IHB", content, place)
        data += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4) and place <= len(content):  # whole, or the last chunk
            yield Record.FromString(data)
            data = b""


def finished_records(path):
    """All of a file's records: wandb's own process writes the last ones after `finish`."""
    deadline = time.monotonic() + WAIT_S
    while True:
        found = list(wandb_records(path))
        if any(record.HasField("exit") for record in found):
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


def read_wandb(folder):
    """Id of each run that was written, and the step and loss of each of its lines."""
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        records = finished_records(path)
        (run_id,) = {record.run.run_id for record in records if record.run.run_id}
        lines = []
        for items in (record.history.item for record in records if record.history.item):
            values = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in items}
            assert math.isnan(values["eval/top1"])
            lines.append((values["step"], values["loss"]))
        found.append((run_id, lines))
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of wandb's own packages
def test_wandb_goes_on_under_the_id_of_the_run_that_resumes(folder):
    pytest.importorskip("wandb")
    track("wandb", folder, {1: 0.5, 2: 0.25})
    run_id = (folder / "wandb.id").read_text().strip()
    assert read_wandb(folder) == [(run_id, [(1, 0.5), (2, 0.25)])]
    track("wandb", folder, {2: 7.0}, first_step=1)
    assert (run_id, [(2, 7.0)]) in read_wandb(folder)
    track("wandb", folder, {1: 9.0})
    assert (folder / "wandb.id").read_text().strip() != run_id


@pytest.mark.refuses
@pytest.mark.filterwarnings("ignore")
def test_wandb_that_cannot_start_is_refused_in_one_line(folder, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def fail(**settings):
        raise wandb.errors.UsageError("No API key configured.\nUse `wandb login`.")

    monkeypatch.setattr(wandb, "init", fail)
    with refused(
        "track wandb cannot start (No API key configured. Use `wandb login`.); log in by "
        "wandb login, or set WANDB_MODE=offline"
    ):
        create_trackers(["wandb"], folder, SETTINGS)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("tensorboard", "torch.utils.tensorboard", "tensorboard: pip install 'dartok[train]'"),
        ("wandb", "wandb", "wandb: pip install 'dartok[wandb]'"),
        ("mlflow", "mlflow", "mlflow-skinny, sqlalchemy and alembic: pip install 'dartok[mlflow]'"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_missing_package_is_answered_by_its_extra(folder, monkeypatch, name, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as caught:
        create_trackers([name], folder, SETTINGS)
    assert str(caught.value) == f"track {name} needs {message}"


@pytest.mark.refuses
def test_an_unknown_tracker_is_refused(folder):
    with refused("track must be of tensorboard, wandb, mlflow, got 'neptune'"):
        create_trackers(["tensorboard", "neptune"], folder, SETTINGS)
