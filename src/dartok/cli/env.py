"""`dartok env`: versions, devices, and which fast paths are in use."""

import json as json_module
import platform
import re
from collections import defaultdict
from importlib import metadata

from rich.markup import escape
from rich.table import Table

from dartok import __version__
from dartok.cli.console import print_table, say

__all__ = ["env"]

_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "safetensors")
_EXTRA_REQUIREMENT = re.compile(r"""^([\w.-]+).*;\s*extra\s*==\s*['"]([\w-]+)['"]""")
_FOR_DEVELOPERS = ("dev", "test")


def env(*, json: bool = False) -> None:
    """Print versions, devices, and which fast paths are in use.

    Args:
        json: Print JSON instead of a table.
    """
    report = {
        "versions": _versions(),
        "extras": _extras(),
        "devices": _devices(),
        "fast paths": _fast_paths(),
    }
    if json:
        say(json_module.dumps(report, indent=2))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for section, entries in report.items():
        table.add_row(f"[bold]{section}[/bold]")
        for name, value in entries.items():
            table.add_row(f"  {name}", escape(value))
    print_table(table)


def _versions() -> dict[str, str]:
    own = {"dartok": __version__, "python": platform.python_version()}
    return own | {package: _version(package) or "not installed" for package in _PACKAGES}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> dict[str, str]:
    """For each extra its packages with their versions, or how to get those that are missing."""
    packages = defaultdict(list)
    for requirement in _requirements():
        match = _EXTRA_REQUIREMENT.match(requirement)
        if match and match[2] not in _FOR_DEVELOPERS:
            packages[match[2]].append(match[1])
    return {extra: _extra_status(extra, names) for extra, names in sorted(packages.items())}


def _requirements() -> list[str]:
    """What the installed package asks for; nothing where only the source folder is on the path."""
    try:
        return metadata.requires("dartok") or []
    except metadata.PackageNotFoundError:
        return []


def _extra_status(extra: str, packages: list[str]) -> str:
    versions = {package: _version(package) for package in packages}
    present = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    missing = ", ".join(name for name, version in versions.items() if version is None)
    remedy = f"missing {missing}: pip install 'dartok[{extra}]'" if missing else ""
    return "; ".join(filter(None, [present, remedy]))


def _devices() -> dict[str, str]:
    import torch

    from dartok.bench.machine import device_name

    cpu = f"{device_name(torch.device('cpu'))}, {torch.get_num_threads()} threads"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cpu": cpu,
        "cuda": ", ".join(gpus) or "none",
        "mps": "present" if torch.backends.mps.is_available() else "none",
    }


def _fast_paths() -> dict[str, str]:
    import torch
    from timm.layers.config import use_fused_attn

    fused = "scaled_dot_product_attention" if use_fused_attn() else "plain PyTorch"
    triton = _version("triton")
    needs_gpu = "" if torch.cuda.is_available() else ", idle without a CUDA device"
    return {
        "attention": fused,
        "sampling": "grid_sample, one call per batch",
        "triton": f"{triton}{needs_gpu}" if triton else "not installed",
        "mamba-ssm": _version("mamba-ssm") or "not installed",
    }
