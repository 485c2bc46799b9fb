"""Pictures and label maps stay together through scale, crop and flip."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from dartok.data.augment import AugmentConfig, PixelConfig
from dartok.data.label_maps.pictures import IGNORE, LabelledPicture
from dartok.data.label_maps.transforms import eval_map_transform, train_map_transform

PIXELS = PixelConfig(
    size_px=24, width_px=32, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear"
)


def picture(height=60, width=80):
    """Four quarters, each of one class and of a grey that tells it."""
    labels = np.zeros((height, width), dtype=np.uint8)
    labels[height // 2 :] += 1
    labels[:, width // 2 :] += 2
    grey = (labels * 60 + 20).astype(np.uint8)
    return LabelledPicture(Image.fromarray(np.stack([grey] * 3, axis=-1)), Image.fromarray(labels))


def greys(image):
    return ((image[0] * 0.5 + 0.5) * 255).round()


@pytest.mark.parametrize("seed", range(8))
def test_the_labels_of_a_random_part_are_those_of_its_pixels(seed):
    torch.manual_seed(seed)
    transform = train_map_transform(AugmentConfig(hflip=0.5), PIXELS, min_scale=0.5, max_scale=2.0)
    image, labels = transform(picture())
    assert image.shape == (3, 24, 32)
    assert labels.shape == (24, 32)
    known = labels != IGNORE
    expected = labels[known] * 60 + 20
    right = (greys(image)[known] - expected).abs() <= 1
    assert right.float().mean() > 0.65  # but along the borders of classes, which are blurred


def test_beyond_the_picture_there_is_the_mean_colour_and_no_label():
    torch.manual_seed(0)
    transform = train_map_transform(AugmentConfig(hflip=0.0), PIXELS, min_scale=0.5, max_scale=0.5)
    image, labels = transform(picture())
    beyond = labels == IGNORE
    assert beyond.float().mean() == pytest.approx(0.75, abs=0.05)
    assert_close(image[:, beyond], torch.zeros(3, int(beyond.sum())), rtol=0, atol=0.01)


def test_what_is_random_follows_the_seed():
    transform = train_map_transform(
        AugmentConfig(color_jitter=0.4), PIXELS, min_scale=0.5, max_scale=2.0
    )
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(transform(picture()).image)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


@pytest.mark.parametrize("size", [(60, 80), (80, 60), (24, 90)])
def test_an_evaluated_picture_keeps_its_aspect_and_its_labels_their_size(size):
    image, labels = eval_map_transform(PIXELS)(picture(*size))
    assert min(image.shape[1:]) == 24
    assert image.shape[2] / image.shape[1] == pytest.approx(size[1] / size[0], rel=0.03)
    assert labels.shape == size


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"auto_augment": "rand-m9"}, "auto-augment does not know label maps"),
        ({"mixup": 0.8}, "mixup does not know label maps, got 0.8; drop --mixup"),
        ({"random_erasing": 0.1}, "random-erasing does not know label maps"),
        ({"on_device": True}, "on-device does not know label maps"),
    ],
)
def test_what_would_not_move_the_labels_along_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        train_map_transform(AugmentConfig(**settings), PIXELS, min_scale=1.0, max_scale=1.0)
