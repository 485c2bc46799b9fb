"""Whether tokens go where the object is, for sources that say where it is."""

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from dartok.core.tokenizer import Tokenizer
from dartok.data.augment import PixelConfig
from dartok.data.samples import Source
from dartok.data.transforms import eval_transform
from dartok.models.dials import regions
from dartok.tasks.score_map import share_on_object

__all__ = ["tokens_on_object"]

_NUM_PICTURES = 64
"""Looked at: the first ones of the source."""

Box = tuple[float, float, float, float]


@runtime_checkable
class Located(Source, Protocol):
    """A source that says where the object of a picture is."""

    def box(self, index: int) -> Box:
        """Left, top, right, bottom in [0, 1] of the picture."""


@torch.no_grad()
def tokens_on_object(
    model: nn.Module, source: object, pixels: PixelConfig, device: torch.device
) -> dict[str, float]:
    """`{"score/on_object": share}` of the first pictures, or nothing where it cannot be told.

    The share is that of `share_on_object`.

    Args:
        model: On the device; one without regions, or whose weights are spread, gives nothing.
        source: Where pictures come from; one that is not `Located` gives nothing.
        pixels: How they are resized and cropped.
        device: Of the model.
    """
    has_regions = any(isinstance(module, Tokenizer) for module in model.modules())
    if not (has_regions and isinstance(source, Located)):
        return {}
    transform, images, boxes = eval_transform(pixels), [], []
    for index in range(min(len(source), _NUM_PICTURES)):
        picture = source.load(index)
        images.append(transform(picture))
        boxes.append(_after_crop(source.box(index), picture.size, pixels.crop_share))
    was_training = model.training
    model.eval()
    found = regions(model, torch.stack(images).to(device))
    model.train(was_training)
    return {"score/on_object": share_on_object(found, torch.tensor(boxes, device=device))}


def _after_crop(box: Box, size_px: tuple[int, int], crop_share: float) -> Box:
    """The box in the square that the evaluation crops from the middle of the resized picture."""
    shorter = min(size_px)
    left, right = (_from_middle(x, crop_share * shorter / size_px[0]) for x in box[::2])
    top, bottom = (_from_middle(y, crop_share * shorter / size_px[1]) for y in box[1::2])
    return left, top, right, bottom


def _from_middle(place: float, share: float) -> float:
    return (place - 0.5) / share + 0.5
