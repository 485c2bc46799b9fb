"""The objective: which terms there are, what they weigh, and what is refused."""

import numpy as np
import pytest
import torch
from refusals import refused
from torch import nn

from dartok.tasks.classification import criterion
from dartok.tasks.distillation import hard_distillation, soft_distillation
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.objective import Seen, objective
from dartok.tasks.score_map import entropy_penalty, token_penalty

ATOL_NATS = 1e-6


class Mean(nn.Module):
    """Says a fixed linear function of an image's mean colour."""

    def __init__(self, num_classes=5):
        super().__init__()
        self.linear = nn.Linear(3, num_classes)

    def forward(self, images):
        return self.linear(images.mean((2, 3)))


def seen(*, two=False, scores=True, labels=None):
    outputs = torch.randn(4, 5, requires_grad=True)
    if two:
        outputs = outputs, torch.randn(4, 5, requires_grad=True)
    labels = torch.tensor([0, 1, 4, 2]) if labels is None else labels
    maps = torch.rand(4, 6, 7).exp().requires_grad_() if scores else None
    return Seen(outputs, torch.rand(4, 3, 8, 8), labels, maps)


def distilling(kind="soft", **settings):
    return LossConfig(distill=kind, teacher="resnet18", **settings)


def values(terms):
    return {name: term.item() for name, term in terms.items()}


@pytest.mark.parametrize("name", ["ce", "bce"])
@pytest.mark.parametrize("labels", [None, torch.rand(4, 5).softmax(-1)])
def test_by_default_it_is_the_loss_of_the_labels_alone(name, labels):
    config = LossConfig(loss=name)
    step = seen(labels=labels)
    terms = objective(config)(step)
    assert values(terms) == {"label": criterion(config)(step.outputs, step.labels).item()}


def test_two_outputs_without_a_teacher_are_judged_by_their_mean():
    config = LossConfig()
    step = seen(two=True)
    expected = criterion(config)((step.outputs[0] + step.outputs[1]) / 2, step.labels)
    assert values(objective(config)(step)) == {"label": expected.item()}


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("kind", ["soft", "hard"])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_teacher_takes_its_share_from_the_labels(kind, two, weight):
    config = distilling(kind, distill_weight=weight, distill_temperature=2.0)
    teacher, step = Mean().eval(), seen(two=two)
    own, taught = step.outputs if two else (step.outputs, step.outputs)
    told = teacher(step.images)
    if kind == "soft":
        distilled = soft_distillation(taught, told, temperature=2.0)
    else:
        distilled = hard_distillation(taught, told)
    expected = {
        "label": (1 - weight) * criterion(config)(own, step.labels).item(),
        "distill": weight * distilled.item(),
    }
    terms = objective(config, teacher)(step)
    assert values(terms) == pytest.approx(expected, abs=ATOL_NATS)


def test_the_loss_of_one_picture_and_two_classes_is_what_a_hand_computes():
    teacher = Mean(2)
    nn.init.zeros_(teacher.linear.weight)
    teacher.linear.bias.data = torch.tensor([np.log(3.0), 0.0]).float()  # 3/4, 1/4
    step = Seen(torch.zeros(1, 2), torch.rand(1, 3, 8, 8), torch.tensor([0]), None)
    config = distilling(label_smoothing=0.0, distill_weight=0.25, distill_temperature=1.0)
    divergence = 0.75 * np.log(0.75 / 0.5) + 0.25 * np.log(0.25 / 0.5)
    loss = sum(objective(config, teacher)(step).values())
    assert loss.item() == pytest.approx(0.75 * np.log(2) + 0.25 * divergence, abs=ATOL_NATS)


@pytest.mark.parametrize("kind", ["soft", "hard"])
def test_each_head_learns_from_its_own_term_and_the_teacher_from_none(kind):
    teacher, step = Mean(), seen(two=True)
    terms = objective(distilling(kind), teacher)(step)
    own, taught = step.outputs
    gradients = torch.autograd.grad(terms["label"], [own, taught], allow_unused=True)
    assert [g is not None for g in gradients] == [True, False]
    gradients = torch.autograd.grad(terms["distill"], [own, taught], allow_unused=True)
    assert [g is not None for g in gradients] == [False, True]
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_the_teacher_keeps_no_graph():
    graphs = []

    class Watched(Mean):
        def forward(self, images):
            logits = super().forward(images)
            graphs.append(logits.requires_grad)
            return logits

    objective(distilling(), Watched())(seen())
    assert graphs == [False]


def test_score_terms_have_their_weights_in_them_and_reach_the_scores():
    config = LossConfig(
        score_entropy=3.0, score_entropy_target=0.4, token_cost=0.7, token_target=0.1
    )
    step = seen()
    terms = objective(config)(step)
    assert list(terms) == ["label", "score_entropy", "token_cost"]
    assert terms["score_entropy"].item() == pytest.approx(
        3 * entropy_penalty(step.scores, target=0.4).item(), abs=ATOL_NATS
    )
    assert terms["token_cost"].item() == pytest.approx(
        0.7 * token_penalty(step.scores, target=0.1).item(), abs=ATOL_NATS
    )
    for name in ("score_entropy", "token_cost"):
        (gradient,) = torch.autograd.grad(terms[name], step.scores)
        assert gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["score_entropy", "token_cost"])
def test_a_term_without_weight_is_not_there(name):
    terms = objective(LossConfig(**{name: 1.0}))(seen())
    assert list(terms) == ["label", name]


@pytest.mark.parametrize("autocast", [False, True])
def test_terms_of_narrow_values_are_in_float32(autocast):
    config = distilling(score_entropy=1.0, token_cost=1.0)
    step = seen()
    step = step._replace(outputs=step.outputs.bfloat16(), scores=step.scores.double())
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        terms = objective(config, Mean())(step)
    assert {term.dtype for term in terms.values()} == {torch.float32}
    assert {tuple(term.shape) for term in terms.values()} == {()}


@pytest.mark.refuses
def test_a_configuration_and_a_teacher_that_do_not_agree_are_refused():
    rule = "distill must be soft or hard with a teacher and none without, got"
    with refused(f"{rule} none with one"):
        objective(LossConfig(), Mean())
    with refused(f"{rule} hard without one"):
        objective(distilling("hard"))


@pytest.mark.refuses
def test_a_teacher_of_other_classes_is_refused():
    terms = objective(distilling(), Mean(7))
    with refused("teacher must know the student's 5 classes, got 7; choose another --teacher"):
        terms(seen())


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["score_entropy", "token_cost"])
def test_score_terms_of_a_fixed_grid_are_refused(name):
    terms = objective(LossConfig(**{name: 1.0}))
    with refused(f"{name.replace('_', '-')} needs regions; give --num-tokens too"):
        terms(seen(scores=False))
