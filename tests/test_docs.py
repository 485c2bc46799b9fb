"""What the pages of `docs/` say can be run, and what they name exists."""

import re
from pathlib import Path

import pytest

import dartok

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
NOT_RUN = "<!-- not run:"

if not PAGES:
    pytest.skip("the wheel's tests run without the repository", allow_module_level=True)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def python_of(text):
    """The blocks of Python of a page as one session, without those that a remark sets apart."""
    before, *parts = text.split("```python\n")
    kept = []
    for part in parts:
        code, _, after = part.partition("```\n")
        if not before.rstrip().splitlines()[-1].startswith(NOT_RUN):
            kept.append(code)
        before = after
    return "\n".join(kept)


def run(name, folder, monkeypatch):
    """Run a page's Python in a folder of its own."""
    code = python_of((DOCS / name).read_text(encoding="utf-8"))
    monkeypatch.chdir(folder)
    exec(compile(code, name, "exec"), {})


def test_blocks_are_run_unless_a_remark_stands_before_them():
    text = "A\n```python\na = 1\n```\n<!-- not run: slow -->\n```python\nb = 2\n```\n"
    assert python_of(text) == "a = 1\n"


@pytest.mark.parametrize(
    "name", ["budgets.md", "grid.md", "mamba.md", "rmt.md", "sampling.md", "steering.md"]
)
def test_the_python_of_a_page_runs(name, tmp_path, monkeypatch):
    run(name, tmp_path, monkeypatch)


def test_the_python_of_the_page_on_dense_features_runs(tmp_path, monkeypatch):
    pytest.importorskip("segmentation_models_pytorch")
    run("dense_features.md", tmp_path, monkeypatch)


def test_the_python_of_the_page_on_segmentation_runs(tmp_path, monkeypatch):
    run("segmentation.md", tmp_path, monkeypatch)


def test_the_python_of_the_page_on_show_runs(tmp_path, monkeypatch):
    pytest.importorskip("av")
    run("show.md", tmp_path, monkeypatch)
    assert [file.name for file in tmp_path.iterdir()] == ["noise.mp4"]


@pytest.mark.slow
def test_the_python_of_the_export_page_runs(tmp_path, monkeypatch):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    run("export.md", tmp_path, monkeypatch)
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.pt2"}


@pages
def test_every_name_in_a_page_is_public(page):
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"\bdartok\.([A-Za-z]\w*)\(", text)) <= set(dartok.__all__)


@pages
def test_every_link_and_script_in_a_page_is_there(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (DOCS / target).is_file()
    for script in re.findall(r"(?:benchmarks|examples)/\w+\.py", text):
        assert (DOCS.parent / script).is_file()
