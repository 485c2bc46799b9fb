"""What the README names exists."""

import json
import re
from pathlib import Path

import pytest

import dartok

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"

if not README.is_file():
    pytest.skip("the wheel's tests run without the repository", allow_module_level=True)

TEXT = README.read_text(encoding="utf-8")


def test_every_name_in_the_readme_is_public():
    assert set(re.findall(r"\bdartok\.([A-Za-z]\w*)\(", TEXT)) <= set(dartok.__all__)


def test_every_model_is_in_the_table():
    table = re.findall(r"^\| `(\w+)` \| \d", TEXT, re.MULTILINE)
    assert sorted(table) == dartok.list_models()


def test_every_model_has_its_parameters_in_the_table(capsys):
    from dartok.cli.models import models

    models(json=True)
    expected = {
        e["name"]: f"{e['parameters'] / 1e6:.2f}" for e in json.loads(capsys.readouterr().out)
    }
    found = re.findall(r"^\| `(\w+)` \| [\dx gridcels]+ \| ([\d.]+) M \|", TEXT, re.MULTILINE)
    assert dict(found) == expected


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT))))
def test_every_link_into_the_repository_leads_somewhere(target):
    assert (ROOT / target).is_file()


@pytest.mark.parametrize("script", sorted(set(re.findall(r"benchmarks/\w+\.py", TEXT))))
def test_every_script_in_the_readme_is_there(script):
    assert (ROOT / script).is_file()


def test_every_make_target_in_the_readme_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", TEXT, re.MULTILINE))
    assert targets <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_no_figure_is_left_to_fill_in():
    assert "TODO" not in TEXT
