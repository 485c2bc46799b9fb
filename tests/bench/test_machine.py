"""The line that says where a figure was measured."""

import platform

import timm
import torch
import torchvision

from dartok.bench.machine import describe_machine, device_name


def test_the_line_names_device_versions_and_dtype():
    line = describe_machine(torch.device("cpu"), torch.bfloat16)
    expected = {
        device_name(torch.device("cpu")),
        f"{torch.get_num_threads()} threads",
        f"Python {platform.python_version()}",
        f"timm {timm.__version__}",
        "bfloat16",
    }
    assert expected <= set(line.split(", "))
    assert torch.__version__.split("+")[0] in line
    assert torchvision.__version__.split("+")[0] in line


def test_the_line_is_one_line():
    assert len(describe_machine(torch.device("cpu"), torch.float32).splitlines()) == 1
