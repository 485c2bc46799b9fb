"""What a model says of each pixel of pictures that have no labels."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dartok.core.regions import Regions
from dartok.data.label_maps.pictures import LabelledPicture
from dartok.data.label_maps.transforms import eval_map_transform
from dartok.data.samples import BadSample
from dartok.models.dials import regions as regions_of
from dartok.tasks.segmentation.inference import sliding_logits
from dartok.train.model import pixels_of
from dartok.train.package import Package
from dartok.train.pictures import Picture

__all__ = ["Painted", "paint"]


class Painted(NamedTuple):
    """A picture with the class of each of its pixels."""

    name: str
    """Of the picture, such as its path."""
    picture: Image.Image
    """In RGB."""
    classes: UInt8[Tensor, "H W"]
    """Of its pixels."""
    shares: dict[str, float]
    """Share of the pixels of each class that was found, the largest first."""
    regions: Regions | None
    """How the picture was cut; None where it was not asked for."""


@torch.inference_mode()
def paint(
    package: Package,
    pictures: Iterable[Picture],
    *,
    image_px: int | None = None,
    windows: bool = False,
    device: torch.device | None = None,
    looks: bool = False,
) -> Iterator[Painted | BadSample]:
    """One result per picture, in order and at its own size; the reason for one that cannot be read.

    Args:
        package: With a `Segmenter`.
        pictures: To be painted, one at a time: they may be of any sizes.
        image_px: Shorter side that pictures are scaled to; None for the model's own.
        windows: Whether to look through overlapping windows of the model's size.
        device: Where the model runs; None for the CPU.
        looks: Whether to add the regions, which costs the score net a second time.
    """
    device = device or torch.device("cpu")
    model = package.model.to(device).eval()
    pixels = pixels_of(model, image_px)
    transform = eval_map_transform(pixels)
    window = (pixels.size_px, pixels.width_px or pixels.size_px)
    for picture in pictures:
        try:
            image = picture.open()
        except ValueError as error:
            yield BadSample(picture.name, str(error))
            continue
        made = transform(LabelledPicture(image, Image.new("L", (1, 1)))).image[None].to(device)
        size = (image.height, image.width)
        logits = sliding_logits(model, made, window, size) if windows else model(made, size)
        classes = logits.argmax(1)[0].to(torch.uint8).cpu()
        shares = _shares(classes, package.class_names)
        cut = regions_of(model, made) if looks else None
        yield Painted(picture.name, image, classes, shares, cut)


def _shares(classes: Tensor, names: tuple[str, ...]) -> dict[str, float]:
    counts = torch.bincount(classes.flatten().long(), minlength=len(names))
    order = counts.argsort(descending=True).tolist()
    return {
        names[index]: counts[index].item() / classes.numel() for index in order if counts[index]
    }
