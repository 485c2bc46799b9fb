"""Scorers without pretrained weights."""

import numpy as np
import pytest
import torch
from deterministic import picture
from torch.testing import assert_close

from dartok.core.partition import flow_partition
from dartok.scorers import ConvScorer, EdgeScorer, Uniform, create_scorer, log_edge_energy


def oracle_log_edge_energy(image, cell):
    """The definition, pixel by pixel, of one image (C, H, W)."""
    grey = image.sum(0) / len(image)
    height, width = grey.shape
    energy = np.zeros((height // cell, width // cell))
    for y in range(height // cell * cell):
        for x in range(width // cell * cell):
            dx = grey[y, x + 1] - grey[y, x] if x + 1 < width else 0
            dy = grey[y + 1, x] - grey[y, x] if y + 1 < height else 0
            energy[y // cell, x // cell] += (dx**2 + dy**2) / cell**2
    logarithm = np.log(energy / energy.mean() + 0.01)
    return (logarithm - logarithm.mean()) / logarithm.std()


def test_edge_energy_is_that_of_the_oracle():
    images = torch.randn(2, 3, 19, 26, dtype=torch.float64)
    images[:, :, :9] *= 0.1
    expected = np.stack([oracle_log_edge_energy(image, 4) for image in images.numpy()])
    assert_close(log_edge_energy(images, 4).numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scorer", [EdgeScorer(), ConvScorer()], ids=["edge", "conv"])
@torch.no_grad()
def test_scores_ignore_contrast_brightness_and_batch_mates(scorer):
    images = torch.stack([picture(90, 150), picture(90, 150, phase=1.0)]).float()
    scores = scorer(images)
    assert_close(scorer(images[:1]), scores[:1], rtol=0, atol=1e-5)
    assert_close(EdgeScorer()(7 * images + 3), EdgeScorer()(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["edge", "conv"])
@pytest.mark.parametrize("size", [(17, 700), (700, 17), (64, 64)])
def test_scores_are_positive_and_bounded_at_any_size(name, size):
    scores = create_scorer(name)(torch.randn(2, 3, *size))
    assert scores.shape == (2, 28, 28)
    assert scores.min() >= np.exp(-4)
    assert scores.max() <= np.exp(4)


def test_a_flat_image_gives_the_fixed_grid():
    regions = flow_partition(EdgeScorer()(torch.ones(1, 3, 64, 64)), num_tokens=16, num_rows=4)
    assert_close(regions.strip_edges[0], torch.arange(17).double() / 4)
    assert torch.equal(Uniform()(torch.rand(2, 3, 8, 8)), torch.ones(2, 1, 1))


def test_regions_gather_on_an_object_from_the_first_step():
    image = torch.zeros(1, 3, 192, 192)
    image[:, :, 40:60, 120:140] = torch.rand(3, 20, 20)
    regions = flow_partition(ConvScorer()(image).detach(), num_tokens=36, num_rows=6)
    x, y = regions.centres()[0].unbind(-1)
    inside = (x > 110 / 192) & (x < 150 / 192) & (y > 30 / 192) & (y < 70 / 192)
    assert inside.sum() >= 3 * 36 * (40 / 192) ** 2  # three times the fixed grid's share


def test_every_parameter_of_the_conv_scorer_gets_a_gradient():
    scorer = ConvScorer()
    regions = flow_partition(scorer(torch.rand(2, 3, 64, 64)), num_tokens=9, num_rows=3)
    (regions.strip_edges * torch.randn(10)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in scorer.parameters())
    assert scorer.gain.grad != 0
