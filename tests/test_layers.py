"""The import arrows between the parts of the package, and the sizes a file must stay within.

Read from the source by `ast`, so that an import inside a function counts too.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ARROWS = {
    "core": set(),
    "scorers": {"core"},
    "models": {"core", "scorers"},
    "tasks": {"core", "scorers", "models"},
    "data": set(),
    "train": {"core", "scorers", "models", "tasks", "data"},
    "bench": {"core", "scorers", "models", "tasks", "data"},
    "draw": {"core", "scorers", "models", "tasks", "data"},
    "cli": {"core", "scorers", "models", "tasks", "data", "train", "bench", "draw"},
}
"""Layer to the layers that it may import, beside itself."""

TENSORS = {"torch", "jaxtyping"}
VISION = TENSORS | {"numpy", "safetensors", "timm", "torchvision"}
PACKAGES = {
    "core": TENSORS,
    "scorers": VISION,
    "models": VISION
    | {"huggingface_hub", "mamba_ssm", "onnx", "onnxruntime", "segmentation_models_pytorch"}
    | {"transformers", "triton"},
    "tasks": VISION | {"segmentation_models_pytorch", "torchmetrics"},
    "data": VISION
    | {"PIL", "av", "braceexpand", "datasets", "pyarrow", "skimage", "sklearn", "webdataset"},
    "train": VISION
    | {"PIL", "alembic", "mlflow", "pyarrow", "ray", "sqlalchemy", "tensorboard", "wandb"},
    "bench": VISION,
    "draw": TENSORS | {"PIL", "av", "matplotlib", "numpy"},
    "cli": VISION | {"PIL", "cyclopts", "rich", "skimage", "sklearn"},
    "": set(),
}
"""Layer to what it may import from outside, beside the standard library; "" is `dartok` itself."""

MAX_FUNCTION_LINES = 50
MAX_FILE_LINES = 400
UNDOCUMENTED = {"forward", "extra_repr"}  # the class says what they do

SPEC = importlib.util.find_spec("dartok")
assert SPEC is not None
assert SPEC.submodule_search_locations
PACKAGE = Path(SPEC.submodule_search_locations[0])
FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def layer_of(file: str) -> str:
    return file.split("/")[0] if "/" in file else ""


def imported_modules(tree: ast.AST, file: str) -> Iterator[str]:
    package = ["dartok", *file.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            whole_package = origin == "dartok"
            yield from (f"dartok.{alias.name}" for alias in node.names if whole_package)
            if not whole_package:
                yield origin


def forbidden_imports(source: str, file: str) -> list[str]:
    layer = layer_of(file)
    ours = {layer, *ARROWS.get(layer, set())} if layer else set(ARROWS)
    found = []
    for module in imported_modules(ast.parse(source), file):
        root, _, rest = module.partition(".")
        if root == "dartok":
            part = rest.split(".")[0]
            allowed = part in ours or (layer == "cli" and part not in ARROWS)
        else:
            allowed = root in sys.stdlib_module_names or root in PACKAGES[layer]
        if not allowed:
            found.append(module)
    return found


def long_functions(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{node.name}: {lines} lines")
    return found


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    if ast.get_docstring(node) is None:
        return 0
    text = node.body[0]
    return (text.end_lineno or text.lineno) - text.lineno + 1


def calls_of_print(source: str) -> list[int]:
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]


def undocumented(source: str) -> list[str]:
    """Public classes, functions and methods of public classes that have no docstring."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) else ["module"]
    nodes = list(tree.body)
    while nodes:
        node = nodes.pop()
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        overload = any(isinstance(d, ast.Name) and d.id == "overload" for d in node.decorator_list)
        if not ast.get_docstring(node) and node.name not in UNDOCUMENTED and not overload:
            found.append(node.name)
        nodes.extend(node.body if isinstance(node, ast.ClassDef) else [])
    return found


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def source(file: str) -> str:
    return (PACKAGE / file).read_text(encoding="utf-8")


def test_every_file_belongs_to_a_known_layer():
    assert {layer_of(file) for file in FILES} <= {"", *ARROWS}


def test_every_folder_of_code_is_a_package():
    folders = {(PACKAGE / file).parent for file in FILES}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_a_file_imports_only_what_its_layer_may(file, source):
    assert forbidden_imports(source, file) == []


def test_a_function_fits_on_a_screen(source):
    assert long_functions(source) == []


def test_a_file_stays_short(source):
    assert len(source.splitlines()) <= MAX_FILE_LINES


def test_only_the_command_line_prints(file, source):
    assert layer_of(file) == "cli" or calls_of_print(source) == []


def test_public_names_are_documented(source):
    assert undocumented(source) == []


def test_nothing_is_called_utils():
    assert [file for file in FILES if Path(file).stem in {"utils", "util", "helpers", "misc"}] == []


@pytest.mark.parametrize(
    ("source", "file", "expected"),
    [
        ("import timm", "core/regions.py", ["timm"]),
        ("def f():\n    import numpy", "core/regions.py", ["numpy"]),
        ("from seaborn import heatmap", "draw/sheet.py", ["seaborn"]),
        ("from dartok.models import adapt", "scorers/build.py", ["dartok.models"]),
        ("from dartok import adapt", "train/loop.py", ["dartok.adapt"]),
        ("from dartok.train.loop import fit", "bench/cost.py", ["dartok.train.loop"]),
        ("from ..models import adapt", "scorers/build.py", ["dartok.models"]),
        ("from . import edges", "scorers/build.py", []),
        ("from dartok.core import regions\nimport math, torch", "scorers/build.py", []),
        ("from dartok import __version__, adapt", "cli/app.py", []),
        ("import torch", "__init__.py", ["torch"]),
        ("from dartok.core import regions", "__init__.py", []),
    ],
)
def test_the_import_check_can_fail(source, file, expected):
    assert forbidden_imports(source, file) == expected


def test_the_size_checks_can_fail():
    body = "    pass\n" * MAX_FUNCTION_LINES
    assert long_functions(f"def f():\n{body}") == ["f: 51 lines"]
    documented = 'def f():\n    """One line.\n\n    And more.\n    """\n' + body[9:]
    assert long_functions(documented) == []


def test_the_print_check_can_fail():
    assert calls_of_print("def f():\n    print(1)\n    console.print(2)") == [2]


def test_the_docstring_check_can_fail():
    source = '"""M."""\nclass A:\n    """A."""\n    def b(self): ...\n    def forward(self): ...'
    assert undocumented(source) == ["b"]
    assert undocumented("def _private(): ...") == ["module"]
