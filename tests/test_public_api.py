"""`import dartok` costs nothing, and each public name is there and documented."""

import inspect
import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import dartok

PROBE = """
import json, sys
sys.dont_write_bytecode = True
sys.path.insert(0, {folder!r})
before, events, watching = set(sys.modules), [], True

def watch(event, args):
    if not watching:
        return
    name = str(args[0]) if args else ""
    source = name.endswith((".py", ".pyc", ".pth"))
    if event.split(".")[0] in ("socket", "urllib", "subprocess", "os") or event == "open":
        harmless = event in ("os.listdir", "os.scandir") or (event == "open" and source)
        if not harmless:
            events.append(event + " " + name)

sys.addaudithook(watch)
import {module}
watching = False
roots = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps([sorted(roots - set(sys.stdlib_module_names)), events]))
"""


def import_alone(module: str, folder: Path) -> tuple[list[str], list[str]]:
    """Packages that an import loads, the standard library aside, and the files it touches."""
    code = textwrap.dedent(PROBE).format(module=module, folder=str(folder))
    packages, events = json.loads(run_python(code))
    return packages, events


def run_python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_no_other_and_touches_nothing(tmp_path):
    assert import_alone("dartok", tmp_path) == (["dartok"], [])


def test_the_import_probe_can_fail(tmp_path):
    (tmp_path / "heavy.py").write_text("import iniconfig\nopen(__file__ + 'x', 'w').close()\n")
    packages, events = import_alone("heavy", tmp_path)
    assert packages == ["heavy", "iniconfig"]
    assert events == [f"open {tmp_path / 'heavy.pyx'}"]


@pytest.mark.parametrize("name", dartok.__all__)
def test_a_public_name_is_there_and_documented(name):
    value = getattr(dartok, name)
    assert callable(value)
    assert inspect.getdoc(value)


@pytest.mark.parametrize("name", dartok.__all__)
def test_a_public_name_is_listed_before_it_is_loaded(name):
    assert name in dir(dartok)


@pytest.mark.refuses
def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no_such_name"):
        dartok.no_such_name  # noqa: B018


def test_a_public_name_survives_the_import_of_a_part_of_the_same_name():
    code = "import dartok.draw, dartok; print(callable(dartok.draw))"
    assert run_python(code).strip() == "True"


def test_types_are_published():
    assert (Path(dartok.__file__).parent / "py.typed").is_file()
