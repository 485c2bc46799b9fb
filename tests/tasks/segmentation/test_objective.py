"""The terms of segmentation: which there are, and that each pulls where it should."""

import pytest
import torch
from torch.testing import assert_close

from dartok.tasks.loss_config import LossConfig
from dartok.tasks.objective import Seen
from dartok.tasks.segmentation.losses import boundary_density, boundary_loss, pixel_loss
from dartok.tasks.segmentation.objective import map_objective
from dartok.tasks.task_config import TaskConfig


def seen_of(scores=True):
    labels = torch.randint(0, 4, (2, 8, 12))
    scores = torch.rand(2, 4, 6) + 0.1 if scores else None
    return Seen(torch.randn(2, 4, 4, 6), torch.zeros(2, 3, 8, 12), labels, scores)


def config(**settings):
    return TaskConfig(task="segmentation", **settings)


def test_labels_are_read_in_the_middles_of_the_cells_of_the_logits():
    seen = seen_of()
    terms = map_objective(config(), LossConfig())(seen)
    assert terms.keys() == {"pixels"}
    assert_close(terms["pixels"], pixel_loss(seen.outputs, seen.labels[:, 1::2, 1::2]))


def test_all_terms_carry_their_weights():
    seen = seen_of()
    shares = torch.tensor([0.7, 0.1, 0.1, 0.1])
    settings = config(class_balance=0.5, dice=0.3, score_boundary=0.2)
    terms = map_objective(settings, LossConfig(score_entropy=1.0), shares)(seen)
    assert terms.keys() == {"pixels", "dice", "boundary", "score_entropy"}
    wanted = boundary_density(seen.labels, (4, 6), 1 / shares)
    assert_close(terms["boundary"], 0.2 * boundary_loss(seen.scores, wanted))


@pytest.mark.refuses
def test_what_has_no_meaning_for_pixels_is_refused():
    with pytest.raises(
        ValueError, match="class-balance and score-boundary need the shares of the classes"
    ):
        map_objective(config(class_balance=0.5), LossConfig())
    with pytest.raises(ValueError, match="got loss bce and distill none"):
        map_objective(config(), LossConfig(loss="bce"))
    with pytest.raises(ValueError, match="score-boundary needs regions"):
        map_objective(config(score_boundary=1.0), LossConfig(), torch.full((4,), 0.25))(
            seen_of(scores=False)
        )
