"""What a model says about pictures that have no label."""

import glob
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dartok.core.regions import Regions
from dartok.core.tokenizer import Tokenizer
from dartok.data.images import open_image
from dartok.data.samples import BadSample, Transform
from dartok.data.transforms import eval_transform
from dartok.models.dials import regions as regions_of
from dartok.train.model import pixels_of
from dartok.train.package import Package

__all__ = ["Prediction", "find_pictures", "predict"]


class Prediction(NamedTuple):
    """The likeliest classes of a picture."""

    path: Path
    classes: tuple[str, ...]
    """Names, the likeliest first."""
    shares: tuple[float, ...]
    """Their softmax values, in [0, 1]."""
    image: Float[Tensor, "3 H W"]
    """The picture as the model saw it: cropped and normalised."""
    regions: Regions | None
    """How it was cut; None for a model without regions."""


def find_pictures(patterns: Sequence[str]) -> list[Path]:
    """The picture files that some paths, folders (at any depth) or patterns name, each once.

    Raises:
        ValueError: If one of them names no picture.
    Example:
        >>> find_pictures(["no/such/*.jpg"])
        Traceback (most recent call last):
        ValueError: images no/such/*.jpg name no picture; check the path
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            paths = _pictures_below(path)
        elif path.exists():
            paths = [path]
        else:
            paths = sorted(Path(name) for name in glob.glob(pattern, recursive=True))
        if not paths:
            raise ValueError(f"images {pattern} name no picture; check the path")
        found.update(dict.fromkeys(paths))
    return list(found)


@torch.inference_mode()
def predict(
    package: Package,
    paths: Sequence[Path],
    *,
    top: int = 5,
    batch_size: int = 16,
    image_px: int | None = None,
    device: torch.device | None = None,
) -> Iterator[Prediction | BadSample]:
    """One result per picture, in order; a picture that cannot be read gives its reason instead.

    Args:
        package: The model.
        paths: Picture files.
        top: Classes to name, `>= 1`.
        batch_size: Pictures per forward pass.
        image_px: Side of the pictures; None for the model's own.
        device: Where the model runs; None for the CPU.
    """
    device = device or torch.device("cpu")
    model = package.model.to(device).eval()
    transform = eval_transform(pixels_of(model, image_px))
    has_regions = any(isinstance(module, Tokenizer) for module in model.modules())
    remaining = iter(paths)
    while chunk := list(islice(remaining, batch_size)):
        read = {path: _read(path, transform) for path in chunk}
        seen = {path: value for path, value in read.items() if isinstance(value, Tensor)}
        if seen:
            images = torch.stack(list(seen.values())).to(device)
            cut = regions_of(model, images) if has_regions else None
            logits = model(images).float().cpu()
        for path, value in read.items():
            if isinstance(value, BadSample):
                yield value
                continue
            number = list(seen).index(path)
            own = None if cut is None else Regions(*(part[number, None].cpu() for part in cut))
            yield _prediction(path, logits[number], top, package.class_names, value, own)


def _read(path: Path, transform: Transform) -> Tensor | BadSample:
    try:
        return transform(open_image(path))
    except ValueError as error:
        return BadSample(str(path), str(error))


def _prediction(
    path: Path,
    logits: Float[Tensor, "K"],
    top: int,
    class_names: tuple[str, ...],
    image: Tensor,
    regions: Regions | None,
) -> Prediction:
    shares, classes = logits.softmax(-1).sort(descending=True)
    names = tuple(class_names[index] for index in classes[:top].tolist())
    return Prediction(path, names, tuple(shares[:top].tolist()), image, regions)


def _pictures_below(folder: Path) -> list[Path]:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
