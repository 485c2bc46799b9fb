"""Pictures to tensors: evaluation against Pillow itself, training by what it keeps and varies."""

import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from torch.testing import assert_close

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.loading import seeded
from dartok.data.transforms import DeviceTransform, blank_image, eval_transform, train_transform

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.5)
STILL = AugmentConfig(min_crop=1.0, hflip=0.0)
"""Nothing is varied, of a square picture."""


def pixels(**changes):
    return PixelConfig(**({"size_px": 24, "mean": MEAN, "std": STD} | changes))


def picture(width_px, height_px):
    values = np.random.default_rng(0).integers(0, 256, (height_px, width_px, 3), dtype=np.uint8)
    return Image.fromarray(values)


def standardised(image):
    values = (np.asarray(image, dtype=np.float64) / 255 - MEAN) / STD
    return torch.from_numpy(values).permute(2, 0, 1).float()


def draws(transform, image, count):
    with seeded(1):
        return torch.stack([transform(image) for _ in range(count)])


@pytest.mark.parametrize(("width_px", "height_px"), [(50, 40), (40, 90), (24, 24), (9, 7)])
@pytest.mark.parametrize("crop_share", [0.875, 1.0, 0.5])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_resizes_the_shorter_side_and_crops_the_middle(
    width_px, height_px, crop_share, interpolation
):
    image = picture(width_px, height_px)
    shorter_px = int(24 / crop_share)
    scale = shorter_px / min(width_px, height_px)
    size = [int(side * scale) if side > min(image.size) else shorter_px for side in image.size]
    method = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
    left, top = (round((side - 24) / 2) for side in size)
    expected = image.resize(size, method[interpolation]).crop((left, top, left + 24, top + 24))
    transform = eval_transform(pixels(crop_share=crop_share, interpolation=interpolation))
    assert_close(transform(image), standardised(expected), rtol=0, atol=1e-5)


def test_evaluation_draws_nothing_random():
    transform, image = eval_transform(pixels()), picture(40, 30)
    assert_close(draws(transform, image, 2)[0], transform(image), rtol=0, atol=0)


@pytest.mark.parametrize("size_px", [24, 60])
def test_training_without_variation_only_resizes_and_standardises(size_px):
    image = picture(size_px, size_px)
    expected = eval_transform(pixels(crop_share=1.0))(image)
    for actual in draws(train_transform(STILL, pixels()), image, 5):
        assert_close(actual, expected, rtol=0, atol=1e-5)


def test_a_certain_flip_mirrors_the_picture():
    transform = train_transform(AugmentConfig(min_crop=1.0, hflip=1.0), pixels())
    image = picture(24, 24)
    assert_close(transform(image), standardised(image).flip(-1), rtol=0, atol=1e-5)


def test_a_flip_of_one_half_mirrors_about_half_of_the_pictures():
    transform, image = train_transform(AugmentConfig(min_crop=1.0), pixels()), picture(24, 24)
    as_it_is = draws(transform, image, 100).sub(standardised(image)).abs().amax((1, 2, 3)) < 1e-5
    assert 35 <= as_it_is.sum() <= 65


@pytest.mark.parametrize("min_crop", [0.35, 0.8])
def test_random_crops_keep_the_smallest_share_and_vary(min_crop):
    places = np.indices((200, 200)).transpose(1, 2, 0)  # each pixel tells where it is
    image = Image.fromarray(np.dstack([places, places[..., :1]]).astype(np.uint8))
    plain = pixels(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), interpolation="bilinear")
    transform = train_transform(AugmentConfig(min_crop=min_crop, hflip=0), plain)
    where_px = draws(transform, image, 60)[:, :2].flatten(2) * 255
    sides_px = (where_px.amax(-1) - where_px.amin(-1)) * 24 / 23  # corners are half a pixel inside
    shares = sides_px.prod(-1) / 200**2
    assert shares.min() > min_crop - 0.03
    assert shares.max() < 1.03
    assert shares.max() - shares.min() > 0.5 * (1 - min_crop)


def test_colour_jitter_changes_colours_and_none_does_not():
    image = Image.new("RGB", (24, 24), (90, 120, 150))
    still = draws(train_transform(STILL, pixels()), image, 8)
    assert_close(still, standardised(image).expand(8, -1, -1, -1), rtol=0, atol=1e-5)
    jitter = AugmentConfig(min_crop=1.0, hflip=0.0, color_jitter=0.4)
    assert draws(train_transform(jitter, pixels()), image, 8).std(0).min() > 0.05


def test_a_policy_varies_the_picture():
    policy = AugmentConfig(min_crop=1.0, hflip=0.0, auto_augment="rand-m9-mstd0.5-inc1")
    varied = draws(train_transform(policy, pixels()), picture(24, 24), 8)
    assert len(varied.flatten(1).unique(dim=0)) > 3  # each of two operations comes half the time


@pytest.mark.parametrize("policy", ["rand-m10-inc1", "rand-m20-inc1-mmax20", "v0", "augmix-m9"])
def test_no_policy_makes_a_picture_one_flat_colour(policy):
    """They would keep no bit of a colour at times, which Pillow refuses since version 13."""
    augment = AugmentConfig(min_crop=1.0, hflip=0.0, auto_augment=policy)
    assert draws(train_transform(augment, pixels()), picture(24, 24), 150).std((2, 3)).min() > 0


def test_random_erasing_replaces_one_rectangle_by_noise():
    erasing = AugmentConfig(min_crop=1.0, hflip=0.0, random_erasing=1.0)
    image = picture(24, 24)
    for actual in draws(train_transform(erasing, pixels()), image, 10):
        changed = (actual - standardised(image)).abs().amax(0) > 1e-5
        rows, columns = changed.any(1), changed.any(0)
        assert 0.01 < changed.float().mean() < 0.5
        assert torch.equal(changed, rows[:, None] & columns)
        assert actual[:, changed].std() > 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (60, 1)])
def test_the_thinnest_pictures_come_out_in_the_models_size(size):
    for transform in (train_transform(AugmentConfig(), pixels()), eval_transform(pixels())):
        assert transform(Image.new("RGB", size)).shape == (3, 24, 24)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ("best", "AssertionError: Unknown AA policy best"),
        ("rand-q9", "AssertionError: Unknown RandAugment config section"),
        ("rand-m9-n2.5", "ValueError: invalid literal for int() with base 10: '2.5'"),
    ],
)
def test_a_policy_that_timm_does_not_know_is_refused(policy, reason):
    with refused(
        "auto-augment must be a policy of timm, such as rand-m9-mstd0.5-inc1, "
        f"got {policy!r} ({reason})"
    ):
        train_transform(AugmentConfig(auto_augment=policy), pixels())


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"min_crop": 0.0}, "min-crop must be > 0, got 0"),
        ({"min_crop": 1.5}, "min-crop must be from 0 to 1, got 1.5"),
        ({"hflip": -0.1}, "hflip must be from 0 to 1, got -0.1"),
        ({"random_erasing": float("nan")}, "random-erasing must be from 0 to 1, got nan"),
        ({"color_jitter": -1.0}, "color-jitter must be >= 0 and finite, got -1.0"),
        ({"mixup": float("inf")}, "mixup must be >= 0 and finite, got inf"),
        ({"cutmix": -2.0}, "cutmix must be >= 0 and finite, got -2.0"),
        ({"repeats": 0}, "repeats must be >= 1, got 0"),
        (
            {"auto_augment": "rand-m9", "color_jitter": 0.4},
            "color-jitter must be 0 with --auto-augment, which varies colours itself, got 0.4",
        ),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with refused(message):
        AugmentConfig(**setting)


def on_device(**changes):
    return AugmentConfig(**{"min_crop": 1.0, "hflip": 0.0, "on_device": True} | changes)


def test_what_the_workers_and_the_device_do_together_is_what_the_workers_do_alone():
    image = picture(24, 24)
    whole = train_transform(STILL, pixels())(image)
    in_bytes = train_transform(on_device(), pixels())(image)
    assert in_bytes.dtype == torch.uint8
    together = DeviceTransform(on_device(), pixels(), torch.device("cpu"))(in_bytes[None])[0]
    assert_close(together, whole, rtol=0, atol=1e-5)


def test_each_picture_on_the_device_is_flipped_by_its_own_chance():
    images = torch.randint(0, 256, (400, 3, 8, 8), dtype=torch.uint8)
    plain = DeviceTransform(on_device(), pixels(), torch.device("cpu"))(images)
    with seeded(3):
        varied = DeviceTransform(on_device(hflip=0.25), pixels(), torch.device("cpu"))(images)
    flipped = (varied == plain.flip(-1)).flatten(1).all(1)
    assert ((varied == plain).flatten(1).all(1) ^ flipped).all()
    assert 0.15 < flipped.float().mean() < 0.35


def test_the_device_erases_a_rectangle_of_about_the_asked_share_of_pictures():
    images = torch.full((200, 3, 16, 16), 200, dtype=torch.uint8)
    settings = on_device(random_erasing=0.3)
    with seeded(4):
        varied = DeviceTransform(settings, pixels(), torch.device("cpu"))(images)
    erased = varied.flatten(2).std(-1).amax(-1) > 0
    assert 0.2 < erased.float().mean() < 0.4


def test_a_blank_image_has_the_shape_that_a_picture_gets():
    assert blank_image(eval_transform(pixels())).shape == (1, 3, 24, 24)
