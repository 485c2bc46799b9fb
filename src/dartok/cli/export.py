"""`dartok export`: a model as a graph for other runtimes, checked right away."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter

from dartok.cli.console import say

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ExportConfig", "export"]

_SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "aot": ".aot.pt2"}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """What `dartok export` writes."""

    to: Literal["onnx", "torch", "aot"] = "onnx"
    """ONNX of opset 18, a graph for `torch.export.load`, or a library compiled for this machine."""
    out: Path | None = None
    """File to write; by default the model's name in this folder."""
    checkpoint: Path | None = None
    """Weights of a model by name, .pth or .safetensors."""
    num_tokens: int | None = None
    """Regions per picture; by default the model's own."""
    any_num_tokens: bool = False
    """Make the number of tokens an input of the graph: one file for every budget."""
    fixed_size: bool = False
    """Keep to the size that the model is meant for, instead of pictures of any size."""
    float32: bool = False
    """Geometry in float32, for runtimes without float64 such as TensorRT: less exact, to 1e-3."""
    gather: bool = False
    """Sample by gathers, for runtimes that read GridSample wrongly or not at all."""

    def __post_init__(self) -> None:
        if self.num_tokens is not None and self.num_tokens < 1:
            raise ValueError(f"num-tokens must be >= 1, got {self.num_tokens}")


def export(model: str, /, *, config: ExportConfig = ExportConfig()) -> None:
    """Export a model, run the graph beside it, and keep it only if both say the same.

    The batch is open, and so is the size of the pictures where the model's regions flow. The graph
    is run on several batches, sizes and pictures; the largest difference is printed, and a graph
    that differs by more than 1e-4 is not kept. It expects normalised pictures, as the model does.

    Args:
        model: A folder such as best/ of a run, `hf-hub:NAME`, or a name from `dartok models`.
        config: The options.
    """
    import torch

    from dartok.models.export import export as export_model

    out = config.out or Path(f"{Path(model).name.split(':')[-1]}{_SUFFIXES[config.to]}")
    checks = export_model(
        _load(model, config),
        out,
        to=config.to,
        bilinear="gather" if config.gather else None,
        any_size=False if config.fixed_size else None,
        any_num_tokens=config.any_num_tokens,
        geometry=torch.float32 if config.float32 else torch.float64,
    )
    worst = max(checks, key=lambda check: check.difference)
    say(
        f"{out}: {out.stat().st_size / 1e6:.1f} MB; {len(checks)} runs, largest difference "
        f"{worst.difference:.1e} ({worst.inputs})"
    )


def _load(name: str, config: ExportConfig) -> "nn.Module":
    from dartok.models import create_model
    from dartok.models.dials import set_num_tokens

    if Path(name).is_dir():
        name = f"local-dir:{name}"
    model: nn.Module = create_model(name, checkpoint=config.checkpoint)
    if config.num_tokens is not None:
        set_num_tokens(model, config.num_tokens)
    return model.eval()
