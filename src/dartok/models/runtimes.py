"""Write an exported graph for a runtime, and run the written file there."""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

__all__ = ["run_aot", "run_onnx", "run_torch", "write_aot", "write_onnx", "write_torch"]

Run = Callable[[tuple[Tensor, ...]], Tensor]

OPSET = 18
"""Of ONNX: TensorRT reads the GridSample of opset 20 as nearest sampling."""

OUTPUT = "output"
"""Name of what an ONNX graph gives; its inputs are "images" and, if open, "num_tokens"."""

_SIDES = {
    4: ("batch", "channels", "height", "width"),
    5: ("batch", "frames", "channels", "height", "width"),
}
"""Of images and of clips, by the number of their axes."""

_STANDARD = ("", "ai.onnx")
"""Domains of ONNX's own operators."""

_MOST_BYTES = 2**31 - 2**24
"""Of weights inside an ONNX file: it is a protocol buffer, of at most 2 GB."""


def write_torch(program: ExportedProgram, file: Path) -> None:
    """A file that `torch.export.load` reads."""
    torch.export.save(program, file)


def run_torch(file: Path) -> Run:
    """The graph of a file that `write_torch` wrote."""
    module = torch.export.load(file).module()
    return lambda arguments: module(*arguments)


def write_aot(program: ExportedProgram, file: Path) -> None:
    """A library compiled for this machine, in a package that PyTorch's C++ and Python load.

    Raises:
        ValueError: If it cannot be compiled.
    """
    from torch._inductor import aoti_compile_and_package  # not before it is asked for: it is large

    try:
        aoti_compile_and_package(program, package_path=str(file))
    except Exception as error:  # compilers raise anything
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"the graph cannot be compiled here ({reason}); is a C++ compiler installed?"
        ) from error


def run_aot(file: Path) -> Run:
    """The compiled graph of a package that `write_aot` wrote."""
    from torch._inductor import aoti_load_package

    module: Any = aoti_load_package(str(file))
    return lambda arguments: module(*arguments)


def write_onnx(program: ExportedProgram, file: Path) -> None:
    """An ONNX file of standard operators; above 2 GB its weights lie in a file beside.

    Raises:
        ImportError: Without onnx and onnxscript.
        ValueError: If an operator has no conversion, or is none of the standard's.
    """
    onnx = _needed("onnx")
    _needed("onnxscript")
    with _quiet():
        converted: Any = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            output_names=[OUTPUT],
            dynamic_shapes=_names_of_open_sides(program),
        )
    converted.save(file, external_data=_num_bytes(program) > _MOST_BYTES)
    onnx.checker.check_model(str(file))
    nodes = onnx.load(file, load_external_data=False).graph.node
    ours = {f"{node.domain}.{node.op_type}" for node in nodes if node.domain not in _STANDARD}
    if ours:
        raise ValueError(
            f"the graph holds operators that are not ONNX's own: {', '.join(sorted(ours))}"
        )


def run_onnx(file: Path) -> Run:
    """The graph of an ONNX file in ONNX Runtime, on the CPU.

    Raises:
        ImportError: Without onnxruntime.
    """
    runtime = _needed("onnxruntime")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(arguments: tuple[Tensor, ...]) -> Tensor:
        feeds = {name: value.numpy() for name, value in zip(names, arguments, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run


def _names_of_open_sides(program: ExportedProgram) -> list[dict[int, str]]:
    """What the graph calls the sides of each input that are open."""
    shapes = [node.meta["val"].shape for node in program.graph.nodes if _is_input(program, node)]
    return [
        {
            axis: _SIDES[len(shape)][axis]
            for axis, side in enumerate(shape)
            if not isinstance(side, int)
        }
        for shape in shapes
    ]


def _is_input(program: ExportedProgram, node: Any) -> bool:
    return node.name in program.graph_signature.user_inputs


def _needed(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"exporting to ONNX needs {package}: pip install 'dartok[export]'"
        ) from error


def _num_bytes(program: ExportedProgram) -> int:
    return sum(value.numel() * value.element_size() for value in program.state_dict.values())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress on the output, and its remarks about packages of its own."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
