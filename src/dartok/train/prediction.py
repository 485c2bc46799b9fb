"""What a model says about pictures that have no label."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.regions import Regions
from dartok.core.tokenizer import Tokenizer
from dartok.data.samples import BadSample, Transform
from dartok.data.transforms import eval_transform
from dartok.models.budgeted import unpadded
from dartok.models.dials import regions as regions_of
from dartok.models.dials import set_num_tokens
from dartok.train.model import pixels_of
from dartok.train.package import Package, load_package
from dartok.train.pictures import Picture

__all__ = ["Look", "PredictJob", "Prediction", "likeliest", "load_model", "predict"]


class Look(NamedTuple):
    """What the model saw of a picture, or of a video in its first view."""

    image: Float[Tensor, "*T 3 H W"]
    """Cropped and normalised."""
    regions: Regions | None
    """How it was cut; None for a model without regions."""


class Prediction(NamedTuple):
    """The likeliest classes of a picture."""

    name: str
    """Of the picture, such as its path."""
    classes: tuple[str, ...]
    """Names, the likeliest first."""
    shares: tuple[float, ...]
    """Their softmax values, in [0, 1]."""
    look: Look | None = None
    """None where it was not asked for."""


class PredictJob(NamedTuple):
    """What is asked of a model, wherever it runs."""

    model: Path
    """Its folder."""
    top: int = 5
    """Classes to name, `>= 1`."""
    batch_size: int = 16
    """Pictures per forward pass."""
    num_tokens: int | None = None
    """Regions per picture; None, here and below, for the model's own."""
    image_px: int | None = None
    """Side of the pictures."""
    column: str = "image"
    """Of Parquet files, with the pictures."""


def load_model(job: PredictJob) -> Package:
    """The model of a job, set to its number of tokens.

    Raises:
        ValueError: If it cannot be loaded, or does not take that number or size.
    """
    package = load_package(job.model)
    if job.num_tokens is not None:
        set_num_tokens(package.model, job.num_tokens)
    pixels_of(package.model, job.image_px)
    return package


@torch.inference_mode()
def predict(
    package: Package,
    pictures: Iterable[Picture],
    job: PredictJob,
    *,
    device: torch.device | None = None,
    looks: bool = False,
) -> Iterator[Prediction | BadSample]:
    """One result per picture, in order; a picture that cannot be read gives its reason instead.

    Args:
        package: The model of the job, such as `load_model` gives.
        pictures: To be named.
        job: What is asked.
        device: Where the model runs; None for the CPU.
        looks: Whether to add what the model saw, which costs its score net a second time.
    """
    device = device or torch.device("cpu")
    model = package.model.to(device).eval()
    transform = eval_transform(pixels_of(model, job.image_px))
    remaining = iter(pictures)
    while chunk := list(islice(remaining, job.batch_size)):
        read = [_read(picture, transform) for picture in chunk]
        images = [value for value in read if isinstance(value, Tensor)]
        shares, cuts = _forward(model, images, device, looks)
        number = 0
        for picture, value in zip(chunk, read, strict=True):
            if isinstance(value, BadSample):
                yield value
                continue
            look = Look(value, cuts[number]) if looks else None
            yield likeliest(picture.name, shares[number], job.top, package.class_names, look)
            number += 1


def _read(picture: Picture, transform: Transform) -> Tensor | BadSample:
    try:
        return transform(picture.open())
    except ValueError as error:
        return BadSample(picture.name, str(error))


def _forward(
    model: nn.Module, images: list[Tensor], device: torch.device, looks: bool
) -> tuple[list[Float[Tensor, "K"]], list[Regions | None]]:
    """Softmax values of each image and, if asked for, how it was cut."""
    cuts: list[Regions | None] = [None] * len(images)
    if not images:
        return [], cuts
    batch = torch.stack(images).to(device)
    if looks and any(isinstance(module, Tokenizer) for module in model.modules()):
        cut = regions_of(model, batch)
        cuts = [unpadded(cut, number) for number in range(len(cuts))]
    return list(model(batch).float().softmax(-1).cpu()), cuts


def likeliest(
    name: str,
    shares: Float[Tensor, "K"],
    top: int,
    class_names: tuple[str, ...],
    look: Look | None,
) -> Prediction:
    """The prediction that some softmax values are."""
    shares, classes = shares.sort(descending=True)
    names = tuple(class_names[index] for index in classes[:top].tolist())
    return Prediction(name, names, tuple(shares[:top].tolist()), look)
