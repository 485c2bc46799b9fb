"""Pictures to tensors: augmented for training, resized and cropped for evaluation."""

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.samples import Transform

__all__ = ["eval_transform", "train_transform"]


def train_transform(augment: AugmentConfig, pixels: PixelConfig) -> Transform:
    """Random crop, flip, colours, policy, normalisation, erasing; mixing is done on batches.

    Raises:
        ValueError: If timm does not know the policy.
    """
    from timm.data import create_transform

    try:
        transform: Transform = create_transform(
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
