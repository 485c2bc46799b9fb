"""Shared by every test: seeds, no network, deterministic hypothesis, the golden folder."""

import importlib.util
import os
import random
from pathlib import Path
from types import ModuleType

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub: a blocked download hangs

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from dartok.core.notices import say_once

settings.register_profile(
    "dartok",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("dartok")

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
"""The authors' numbers, beside the repository; far too large to be part of it."""


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """The same random numbers for a test whether it runs alone, first or last."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    """What is said once is said again in each test, so that their order does not matter."""
    say_once.cache_clear()


@pytest.fixture(scope="session")
def shared_golden() -> Path:
    """Folder of the authors' numbers. Skips the test where it is missing."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden numbers at {GOLDEN}")
    return GOLDEN


@pytest.fixture(scope="session")
def filler(shared_golden: Path) -> ModuleType:
    """The authors' recipe for weights and pictures, which lies beside their numbers."""
    spec = importlib.util.spec_from_file_location("filler", shared_golden / "golden_filler.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
