"""Pictures to tensors: augmented for training, resized and cropped for evaluation."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.samples import Transform

if TYPE_CHECKING:
    from timm.data.auto_augment import AugmentOp

__all__ = ["DeviceTransform", "blank_image", "eval_transform", "train_transform"]


def train_transform(augment: AugmentConfig, pixels: PixelConfig) -> Transform:
    """Random crop, flip, colours, policy, normalisation, erasing; mixing is done on batches.

    With `augment.on_device` flip, normalisation and erasing are left to `DeviceTransform`, and
    pictures come as bytes.

    Where timm's policies would keep no bit of each colour, which makes a picture black, they keep
    one: Pillow refuses the former since version 13.

    Raises:
        ValueError: If timm does not know the policy.
    """
    from timm.data import create_transform

    try:
        transform = create_transform(
            pixels.size_px,
            is_training=True,
            scale=(augment.min_crop, 1.0),
            hflip=0.0 if augment.on_device else augment.hflip,
            color_jitter=augment.color_jitter,
            auto_augment=augment.auto_augment,
            interpolation=pixels.interpolation,
            re_prob=0.0 if augment.on_device else augment.random_erasing,
            re_mode="pixel",
            mean=pixels.mean,
            std=pixels.std,
            use_prefetcher=augment.on_device,  # timm's word for bytes, not normalised
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise ValueError(
            f"auto-augment must be a policy of timm, such as rand-m9-mstd0.5-inc1, "
            f"got {augment.auto_augment!r} ({type(error).__name__}: {error})"
        ) from error
    for operation in chain.from_iterable(map(_operations, transform.transforms)):
        if operation.name.startswith("Posterize") and operation.level_fn is not None:
            operation.level_fn = partial(_one_bit_or_more, operation.level_fn)
    if augment.on_device:
        transform.transforms.append(torch.as_tensor)  # older timm gives an array
    return transform


class DeviceTransform:
    """Flip, normalise and erase a batch of bytes where it lies: each picture by its own chance.

    What is random is drawn from the global generators, as in timm's transforms.

    Args:
        augment: Probabilities of flips and of erasing.
        pixels: Mean and deviation to normalise by.
        device: Of the pictures.
    Example:
        >>> pixels = PixelConfig(size_px=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
        >>> transform = DeviceTransform(AugmentConfig(on_device=True), pixels, torch.device("cpu"))
        >>> transform(torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)).unique()
        tensor([1.])
    """

    def __init__(self, augment: AugmentConfig, pixels: PixelConfig, device: torch.device) -> None:
        from timm.data.random_erasing import RandomErasing

        self.hflip = augment.hflip
        scale = 255.0  # bytes to [0, 1]
        self.mean = torch.tensor(pixels.mean, device=device).view(3, 1, 1) * scale
        self.std = torch.tensor(pixels.std, device=device).view(3, 1, 1) * scale
        self.erase = RandomErasing(  # type: ignore[no-untyped-call]
            augment.random_erasing, mode="pixel", device=device
        )

    def __call__(self, images: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """Pictures as the model expects them."""
        chance = torch.rand(images.shape[0], 1, 1, 1).to(images.device, non_blocking=True)
        flipped = torch.where(chance < self.hflip, images.flip(-1), images)
        return self.erase((flipped.float() - self.mean) / self.std)


def eval_transform(pixels: PixelConfig) -> Transform:
    """Resize the shorter side, crop the middle, normalise."""
    from timm.data import create_transform

    transform: Transform = create_transform(
        pixels.size_px,
        interpolation=pixels.interpolation,
        crop_pct=pixels.crop_share,
        mean=pixels.mean,
        std=pixels.std,
    )
    return transform


def blank_image(transform: Transform) -> Float[Tensor, "1 3 H W"]:
    """A batch of one black picture, as a transform gives it."""
    return transform(Image.new("RGB", (64, 64)))[None]


def _operations(part: object) -> Iterator["AugmentOp"]:
    """Those of a policy; none of any other part of a transform."""
    from timm.data.auto_augment import AugMixAugment, AutoAugment, RandAugment

    if isinstance(part, AutoAugment):
        yield from chain.from_iterable(part.policy)
    elif isinstance(part, RandAugment | AugMixAugment):
        yield from part.ops


def _one_bit_or_more(
    bits_of_level: Callable[[float, dict[str, Any]], tuple[int]],
    level: float,
    settings: dict[str, Any],
) -> tuple[int]:
    (bits,) = bits_of_level(level, settings)
    return (max(1, bits),)
