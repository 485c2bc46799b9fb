"""`benchmarks/hosts_table.py`: a few hosts of the table, and when it says that one is wrong."""

import importlib.util
import sys
from pathlib import Path

import pytest
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(
    not BENCHMARKS.is_dir(), reason="the wheel does not carry benchmarks/"
)


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location("hosts_table", BENCHMARKS / "hosts_table.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hosts_table", module)
    spec.loader.exec_module(module)
    return module


def test_the_table_measures_and_refuses_and_is_written(script, tmp_path, capsys):
    target = tmp_path / "hosts.md"
    names = [
        "timm vit_tiny_patch16_224",
        "timm vit_small_patch16_rope_224",
        "timm xcit_nano_12_p16_224",
    ]
    assert script.main(["--out", str(target), "--only", *names]) == 0
    assert "refused by name: met" in capsys.readouterr().out
    text = target.read_text()
    assert "2 hosts start as the same function on regions, 1 are refused by" in text
    assert "| `timm vit_small_patch16_rope_224` | `Eva` | 2 | rotary | " in text
    assert (
        "| refused: its blocks convolve over the grid of patches, which regions are not |" in text
    )
    assert [path.name for path in tmp_path.iterdir()] == ["hosts.md"]


def test_the_table_lists_at_least_forty_encoders(script):
    assert len(script.listed_hosts()) >= 40


def test_a_host_that_is_another_function_fails_the_table(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "features_apart", lambda *_: 2e-5)
    assert script.main(["--only", "timm vit_tiny_patch16_224"]) == 1
    assert "NOT MET timm vit_tiny_patch16_224" in capsys.readouterr().out


def test_what_is_refused_for_its_features_alone_is_not_refused_by_name(script):
    reason = "on the fixed grid its features differ by 1.0e-02 (relative), more than 1e-05"
    assert not script.Row("a", "A", "", "", None, reason).kept
    assert script.Row("a", "A", "", "", None, "its patch_embed is a HybridEmbed").kept


def test_positions_are_told_by_the_names_of_parts(script):
    assert script.positions_of(nn.Linear(2, 2)) == ""


@pytest.mark.refuses
def test_an_unlisted_host_is_refused(script, capsys):
    assert script.main(["--only", "timm vit_tinny"]) == 2
    assert "--only must name listed hosts, got timm vit_tinny" in capsys.readouterr().err
