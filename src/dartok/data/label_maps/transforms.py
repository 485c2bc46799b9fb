"""Pictures with label maps to tensors: the same scale, crop and flip for both."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.label_maps.pictures import IGNORE, LabelledPicture
from dartok.data.samples import Labelled, LabelledTransform

__all__ = ["eval_map_transform", "train_map_transform"]

_UNUSED = ("auto_augment", "random_erasing", "mixup", "cutmix", "on_device")


def train_map_transform(
    augment: AugmentConfig, pixels: PixelConfig, *, min_scale: float, max_scale: float
) -> LabelledTransform:
    """A random part of the picture at a random scale, flipped and recoloured by chance.

    At scale 1 the shorter side of a picture is that of the crop; the scale is drawn evenly on a
    logarithmic axis. Where the crop is larger than the picture, the mean colour and the label
    `IGNORE` surround it. What is random is drawn from PyTorch's global generator.

    Args:
        augment: Flips and colours; what is not for label maps is refused.
        pixels: Size and normalisation.
        min_scale: Smallest scale, `> 0`.
        max_scale: Largest scale.
    Raises:
        ValueError: If `augment` asks for what would not move the labels along.
    """
    for name in _UNUSED:
        if getattr(augment, name):
            flag = name.replace("_", "-")
            raise ValueError(
                f"{flag} does not know label maps, got {getattr(augment, name)}; drop --{flag}"
            )
    recolour = _recolour(augment.color_jitter)
    size = (pixels.size_px, pixels.width_px or pixels.size_px)

    def transform(picture: LabelledPicture) -> Labelled:
        share = torch.rand(()).item()
        scale = min_scale * (max_scale / min_scale) ** share
        image, labels = _random_crop(picture, size, scale, pixels)
        if torch.rand(()).item() < augment.hflip:
            image, labels = (
                part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for part in (image, labels)
            )
        return Labelled(_normalised(recolour(image), pixels), _classes(labels))

    return transform


def eval_map_transform(pixels: PixelConfig) -> LabelledTransform:
    """The whole picture, its shorter side the model's; labels at their own size."""
    shorter = min(pixels.size_px, pixels.width_px or pixels.size_px)

    def transform(picture: LabelledPicture) -> Labelled:
        width, height = picture.image.size
        scale = shorter / min(width, height)
        size = (round(width * scale), round(height * scale))
        image = picture.image.resize(size, _filter(pixels))
        return Labelled(_normalised(image, pixels), _classes(picture.labels))

    return transform


def _random_crop(
    picture: LabelledPicture, size: tuple[int, int], scale: float, pixels: PixelConfig
) -> tuple[Image.Image, Image.Image]:
    """Height and width `size` of the picture at a scale, from a random place."""
    width, height = picture.image.size
    zoom = scale * min(size) / min(width, height)
    left, right = _span(width, size[1] / zoom)
    top, bottom = _span(height, size[0] / zoom)
    box = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    place = (round((box[0] - left) * zoom), round((box[1] - top) * zoom))
    inner = (
        max(1, min(size[1] - place[0], round((box[2] - box[0]) * zoom))),
        max(1, min(size[0] - place[1], round((box[3] - box[1]) * zoom))),
    )
    mean = (round(pixels.mean[0] * 255), round(pixels.mean[1] * 255), round(pixels.mean[2] * 255))
    image = Image.new("RGB", size[::-1], mean)
    image.paste(picture.image.resize(inner, _filter(pixels), box=box), place)
    labels = Image.new("L", size[::-1], IGNORE)
    labels.paste(picture.labels.resize(inner, Image.Resampling.NEAREST, box=box), place)
    return image, labels


def _span(length: int, wanted: float) -> tuple[float, float]:
    """Where a part of the wanted length begins and ends; it may reach beyond both ends."""
    start = torch.rand(()).item() * (length - wanted)
    return start, start + wanted


def _filter(pixels: PixelConfig) -> Image.Resampling:
    return Image.Resampling[pixels.interpolation.upper()]


def _recolour(strength: float) -> Callable[[Image.Image], Image.Image]:
    from torchvision.transforms import ColorJitter

    jitter: Callable[[Image.Image], Image.Image] = ColorJitter(strength, strength, strength)
    return jitter


def _normalised(image: Image.Image, pixels: PixelConfig) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (pixels.mean, pixels.std))
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (values - mean) / std


def _classes(labels: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(labels)).long()
