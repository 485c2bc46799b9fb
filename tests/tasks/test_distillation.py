"""Distillation against the formulas of DeiT's paper, in NumPy float64."""

import numpy as np
import pytest
import torch

from dartok.tasks.distillation import hard_distillation, soft_distillation

ATOL_NATS = 1e-5


def oracle_softmax(logits, temperature=1.0):
    powers = np.exp(np.asarray(logits, dtype=np.float64) / temperature)
    return powers / powers.sum(1, keepdims=True)


def oracle_soft(student, teacher, temperature):
    """Touvron et al., equation 2: the divergence of each picture, averaged over the pictures."""
    total = 0.0
    for own, other in zip(
        oracle_softmax(student, temperature), oracle_softmax(teacher, temperature), strict=True
    ):
        total += sum(q * np.log(q / p) for p, q in zip(own, other, strict=True))
    return temperature**2 * total / len(student)


def two_answers(count=6, num_classes=5):
    return 2 * torch.randn(count, num_classes), 3 * torch.randn(count, num_classes)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_soft_distillation_is_the_papers_formula(temperature):
    student, teacher = two_answers()
    loss = soft_distillation(student, teacher, temperature=temperature)
    expected = oracle_soft(student, teacher, temperature)
    assert loss.item() == pytest.approx(expected, abs=ATOL_NATS)
    swapped = oracle_soft(teacher, student, temperature)
    assert abs(expected - swapped) > 100 * ATOL_NATS  # so the test sees who teaches whom


def test_soft_distillation_has_the_gradient_of_cross_entropy_with_soft_labels():
    student, teacher = two_answers()
    student.requires_grad_()
    soft_distillation(student, teacher, temperature=2.0).backward()
    gap = oracle_softmax(student.detach(), 2.0) - oracle_softmax(teacher, 2.0)
    np.testing.assert_allclose(student.grad, 2.0 * gap / len(student), atol=1e-6)


@pytest.mark.parametrize("repeats", [1, 4])
def test_the_teachers_weight_depends_on_neither_pictures_nor_impossible_classes(repeats):
    student, teacher = (logits.repeat(repeats, 1) for logits in two_answers())
    loss = soft_distillation(student, teacher, temperature=1.0)
    impossible = torch.full((len(student), 95), -60.0)
    wide = [torch.cat([logits, impossible], 1) for logits in (student, teacher)]
    assert soft_distillation(*wide, temperature=1.0).item() == pytest.approx(loss.item(), rel=1e-5)
    once = soft_distillation(student[:6], teacher[:6], temperature=1.0)
    assert once.item() == pytest.approx(loss.item(), rel=1e-5)


def test_hard_distillation_takes_the_teachers_class_for_the_label():
    student, teacher = two_answers()
    rows = np.arange(len(student))
    expected = -np.log(oracle_softmax(student)[rows, teacher.numpy().argmax(1)]).mean()
    loss = hard_distillation(student, teacher)
    assert loss.item() == pytest.approx(expected, abs=ATOL_NATS)


def test_a_student_that_agrees_has_nothing_to_learn():
    teacher = torch.randn(4, 7)
    assert soft_distillation(teacher + 5, teacher, temperature=3.0).abs() < ATOL_NATS
    assert hard_distillation(100 * teacher, teacher) < ATOL_NATS


@pytest.mark.parametrize("autocast", [False, True])
def test_narrow_logits_are_compared_in_float32(autocast):
    student, teacher = (logits.bfloat16() for logits in two_answers(300))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        soft = soft_distillation(student, teacher, temperature=3.0)
        hard = hard_distillation(student, teacher)
    assert soft.dtype == hard.dtype == torch.float32
    expected = oracle_soft(student.float(), teacher.float(), 3.0)
    assert soft.item() == pytest.approx(expected, abs=ATOL_NATS)
