"""`dartok convert`: an official checkpoint to safetensors."""

from pathlib import Path

from dartok.cli.console import say

__all__ = ["convert"]


def convert(source: Path, target: Path, /, *, model: str | None = None) -> None:
    """Convert an official checkpoint to safetensors, strictly.

    The checkpoint is loaded into its model first: a missing, extra or misshapen entry is named, and
    nothing is written.

    Args:
        source: Checkpoint to read, .pth or .safetensors.
        target: File to write, .safetensors.
        model: Name of the model that it belongs to; found from its entries by default.
    """
    from dartok.models.checkpoints import convert_checkpoint

    name = convert_checkpoint(source, target, name=model)
    say(f"{target}: weights of {name}")
