"""Measures of segmentation against sums over pixels."""

import math

import pytest
import torch
from torch.testing import assert_close

from dartok.tasks.segmentation.tally import MapTally

NAMES = ("road", "sky", "car", "never")


def batches():
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        logits = torch.randn(2, 4, 6, 7, generator=generator)
        logits[:, 3] -= 100
        labels = torch.randint(0, 3, (2, 6, 7), generator=generator)
        labels[:, 0, :2] = 255
        yield logits, labels


def tally_of(some):
    tally = MapTally(NAMES)
    for logits, labels in some:
        tally.add(logits, labels)
    return tally


def test_measures_are_the_sums_over_all_counted_pixels():
    logits, labels = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    counted = labels != 255
    found, truth = logits.argmax(1)[counted], labels[counted]
    ious = []
    for c in range(3):
        both = ((found == c) & (truth == c)).sum()
        ious.append((both / ((found == c) | (truth == c)).sum()).item())
    tally = tally_of(batches())
    measures = tally.measures()
    assert measures["miou"] == pytest.approx(sum(ious) / 3, abs=1e-6)
    assert measures["pixel_accuracy"] == pytest.approx((found == truth).float().mean().item())
    loss = -logits.log_softmax(1).movedim(1, -1)[counted].gather(1, truth[:, None]).mean()
    assert measures["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert measures["images"] == 6
    of_class = tally.ious()
    assert [of_class[name] for name in NAMES[:3]] == pytest.approx(ious, abs=1e-6)
    assert math.isnan(of_class["never"])


def test_the_mean_is_that_of_torchmetrics():
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(4, ignore_index=255)
    for logits, labels in batches():
        metric.update(logits, labels)
    assert tally_of(batches()).measures()["miou"] == pytest.approx(metric.compute().item())


def test_counts_of_two_processes_add_up_in_place():
    some = list(batches())
    first, second = tally_of(some[:1]), tally_of(some[1:])
    for ours, theirs in zip(first.parts(), second.parts(), strict=True):
        ours += theirs
    for name, value in tally_of(some).measures().items():
        assert first.measures()[name] == pytest.approx(value)


def test_a_process_without_pictures_takes_over_the_counts_of_others():
    empty, full = MapTally(NAMES), tally_of(batches())
    for ours, theirs in zip(empty.parts(), full.parts(), strict=True):
        ours += theirs
    assert empty.measures() == full.measures()


@pytest.mark.refuses
def test_no_pixels_other_classes_and_broken_logits_are_refused():
    with pytest.raises(ValueError, match="nothing was evaluated"):
        MapTally(NAMES).measures()
    with pytest.raises(ValueError, match="logits must be of the 4 classes of the pictures, got 3"):
        MapTally(NAMES).add(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, dtype=torch.long))
    tally = MapTally(NAMES)
    tally.add(torch.full((1, 4, 2, 2), math.nan), torch.zeros(1, 2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match="logits must be finite, got a loss of nan"):
        tally.measures()


def test_confusion_has_labels_in_rows():
    tally = MapTally(("a", "b"))
    logits = torch.tensor([[[[0.0, 0.0]], [[1.0, 1.0]]]])
    tally.add(logits, torch.tensor([[[0, 1]]]))
    assert_close(tally.confusion, torch.tensor([[0, 1], [0, 1]]))
