"""`dartok env` says what runs here."""

import json
import platform
from importlib import metadata

import torch

import dartok as package


def test_the_report_names_versions_devices_and_paths(dartok):
    code, out, err = dartok("env", "--json")
    report = json.loads(out)
    assert (code, err) == (0, "")
    assert report["versions"]["dartok"] == package.__version__
    assert report["versions"]["python"] == platform.python_version()
    assert report["versions"]["timm"] == metadata.version("timm")
    assert f"{torch.get_num_threads()} threads" in report["devices"]["cpu"]
    assert set(report["fast paths"]) == {"attention", "sampling", "triton", "mamba-ssm"}


def test_the_table_holds_the_same(dartok):
    report, table = json.loads(dartok("env", "--json").out), dartok("env").out
    for section, entries in report.items():
        assert section in table
        for name, value in entries.items():
            assert any(name in line and value in line for line in table.splitlines())


def test_missing_extras_come_with_their_remedy(dartok, monkeypatch):
    requirements = [
        "torch>=2.9",
        "pillow>=10; extra == 'demo'",
        'no-such-package[all]<3,>=1.5; extra == "demo"',
        "pytest>=9; extra == 'dev'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: requirements)
    extras = json.loads(dartok("env", "--json").out)["extras"]
    pillow = metadata.version("pillow")
    remedy = "pip install 'dartok[demo]'"
    assert extras == {"demo": f"pillow {pillow}; missing no-such-package: {remedy}"}


def test_a_source_folder_that_is_not_installed_is_no_error(dartok, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert json.loads(dartok("env", "--json").out)["extras"] == {}
