"""Settings of a task: what cannot be, or would be passed over, is refused by its flag."""

import pytest

from dartok.tasks.task_config import TaskConfig

REFUSED = [
    ({"task": "depth"}, "task must be one of classification, segmentation, video, got 'depth'"),
    ({"decoder": "mask"}, "decoder needs --task segmentation, got mask for classification"),
    ({"task": "segmentation", "decoder": "x"}, "decoder must be linear, mask or upernet"),
    ({"task": "segmentation", "detail": 0}, "detail must be >= 1, got 0"),
    ({"task": "segmentation", "loss_stride": 0}, "loss-stride must be >= 1, got 0"),
    ({"task": "segmentation", "crop_width_px": 0}, "crop-width-px must be >= 1, got 0"),
    ({"task": "segmentation", "dice": -1.0}, "dice must be >= 0 and finite, got -1.0"),
    (
        {"task": "segmentation", "class_balance": float("nan")},
        "class-balance must be >= 0 and finite, got nan",
    ),
    (
        {"task": "segmentation", "min_scale": 2.0, "max_scale": 1.0},
        "min-scale must be > 0 and at most max-scale, got 2.0 and 1.0",
    ),
]


@pytest.mark.refuses
@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_it_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TaskConfig(**settings)


def test_a_classifier_needs_none():
    assert TaskConfig().task == "classification"
