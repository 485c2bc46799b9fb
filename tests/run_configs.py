"""Configurations of training runs by the names of their settings."""

import dataclasses

from dartok.data.augment import AugmentConfig
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.source_config import DataConfig
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.task_config import TaskConfig
from dartok.train.config import TrainConfig
from dartok.train.loop_config import LoopConfig
from dartok.train.model_config import ModelConfig
from dartok.train.optim_config import OptimConfig

PARTS = {
    "data": DataConfig,
    "clip": ClipConfig,
    "task": TaskConfig,
    "model": ModelConfig,
    "augment": AugmentConfig,
    "loss": LossConfig,
    "optim": OptimConfig,
    "loop": LoopConfig,
}


def make_config(pictures, out, **settings):
    """A run of seconds on a folder of pictures; each setting goes to the part that has it."""
    usual = {
        "data": str(pictures / "train"),
        "image_px": 64,
        "workers": 0,
        "model": "test_vit",
        "out": out,
        "steps": 4,
        "batch_size": 8,
        "device": "cpu",
    }
    settings = usual | settings
    parts = {}
    for name, cls in PARTS.items():
        known = {field.name for field in dataclasses.fields(cls)} & settings.keys()
        parts[name] = cls(**{key: settings.pop(key) for key in known})
    assert not settings, "a misspelt setting"
    return TrainConfig(**parts)
