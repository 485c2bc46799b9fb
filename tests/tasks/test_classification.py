"""Losses against formulas written by hand, measures against NumPy and scikit-learn."""

import numpy as np
import pytest
import torch
from refusals import refused
from sklearn import metrics

from dartok.tasks.classification import Tally, criterion
from dartok.tasks.loss_config import LossConfig

ATOL = 1e-6
ATOL_NATS = 1e-6


def oracle_shares(labels, num_classes, smoothing):
    shares = np.full((len(labels), num_classes), smoothing / num_classes)
    shares[np.arange(len(labels)), labels] += 1 - smoothing
    return shares


def oracle_loss(name, logits, shares):
    logits = np.asarray(logits, dtype=np.float64)
    if name == "ce":
        log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return -(shares * log_softmax).sum(1).mean()
    log_yes, log_no = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
    return -(shares * log_yes + (1 - shares) * log_no).mean()


def oracle_calibration_error(probabilities, labels):
    """Guo et al., equation 3: bins `((m - 1) / 15, m / 15]` of the largest probability."""
    confidence = probabilities.max(1)
    right = probabilities.argmax(1) == labels
    error = 0.0
    for bin_ in range(1, 16):
        inside = (confidence > (bin_ - 1) / 15) & (confidence <= bin_ / 15)
        if inside.any():
            gap = abs(right[inside].mean() - confidence[inside].mean())
            error += inside.mean() * gap
    return error


def softmax(logits):
    shares = np.exp(np.asarray(logits, dtype=np.float64))
    return shares / shares.sum(1, keepdims=True)


def guesses(count, num_classes, dtype=torch.float32):
    """Logits that are right more often than by chance, and labels of which some never occur."""
    labels = torch.randint(num_classes - 1, (count,))
    logits = 2 * torch.randn(count, num_classes)
    logits[torch.arange(count), labels] += 2
    return logits.to(dtype), labels


def tally(logits, labels):
    result = Tally(num_classes=logits.shape[1])
    result.add(logits, labels)
    return result


@pytest.mark.parametrize("name", ["ce", "bce"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
def test_the_loss_of_labels_is_the_formula(name, smoothing):
    logits, labels = guesses(9, 7)
    loss = criterion(LossConfig(loss=name, label_smoothing=smoothing))
    expected = oracle_loss(name, logits, oracle_shares(labels.numpy(), 7, smoothing))
    assert loss(logits, labels).item() == pytest.approx(expected, abs=ATOL_NATS)


@pytest.mark.parametrize("name", ["ce", "bce"])
def test_label_shares_are_taken_as_they_are_and_not_smoothed_again(name):
    logits = torch.randn(5, 4)
    shares = torch.rand(5, 4).softmax(-1)
    loss = criterion(LossConfig(loss=name, label_smoothing=0.3))
    expected = oracle_loss(name, logits, shares.double().numpy())
    assert loss(logits, shares).item() == pytest.approx(expected, abs=ATOL_NATS)


@pytest.mark.parametrize("name", ["ce", "bce"])
def test_the_loss_of_narrow_logits_is_computed_in_float32(name):
    logits, labels = guesses(300, 10, torch.bfloat16)
    loss = criterion(LossConfig(loss=name))(logits, labels)
    assert loss.dtype == torch.float32
    expected = oracle_loss(name, logits.float(), oracle_shares(labels.numpy(), 10, 0.1))
    assert loss.item() == pytest.approx(expected, abs=ATOL_NATS)


@pytest.mark.parametrize("name", ["ce", "bce"])
def test_a_loss_is_lowest_where_the_prediction_equals_the_label_shares(name):
    shares = torch.tensor([[0.7, 0.2, 0.1]])
    best = shares.log() if name == "ce" else shares.logit()
    logits = best.clone().requires_grad_()
    criterion(LossConfig(loss=name))(logits, shares).backward()
    assert logits.grad.abs().max() < ATOL


@pytest.mark.parametrize("num_classes", [3, 6, 20])
def test_measures_match_numpy_and_scikit_learn(num_classes):
    logits, labels = guesses(200, num_classes)
    measures = tally(logits, labels).measures()
    scores, truth = softmax(logits), labels.numpy()
    predicted = scores.argmax(1)
    among_five = (-scores).argsort(1)[:, :5] == truth[:, None]
    expected = {
        "top1": metrics.accuracy_score(truth, predicted),
        "top5": among_five.any(1).mean(),
        "mean_class_top1": metrics.recall_score(
            truth, predicted, labels=np.unique(truth), average="macro"
        ),
        "loss": metrics.log_loss(truth, scores, labels=range(num_classes)),
        "ece": oracle_calibration_error(scores, truth),
        "images": 200,
    }
    assert measures == pytest.approx(expected, abs=ATOL)


def test_top_5_matches_scikit_learn():
    logits, labels = guesses(300, 12)
    expected = metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(12))
    assert tally(logits, labels).measures()["top5"] == pytest.approx(expected, abs=ATOL)


def test_the_confusion_has_a_row_for_each_label():
    logits, labels = guesses(100, 6)
    expected = metrics.confusion_matrix(labels, logits.argmax(1), labels=range(6))
    np.testing.assert_array_equal(tally(logits, labels).confusion, expected)


def test_a_class_without_pictures_does_not_count_in_the_mean_over_classes():
    logits = torch.eye(4)[[0, 0, 0, 1]]
    measures = tally(logits, torch.tensor([0, 0, 1, 1])).measures()
    assert measures["mean_class_top1"] == pytest.approx((1 + 1 / 2) / 2, abs=ATOL)


def test_a_confidence_on_the_edge_of_two_bins_belongs_to_the_lower_one():
    sure = np.log([0.38, 0.31, 0.31])  # right; the other one, wrong, has confidence 5 / 15
    logits = torch.tensor(np.stack([sure, np.zeros(3)]))
    wrong = (logits[1].topk(3).indices[0] + 1) % 3
    measures = tally(logits, torch.tensor([0, wrong])).measures()
    assert measures["ece"] == pytest.approx(((1 - 0.38) + 1 / 3) / 2, abs=ATOL)


def test_certainty_has_a_bin_and_costs_nothing_where_it_is_right():
    certain = 1e4 * torch.eye(3)
    measures = tally(certain, torch.arange(3)).measures()
    assert measures["ece"] == measures["loss"] == 0
    assert tally(certain, torch.tensor([0, 1, 0])).measures()["ece"] == pytest.approx(1 / 3)
    nearly_certain_and_right = torch.tensor([[0.9, 0.05, 0.05]]).log()
    logits = torch.cat([nearly_certain_and_right, certain[:1]])
    measures = tally(logits, torch.tensor([0, 1])).measures()
    assert measures["ece"] == pytest.approx((0.1 + 1) / 2, abs=ATOL)


@pytest.mark.parametrize("num_classes", [6, 10, 1000])
def test_equal_logits_cannot_make_top_1_exceed_top_5(num_classes):
    labels = torch.arange(num_classes)
    counted = tally(torch.zeros(num_classes, num_classes), labels)
    measures = counted.measures()
    assert counted.confusion.trace() == counted.sums[1] == 1
    assert measures["top1"] == pytest.approx(1 / num_classes, abs=ATOL)
    assert measures["top5"] == pytest.approx(5 / num_classes, abs=ATOL)
    for label in labels[:10]:
        one = tally(torch.zeros(1, num_classes), label[None]).measures()
        assert one["top1"] == one["mean_class_top1"] <= one["top5"]


def test_sums_of_batches_and_of_processes_add_up_to_those_of_all():
    logits, labels = guesses(50, 7)
    processes = [Tally(num_classes=7) for _ in range(3)]
    for number, rows in enumerate(torch.arange(50).split([9, 0, 20, 1, 13, 7])):
        processes[number % 2].add(logits[rows], labels[rows])  # the last one has no picture
    total = Tally(num_classes=7)
    for sums, *parts in zip(total.parts(), *(part.parts() for part in processes), strict=True):
        for part in parts:
            sums += part
    assert total.measures() == pytest.approx(tally(logits, labels).measures(), abs=1e-12)


def test_narrow_logits_are_counted_in_float64():
    logits, labels = guesses(64, 10, torch.bfloat16)
    narrow, wide = tally(logits, labels), tally(logits.double(), labels)
    for part, expected in zip(narrow.parts(), wide.parts(), strict=True):
        assert part.dtype == torch.float64
        assert torch.equal(part, expected)


def test_counting_keeps_no_graph():
    logits, labels = guesses(4, 3)
    assert not tally(logits.requires_grad_(), labels).sums.requires_grad


@pytest.mark.refuses
def test_measures_of_nothing_are_refused():
    with refused("nothing was evaluated: no picture could be read; check the data"):
        Tally(num_classes=3).measures()


@pytest.mark.refuses
@pytest.mark.parametrize(("value", "loss"), [(float("nan"), "nan"), (float("inf"), "nan")])
def test_logits_that_are_not_finite_are_refused(value, loss):
    logits, labels = guesses(8, 5)
    logits[3, 1] = value
    counted = tally(logits, labels)
    with refused(
        f"the model's logits must be finite, got a loss of {loss}; train it with a lower "
        "learning rate or evaluate it in float32"
    ):
        counted.measures()


@pytest.mark.refuses
def test_logits_of_other_classes_are_refused():
    with refused(
        "logits must be of the 3 classes of the pictures, got 5; the model was made for other "
        "classes"
    ):
        Tally(num_classes=3).add(torch.zeros(2, 5), torch.tensor([0, 1]))
