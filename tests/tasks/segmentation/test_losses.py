"""Losses of segmentation against their formulas, written out pixel by pixel."""

import math

import pytest
import torch
from torch.testing import assert_close

from dartok.tasks.segmentation.losses import (
    boundary_density,
    boundary_loss,
    class_weights,
    dice_loss,
    pixel_loss,
)


def some_logits():
    labels = torch.randint(0, 3, (2, 4, 5))
    labels[0, 0, :3] = 255
    return torch.randn(2, 3, 4, 5, dtype=torch.float64), labels


def test_the_pixel_loss_is_the_weighted_mean_of_the_logarithms_of_the_counted_pixels():
    logits, labels = some_logits()
    weights = torch.tensor([0.5, 1.0, 3.0])
    total = norm = 0.0
    for b in range(2):
        for i in range(4):
            for j in range(5):
                c = int(labels[b, i, j])
                if c != 255:
                    share = torch.softmax(logits[b, :, i, j], 0)[c].item()
                    total -= weights[c].item() * math.log(share)
                    norm += weights[c].item()
    actual = pixel_loss(logits, labels, weights=weights)
    assert_close(actual.item(), total / norm, rtol=1e-6, atol=0)


def test_a_batch_without_a_counted_pixel_has_no_loss_and_no_gradient():
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    labels = torch.full((1, 2, 2), 255)
    (pixel_loss(logits, labels) + dice_loss(logits, labels)).backward()
    assert logits.grad.count_nonzero() == 0


def test_the_dice_loss_is_its_formula_over_the_classes_that_occur():
    logits, labels = some_logits()
    labels[labels == 2] = 1
    counted = labels != 255
    shares = logits.softmax(1)
    found = []
    for c in (0, 1):
        p, t = shares[:, c][counted], (labels[counted] == c).double()
        found.append(1 - 2 * (p * t).sum() / (p.sum() + t.sum()))
    assert_close(dice_loss(logits, labels).double(), sum(found) / 2, rtol=0, atol=1e-6)


def test_rare_classes_weigh_more_and_a_pixel_weighs_1_on_average():
    shares = torch.tensor([0.9, 0.09, 0.01, 0.0])
    weights = class_weights(shares, 0.5)
    assert_close((weights * shares).sum(), torch.tensor(1.0))
    assert_close(weights[1] / weights[0], torch.tensor((0.9 / 0.09) ** 0.5))
    assert weights[3] == weights[2]
    assert_close(class_weights(shares, 0.0), torch.ones(4))


def test_tokens_are_wanted_where_classes_meet_and_most_at_those_that_weigh_most():
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[:, :, 4:] = 1
    labels[:, 6:] = 2
    wanted = boundary_density(labels, (4, 4), torch.tensor([1.0, 1.0, 5.0]))
    assert wanted[0, 2].min() > wanted[0, 0, 1] > wanted[0, 0, 0]
    assert_close(wanted[0, 0, 0], torch.tensor(0.1**0.5))


def test_borders_of_unknown_pixels_and_a_map_of_one_class_want_no_place_more_than_another():
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[0, :, 4:] = 255
    labels[1] = 255
    found = boundary_density(labels, (4, 4), torch.ones(3))
    assert_close(found, torch.full((2, 4, 4), 1.1**0.5))


def test_images_of_a_batch_are_looked_at_one_by_one():
    labels = torch.randint(0, 3, (3, 12, 9))
    weights = torch.tensor([1.0, 2.0, 7.0])
    both = boundary_density(labels, (3, 4), weights)
    assert_close(both[1:2], boundary_density(labels[1:2], (3, 4), weights))


def test_the_boundary_loss_is_0_where_scores_are_as_wanted_and_pulls_them_there():
    wanted = torch.rand(2, 3, 3) + 0.1
    assert_close(boundary_loss(4 * wanted, wanted), torch.tensor(0.0), rtol=0, atol=1e-6)
    logits = torch.zeros(2, 3, 3, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        boundary_loss(logits.exp(), wanted).backward()
        optimiser.step()
    shares = logits.detach().flatten(1).softmax(1)
    assert_close(shares, (wanted.flatten(1) / wanted.sum((1, 2))[:, None]), rtol=0, atol=1e-3)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_of_no_pixels_at_all_weigh_alike(balance):
    assert_close(class_weights(torch.zeros(3), balance), torch.ones(3))
