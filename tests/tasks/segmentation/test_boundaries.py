"""Scores of an oracle: high where classes meet."""

import torch
from torch.testing import assert_close

from dartok.tasks.segmentation.boundaries import boundary_scores, boundary_weights


def weights_by_hand(labels, class_weights):
    height, width = labels.shape
    out = torch.zeros(height, width)
    for y in range(height):
        for x in range(width):
            for r, c in ((y + 1, x), (y, x + 1)):
                inside = r < height and c < width
                if not inside or labels[y, x] == labels[r, c]:
                    continue
                pair = [int(labels[y, x]), int(labels[r, c])]
                if max(pair) < len(class_weights):
                    out[y, x] += max(float(class_weights[label]) for label in pair)
    return out


def test_a_boundary_weighs_as_the_rarer_of_its_classes():
    labels = torch.randint(4, (7, 9))
    labels[labels == 3] = 255
    class_weights = torch.tensor([1.0, 2.0, 5.0])
    assert_close(boundary_weights(labels, class_weights), weights_by_hand(labels, class_weights))


def test_one_class_gives_the_same_score_everywhere():
    weights = boundary_weights(torch.zeros(30, 40, dtype=torch.long), torch.ones(3))
    scores = boundary_scores(weights, num_cells=48, exponent=0.5)
    assert scores.shape == (1, 6, 8)
    assert_close(scores, torch.full_like(scores, 0.1**0.5))


def test_scores_are_highest_at_the_only_object():
    labels = torch.zeros(60, 80, dtype=torch.long)
    labels[50:56, 12:18] = 1
    weights = boundary_weights(labels, torch.ones(2))
    scores = boundary_scores(weights, num_cells=48, exponent=1.0)
    assert int(scores.flatten().argmax()) in (5 * 8 + 1, 4 * 8 + 1)
    assert_close(float(scores.mean()), 1.1, rtol=0, atol=1e-5)


def test_cells_are_never_smaller_than_a_pixel():
    assert boundary_scores(torch.rand(3, 2), num_cells=900, exponent=1.0).shape == (1, 3, 2)
