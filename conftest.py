"""For every test and docstring example: no network, and what a mark or a notice means."""

import os
from importlib.util import find_spec

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub: a blocked download hangs

collect_ignore = [] if find_spec("triton") else ["src/dartok/models/scan/triton_scan.py"]
"""Examples of a module that cannot be imported here: triton comes with PyTorch for CUDA."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none; an example may say what a user should know."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            item.add_marker(pytest.mark.filterwarnings("ignore::UserWarning"))
        if item.get_closest_marker("gpu") and not has_cuda():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


def has_cuda() -> bool:
    """Asked only when a test needs it: torch takes seconds to import."""
    import torch

    return torch.cuda.is_available()
