"""The line that every figure carries: device, threads, versions and dtype."""

import platform
from importlib.metadata import version
from pathlib import Path

import torch

__all__ = ["describe_machine", "device_name"]

_PACKAGES = ("torch", "torchvision", "timm")


def describe_machine(device: torch.device, dtype: torch.dtype) -> str:
    """Device, threads, versions and dtype in one line, to print beside what was measured.

    Args:
        device: Where it was measured.
        dtype: What it was measured in.
    Example:
        >>> describe_machine(torch.device("cpu"), torch.float32).endswith(", float32")
        True
    """
    threads = f"{torch.get_num_threads()} threads, " if device.type == "cpu" else ""
    versions = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    python = platform.python_version()
    kind = str(dtype).removeprefix("torch.")
    return f"{device_name(device)}, {threads}Python {python}, {versions}, {kind}"


def device_name(device: torch.device) -> str:
    """The device as its maker calls it, as far as the system tells.

    Example:
        >>> device_name(torch.device("cpu")) != ""
        True
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _processor() or platform.processor() or platform.machine() or device.type


def _processor() -> str:
    """Linux tells the processor's name in a file; other systems have no such file."""
    listing = Path("/proc/cpuinfo")
    if not listing.is_file():
        return ""
    names = [
        line.partition(":")[2].strip()
        for line in listing.read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return names[0] if names else ""
