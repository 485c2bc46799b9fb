"""`dartok show`: pictures of the regions of image files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from dartok.cli.console import say

__all__ = ["ShowConfig", "show"]

_MOST_TOKENS = 65536
"""More could not be told apart in a picture."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """What `dartok show` draws, and where it puts the pictures."""

    out: Path = Path()
    """Folder for the pictures; made if missing."""
    tokens: int | None = None
    """Regions per image; by default 196, or as many as the model uses."""
    rows: int | None = None
    """Rows of regions; by default such that regions are about square."""
    partition: Literal["flow", "grid"] | None = None
    """How the scores are cut: `flow`, the default, or `grid` for a lattice."""
    strength: float = 1.0
    """From 0, the fixed grid, to 1, the full method."""
    scorer: str | None = None
    """Scorer by name: edge (the default), conv, uniform, mobilenetv3_small, timm/resnet18, ..."""
    scorer_weights: str | None = None
    """Weights of the scorer: a file, or `imagenet`."""
    model: str | None = None
    """Show what this model looks at: a name from `dartok models`, or any ViT of timm."""
    checkpoint: Path | None = None
    """Weights of the model, .pth or .safetensors; random without."""
    box: tuple[float, float, float, float] | None = None
    """What matters, as left, top, right and bottom in [0, 1]: more regions go there."""
    box_weight: float | None = None
    """By how much the box matters: added to the logarithm of the score; 2 by default, 0 for not."""

    def __post_init__(self) -> None:
        if self.tokens is not None and not 1 <= self.tokens <= _MOST_TOKENS:
            raise ValueError(f"tokens must be from 1 to {_MOST_TOKENS}, got {self.tokens}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be >= 1, got {self.rows}")
        if self.rows is not None and self.tokens is not None and self.rows > self.tokens:
            raise ValueError(f"rows must be at most tokens = {self.tokens}, got {self.rows}")
        if not 0 <= self.strength <= 1:
            raise ValueError(
                f"strength must be from 0 (fixed grid) to 1 (full method), got {self.strength}"
            )
        if self.box is not None and not _is_box(*self.box):
            raise ValueError(
                f"box must be left, top, right, bottom from 0 to 1 and in order, got {self.box}"
            )
        if self.box is None and self.box_weight is not None:
            raise ValueError(f"box-weight {self.box_weight} needs a box; give --box")
        if self.checkpoint is not None and self.model is None:
            raise ValueError(f"checkpoint {self.checkpoint} needs a model; name it with --model")


def _is_box(left: float, top: float, right: float, bottom: float) -> bool:
    return 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def show(
    images: Annotated[list[Path], Parameter(negative=())],
    /,
    *,
    config: ShowConfig = ShowConfig(),
) -> None:
    """Draw the regions of image files.

    Writes NAME.regions.png for each image, at the image's own size: the fixed grid, the regions
    that follow the picture, and the score map. Small images are enlarged, and those of more than 16
    million pixels drawn smaller.

    Args:
        images: Image files of any size and format.
        config: The options.
    """
    targets = _targets(images, config.out)
    from dartok.cli.viewer import create_viewer, panels
    from dartok.data.images import load_image
    from dartok.draw import save_image

    viewer = create_viewer(config)
    for source, target in zip(images, targets, strict=True):
        picture = panels(load_image(source), viewer)
        _make_folder(config.out)  # not before there is something to put into it
        save_image(picture, target)
        say(str(target))


def _targets(images: Sequence[Path], out: Path) -> list[Path]:
    """Where the pictures go. Refuses before anything is computed or written."""
    sources: dict[Path, Path] = {}
    for image in images:
        if image.is_dir():
            raise ValueError(f"image {image} is a folder; name the files in it, as {image}/*.jpg")
        if not image.exists():
            raise ValueError(f"image {image} does not exist; check the path")
        target = out / f"{image.stem}.regions.png"
        if target in sources:
            raise ValueError(
                f"images {sources[target]} and {image} would both be written to {target}; "
                "show them one at a time, with different --out"
            )
        sources[target] = image
    return list(sources)


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make folder {out} ({error.strerror}); choose another --out"
        ) from error
