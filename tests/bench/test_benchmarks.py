"""The scripts of `benchmarks/`, run as the README says."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason="the wheel does not carry benchmarks/"),
]


def run_script(name, *arguments):
    command = [sys.executable, str(BENCHMARKS / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)


def test_the_costs_are_those_of_the_authors():
    done = run_script("cost_table.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "darvit_sm_392p       392" in done.stdout


def test_the_speed_script_prints_every_limit():
    done = run_script("speed_cpu.py", "--processes", "2", "--rounds", "1", "--batch-size", "1")
    assert done.returncode in (0, 1), done.stderr  # one round on a busy machine proves no speed
    assert done.stdout.count("met") + done.stdout.count("NOT MET") == 5
    assert "float32" in done.stdout.splitlines()[0]


def test_the_sampling_script_finds_means_exact_and_points_not():
    done = run_script("sampling.py", "--sizes", "256", "448", "--rounds", "1", "--clock", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [line[2] for line in lines[:4]] == [
        "points",
        "oversample=2",
        "oversample=4",
        "antialias",
    ]
    plate = [float(line[3]) for line in lines[4:]]
    assert plate[0] > plate[1] > plate[2] > 0.01
    assert plate[3] < 1e-4


@pytest.mark.refuses
def test_the_speed_script_refuses_an_option_it_does_not_know():
    assert run_script("speed_cpu.py", "--turns", "3").returncode == 2


def test_the_elastic_script_compares_at_every_budget():
    arguments = ["--steps", "2", "--elastic-steps", "2", "3", "--test-canvases", "64"]
    done = run_script("elastic.py", *arguments, "--budgets", "4", "9")
    assert done.returncode in (0, 1), done.stderr  # two steps teach nothing
    assert done.stdout.count("largest shortfall") == 2
    assert "elastic 4..9, 3 steps: " in done.stdout
    assert "float32" in done.stdout.splitlines()[0]


def test_the_loop_overhead_script_prints_every_limit():
    done = run_script("loop_overhead.py", "--rounds", "2", "--clock", "cpu")
    assert done.returncode in (0, 1), done.stderr  # two rounds on a busy machine prove no speed
    assert done.stdout.count("met") + done.stdout.count("NOT MET") == 3
    assert "batches in memory" in done.stdout


def test_the_scan_speed_script_prints_every_limit():
    done = run_script("scan_speed.py", "--length", "16", "--rounds", "1")
    assert done.returncode in (0, 1), done.stderr  # one round on a busy machine proves no speed
    assert done.stdout.count(": met (") + done.stdout.count(": NOT MET (") == 4
    assert "float32" in done.stdout.splitlines()[0]


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["elastic.py", "loop_overhead.py", "scan_speed.py"])
def test_a_script_refuses_numbers_it_cannot_use(name):
    option = {"elastic.py": "--steps"}.get(name, "--rounds")
    done = run_script(name, option, "0")
    assert done.returncode == 2
    assert "got 0" in done.stderr
