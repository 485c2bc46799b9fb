"""`export`: a model as a graph for other runtimes, written only if it computes the same."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from dartok.core.names import one_of
from dartok.core.quantiles import exported_geometry
from dartok.core.sampling import BilinearName
from dartok.core.tokenizer import Tokenizer
from dartok.models.dials import tokenizer_of
from dartok.models.graphs import Inputs, Shapes, first_output, trace
from dartok.models.runtimes import run_aot, run_onnx, run_torch, write_aot, write_onnx, write_torch

__all__ = ["Check", "Runtime", "check_graph", "export"]

Runtime = Literal["onnx", "torch", "aot"]

_LARGEST_DIFFERENCE = {torch.float64: 1e-4, torch.float32: 1e-3}
"""Of the outputs, relative to the largest or to 1, by the dtype of geometry."""

_SMALL_TOKENS = 0.5  # share of the model's own tokens that is tried where the number is an input


class Check(NamedTuple):
    """One run of an exported graph beside the model it came from."""

    inputs: Inputs
    """Batch, size and, where it is an input, number of tokens."""
    difference: float
    """Largest absolute difference of the outputs, relative to the largest output or to 1."""


class _Target(NamedTuple):
    suffix: str
    write: Callable[[torch.export.ExportedProgram, Path], None]
    run: Callable[[Path], Callable[[tuple[Tensor, ...]], Tensor]]


_TARGETS = {
    "onnx": _Target(".onnx", write_onnx, run_onnx),
    "torch": _Target(".pt2", write_torch, run_torch),
    "aot": _Target(".pt2", write_aot, run_aot),
}


def export(
    model: nn.Module,
    file: str | Path,
    *,
    to: Runtime = "onnx",
    bilinear: BilinearName | None = None,
    any_size: bool | None = None,
    any_num_tokens: bool = False,
    geometry: torch.dtype = torch.float64,
) -> list[Check]:
    """Write a model as a graph, run it right away beside the model, and delete it if they differ.

    - "onnx": opset 18, standard operators only. Opset 20 would be read by
      TensorRT with nearest sampling. Needs `dartok[export]`.
    - "torch": a `.pt2` file that `torch.export.load` reads.
    - "aot": a `.pt2` package, compiled for this machine, that `torch._inductor.aoti_load_package`
      reads; needs a C++ compiler.

    The batch is open. So is the size of the pictures, for the partition "flow" without
    `min_region` or `max_region`, which are kept at the model's own size and number only. With
    `any_num_tokens` the number of tokens N is a second input, "num_tokens", and one file serves
    every budget, from 2 up. There is room for `4 * sqrt(N0)` rows, with the model's own number N0:
    beyond `N * height / width = 16 * N0` rows are fewer, and wider, than the model's. The regions
    of a graph are those of eval mode; strength is what it is now. The graph of a model of clips
    reads clips `(B, T, C, H, W)`, of its own size and number of frames.

    Args:
        model: An adapted model on the CPU, in eval mode, in float32.
        file: To write; replaced at once when everything agrees.
        to: The runtime.
        bilinear: "gather" for a graph without GridSample, for runtimes that read it wrongly; None
            for "grid_sample", and for "gather" in graphs of clips: their frames are sampled in
            float64, for which ONNX Runtime has no GridSample.
        any_size: Whether pictures may have any size; None where the model's partition allows.
        any_num_tokens: Whether the number of tokens is an input.
        geometry: torch.float32 for runtimes without float64, such as TensorRT. It places samples
            to some 1e-4 px, so such a graph may be 1e-3 off; one in float64 at most 1e-4.
    Returns:
        What was run: several batches, sizes and pictures, and how far the outputs differed.
    Raises:
        ValueError: If the model cannot be exported, or the graph computes something else.
        ImportError: If the packages of the runtime are missing.
    """
    target = _TARGETS[one_of("to", to, Runtime)]
    file = Path(file)
    if geometry not in _LARGEST_DIFFERENCE:
        raise ValueError(f"geometry must be torch.float32 or torch.float64, got {geometry}")
    if file.is_dir():
        raise ValueError(f"{file} is a folder; name a file in it")
    if file.suffix != target.suffix:
        raise ValueError(f"file must be named *{target.suffix} for to={to!r}, got {file.name}")
    tokenizer = tokenizer_of(model)
    _check_exportable(model, tokenizer, any_num_tokens)
    shapes = Shapes(
        any_size=_may_have_any_size(tokenizer, any_size),
        any_num_tokens=any_num_tokens,
        image_px=getattr(tokenizer, "img_size", (224, 224)),
        patch_px=tokenizer.patch_size,
        num_frames=_num_frames(tokenizer),
    )
    usual: BilinearName = "grid_sample" if shapes.num_frames is None else "gather"
    with (
        _reading(tokenizer, bilinear or usual),
        exported_geometry(geometry),
        _beside(file) as written,
    ):
        target.write(trace(model, shapes), written)
        run = target.run(written)
        return check_graph(run, model, shapes, at_most=_LARGEST_DIFFERENCE[geometry])


def check_graph(
    run: Callable[[tuple[Tensor, ...]], Tensor],
    model: nn.Module,
    shapes: Shapes,
    *,
    at_most: float,
) -> list[Check]:
    """Run a graph and its model on the same pictures, of several batches and sizes.

    Raises:
        ValueError: If the outputs differ by more than `at_most`, relative to the largest or to 1,
            or the graph cannot run.
    """
    checks = []
    for inputs in shapes.trials(tokenizer_of(model).num_tokens, _SMALL_TOKENS):
        for images in inputs.pictures(tokenizer_of(model).proj.in_channels):
            difference = _difference(run, model, inputs, images)
            if not difference <= at_most:
                raise ValueError(
                    f"the exported graph differs from the model by {difference:.1e} on {inputs}, "
                    f"more than {at_most:.0e}; nothing was kept"
                )
            checks.append(Check(inputs, difference))
    return checks


@torch.no_grad()
def _difference(
    run: Callable[[tuple[Tensor, ...]], Tensor], model: nn.Module, inputs: Inputs, images: Tensor
) -> float:
    tokenizer = tokenizer_of(model)
    count = inputs.num_tokens or tokenizer.num_tokens
    rows = None if tokenizer.num_rows is None else min(tokenizer.num_rows, count)
    with tokenizer.at_num_tokens(count, rows):
        expected = first_output(model(images))
    try:
        actual = run(inputs.arguments(images))
    except Exception as error:  # whatever a runtime raises, the graph is no good
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"the exported graph cannot run on {inputs} ({reason})") from error
    return float((actual - expected).abs().max() / expected.abs().max().clamp_min(1))


def _check_exportable(model: nn.Module, tokenizer: Tokenizer, any_num_tokens: bool) -> None:
    weight = tokenizer.proj.weight
    if getattr(model, "searches_edges", False):
        raise ValueError(
            f"{type(model).__name__} cannot be exported: graphs have no search for the region of a "
            "pixel; export model.encoder"
        )
    if model.training:
        raise ValueError("model must be in eval mode to be exported, got train; call model.eval()")
    if weight.device.type != "cpu" or weight.dtype != torch.float32:
        raise ValueError(
            f"model must be float32 on the CPU to be exported, got {weight.dtype} on "
            f"{weight.device}; call model.float().cpu()"
        )
    if tokenizer.budget is not None:
        raise ValueError(
            "num_tokens='auto' cannot be exported; set a number, and with any_num_tokens=True "
            "choose it in each call"
        )
    if any_num_tokens and tokenizer.partition != "flow":
        raise ValueError(
            f"any_num_tokens needs partition='flow', got {tokenizer.partition!r}; fix the number"
        )
    if any_num_tokens and _num_frames(tokenizer) is not None:
        raise ValueError("any_num_tokens is for models of images, got one of clips; fix the number")
    if any_num_tokens and tokenizer.bounds is not None:
        raise ValueError(f"any_num_tokens needs no {_BOUNDS}: not every number can keep them")


def _num_frames(tokenizer: Tokenizer) -> int | None:
    """Of the clips that a model sees; None for a model of images."""
    times = tokenizer.time_embed
    return None if times is None else times.shape[-1] * tokenizer.tubelet


_BOUNDS = "min_region or max_region"


def _may_have_any_size(tokenizer: Tokenizer, any_size: bool | None) -> bool:
    can = tokenizer.partition == "flow" and tokenizer.bounds is None
    if any_size and _num_frames(tokenizer) is not None:
        raise ValueError("any_size is for models of images, got one of clips; fix the size")
    can &= _num_frames(tokenizer) is None
    if any_size and tokenizer.bounds is not None:
        raise ValueError(f"any_size needs no {_BOUNDS}: not every size has the rows for them")
    if any_size and not can:
        raise ValueError(f"any_size needs partition='flow', got {tokenizer.partition!r}; fix it")
    return can if any_size is None else any_size


@contextmanager
def _reading(tokenizer: Tokenizer, bilinear: BilinearName) -> Iterator[None]:
    before = tokenizer.bilinear
    tokenizer.bilinear = one_of("bilinear", bilinear, BilinearName)
    try:
        yield
    finally:
        tokenizer.bilinear = before


@contextmanager
def _beside(file: Path) -> Iterator[Path]:
    """A place of that name in a folder beside; what is there moves to `file` if nothing fails.

    A graph above 2 GB comes with a file of weights, which it knows by name.
    """
    if not file.parent.is_dir():
        raise ValueError(f"folder {file.parent} does not exist; make it, or write somewhere else")
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as folder:
        yield Path(folder) / file.name
        for written in sorted(Path(folder).iterdir(), key=lambda path: path.name == file.name):
            os.replace(written, file.parent / written.name)
