"""Tokens on the object, where a source says where it is."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from dartok.data.augment import PixelConfig
from dartok.models import adapt
from dartok.train.objects import tokens_on_object

CPU = torch.device("cpu")


class Corner:
    """Pictures, 80 px wide and 64 high, with noise in the left upper quarter and nothing else."""

    class_names = ("a", "b")

    def __init__(self, box):
        self._box = box

    def __len__(self):
        return 3

    def label(self, index):
        return 0

    def name(self, index):
        return str(index)

    def load(self, index):
        pixels = np.full((64, 80, 3), 128, dtype=np.uint8)
        noise = np.random.default_rng(index).integers(0, 256, (32, 40, 3))
        pixels[:32, :40] = noise
        return Image.fromarray(pixels)

    def box(self, index):
        return self._box


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    host = timm.create_model("test_vit", num_classes=2)
    return adapt(host, num_tokens=64, scorer="edge", strength=1.0)


def pixels(crop_share):
    return PixelConfig(size_px=96, mean=(0.5,) * 3, std=(0.5,) * 3, crop_share=crop_share)


def test_most_tokens_lie_on_the_only_object(model):
    share = tokens_on_object(model, Corner((0, 0, 0.5, 0.5)), pixels(1.0), CPU)["score/on_object"]
    assert share > 0.5, "the fixed grid has a fifth to a quarter"
    elsewhere = tokens_on_object(model, Corner((0.5, 0.5, 1, 1)), pixels(1.0), CPU)
    assert elsewhere["score/on_object"] < 0.1


@pytest.mark.parametrize("crop_share", [1.0, 0.8])
def test_the_box_follows_the_crop(crop_share):
    """On the fixed grid the share of tokens is the share of the cropped square in the box."""
    host = timm.create_model("test_vit", num_classes=2)
    grid = adapt(host, num_tokens=1024, scorer="uniform", strength=1.0)
    found = tokens_on_object(grid, Corner((0, 0, 0.5, 0.75)), pixels(crop_share), CPU)
    below = 0.5 + 0.25 / crop_share  # of the height; half of the width, in any crop
    assert found["score/on_object"] == pytest.approx(0.5 * below, abs=0.02)


def test_nothing_is_said_without_boxes_or_without_regions(model):
    grid = timm.create_model("test_vit", num_classes=2)
    assert tokens_on_object(grid, Corner((0, 0, 1, 1)), pixels(1.0), CPU) == {}
    assert tokens_on_object(model, [1, 2], pixels(1.0), CPU) == {}
