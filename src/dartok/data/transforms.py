"""Pictures to tensors: augmented for training, resized and cropped for evaluation."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.samples import Transform

if TYPE_CHECKING:
    from timm.data.auto_augment import AugmentOp

__all__ = ["eval_transform", "train_transform"]


def train_transform(augment: AugmentConfig, pixels: PixelConfig) -> Transform:
    """Random crop, flip, colours, policy, normalisation, erasing; mixing is done on batches.

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
            hflip=augment.hflip,
            color_jitter=augment.color_jitter,
            auto_augment=augment.auto_augment,
            interpolation=pixels.interpolation,
            re_prob=augment.random_erasing,
            re_mode="pixel",
            mean=pixels.mean,
            std=pixels.std,
        )
    except (AssertionError, ValueError, KeyError) as error:
        raise ValueError(
            f"auto-augment must be a policy of timm, such as rand-m9-mstd0.5-inc1, "
            f"got {augment.auto_augment!r} ({type(error).__name__}: {error})"
        ) from error
    for operation in chain.from_iterable(map(_operations, transform.transforms)):
        if operation.name.startswith("Posterize") and operation.level_fn is not None:
            operation.level_fn = partial(_one_bit_or_more, operation.level_fn)
    return transform


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
