"""Real processes: killed in the middle and resumed, and two that learn what one does."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from states import difference, lines_of, load, losses_of, steps_of

from dartok.train.checkpoints import latest_checkpoint

pytestmark = pytest.mark.slow

ONE = [sys.executable, "-m", "dartok"]
TWO = [
    sys.executable,
    *["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "dartok"],
]
WAIT_S = 240


@pytest.fixture(scope="module")
def alone():
    """The environment of a process that uses one thread."""
    return os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Seven pictures to evaluate on, in folders named after two of the digits."""
    root = tmp_path_factory.mktemp("few") / "val"
    rng = np.random.default_rng(0)
    for name, count in (("0", 4), ("1", 3)):
        (root / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
            Image.fromarray(noise).save(root / name / f"{number}.png")
    return root


def command(program, out, few, **settings):
    usual = {
        "data": "digits",
        "val": few,
        "model": "test_vit",
        "num_tokens": "20..36",
        "num_digits": 64,
        "batch_size": 16,
        "eval_every": 100,
        "workers": 0,
        "device": "cpu",
        "out": out,
    }
    given = {f"--{k.replace('_', '-')}": v for k, v in (usual | settings).items() if v is not None}
    flags = [(flag,) if value is True else (flag, str(value)) for flag, value in given.items()]
    return [*program, "train", *(part for pair in flags for part in pair)]


def finish(arguments, environment):
    done = subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def children_of(pid):
    """Ids of the processes that a process started, and of theirs."""
    task = Path(f"/proc/{pid}/task/{pid}/children")
    direct = [int(word) for word in task.read_text().split()]
    return [child for one in direct for child in (one, *children_of(one))]


def kill_after(arguments, environment, out, step):
    """Start a run, and once a step is recorded kill all its processes without notice."""
    process = subprocess.Popen(
        arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + WAIT_S
    metrics = out / "metrics.jsonl"
    while f'{{"step": {step},' not in (metrics.read_text() if metrics.exists() else ""):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)  # so that torchrun cannot tell its processes to end well
    for pid in (*children_of(process.pid), process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find processes")
@pytest.mark.parametrize(
    ("program", "shard"),
    [(ONE, None), (TWO, None), (TWO, True)],
    ids=["one process", "two processes", "two shards"],
)
def test_a_run_that_is_killed_and_resumed_ends_bit_for_bit_as_if_it_had_not_been(
    program, shard, few, alone, tmp_path
):
    settings = {
        "shard": shard,
        "steps": 10,
        "save_every": 2,
        "ema_decay": 0.9,
        "drop_path": 0.2,
        "mixup": 0.5,
    }
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(command(program, whole, few, **settings), alone)
    kill_after(command(program, cut, few, **settings), alone, cut, step=5)
    assert latest_checkpoint(cut / "checkpoints").name < "step-00000010.pt"
    done = finish([*command(program, cut, few, **settings), "--resume"], alone)
    assert f"resuming {cut} at step" in done.stdout
    assert difference(load(whole, 10), load(cut, 10)) == ""
    assert losses_of(whole) == losses_of(cut)
    assert steps_of(cut, "loss") == list(range(1, 11))
    best = Path("best") / "model.safetensors"
    assert (whole / best).read_bytes() == (cut / best).read_bytes()


@pytest.mark.parametrize(
    ("settings", "atol_nats"),
    [
        ({"scorer": "conv"}, 1e-3),
        ({"scorer": "conv", "shard": True, "accumulate": 2}, 1e-3),
        # The last bias of this scorer has no gradient but rounding, which Adam scales up to a walk;
        # nothing comes of it in training, but a little where running statistics lag behind it.
        ({"scorer": "pixels", "accumulate": 2}, 3e-2),
    ],
    ids=["conv", "shards and micro-batches", "score statistics and micro-batches"],
)
def test_two_processes_learn_what_one_does_with_the_same_total_batch(
    settings, atol_nats, few, alone, tmp_path
):
    settings = settings | {"steps": 50, "ema_decay": 0.9}
    one, two = tmp_path / "one", tmp_path / "two"
    finish(command(ONE, one, few, **settings | {"shard": None}), alone)
    finish(command(TWO, two, few, **settings), alone)
    losses = [[line["loss"] for line in lines_of(out) if "loss" in line] for out in (one, two)]
    assert len(losses[0]) == 50
    assert np.abs(np.subtract(*losses)).max() < 1e-4
    assert np.std(losses[0]) > 0.01, "else the test shows nothing"
    for out in (one, two):  # seven pictures are an odd share for two processes
        assert [line["eval/images"] for line in lines_of(out) if "eval/top1" in line] == [7]
    first, second = (lines_of(out)[-1] for out in (one, two))
    assert second["eval/loss"] == pytest.approx(first["eval/loss"], abs=atol_nats)


@pytest.mark.refuses
@pytest.mark.parametrize("shard", [None, True], ids=["copies", "shards"])
def test_a_loss_that_is_not_finite_ends_all_processes(shard, few, alone, tmp_path):
    """A learning rate that ruins the weights of a fixed grid at the first step."""
    settings = {"steps": 3, "learning_rate": 1e30, "warmup_steps": 0, "num_tokens": None}
    settings |= {"shard": shard}
    done = subprocess.run(
        command(TWO, tmp_path / "run", few, **settings),
        env=alone,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode != 0
    assert re.search("must be finite, got .* at step 2, first in the output of", done.stderr)
    assert "Traceback" not in done.stderr.split("dartok: error")[0]
