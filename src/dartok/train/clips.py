"""The job of telling the class of videos: its part in a training run."""

from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from dartok.data.augment import PixelConfig
from dartok.data.clips.opening import clips_beside, open_clips
from dartok.data.clips.transforms import eval_clip_transform, train_clip_transform
from dartok.data.samples import AnySource, ClipTransform
from dartok.models.presets import VIDEO_PRESETS
from dartok.models.recipes import Recipe
from dartok.models.registry import ADAPTED
from dartok.train.job import ClassifyingJob
from dartok.train.model import region_args
from dartok.train.package import CLIP

__all__ = ["ClipJob"]


class ClipJob(ClassifyingJob):
    """Videos to one class each."""

    def train_source(self) -> AnySource:
        """As `--data` names it."""
        data = self.config.data
        return open_clips(
            data.data, classes=data.classes, root=data.root, num_samples=data.num_samples
        )

    def eval_source(self, class_names: tuple[str, ...]) -> AnySource:
        """As `--val` names it, or what lies beside the training videos."""
        data = self.config.data
        return open_clips(
            data.val or clips_beside(data.data),
            class_names,
            classes=data.classes,
            root=data.root,
            num_samples=data.val_num_samples,
        )

    def recipe(self, num_classes: int) -> Recipe:
        """Of a host of clips, or of a host of images as a model of clips.

        Without a number of tokens a host of images keeps its fixed grid in each frame.
        """
        config, frames = self.config.model, self.config.clip.num_frames
        args: dict[str, Any] = {"num_classes": num_classes}
        if config.drop_path:
            args["drop_path_rate"] = config.drop_path
        if self.config.data.image_px is not None:
            args["img_size"] = self.config.data.image_px
        of_clips = config.model in VIDEO_PRESETS
        if of_clips and config.budget is None:
            return Recipe(config.model, args | {"num_frames": frames})
        host: dict[str, Any] = {"host": config.model, "scorer": "uniform", "partition": "grid"}
        if config.budget is not None:
            host = region_args(config, frames)
        lengths = {"host_args": {"num_frames": frames}} if of_clips else {"num_frames": frames}
        return Recipe(ADAPTED, args | host | lengths)

    def pixels(self, model: nn.Module) -> PixelConfig:
        """Squares of the frames' whole height or width, as videos are tested."""
        return replace(super().pixels(model), crop_share=1.0)

    def train_transform(self, pixels: PixelConfig) -> ClipTransform:
        """One clip, all frames alike."""
        return train_clip_transform(self.config.augment, pixels, self.config.clip)

    def eval_transform(self, pixels: PixelConfig) -> ClipTransform:
        """All views of each video."""
        return eval_clip_transform(pixels, self.config.clip)

    @property
    def num_views(self) -> int:
        """Clips and crops of each video."""
        return self.config.clip.num_views

    def notes(
        self, model: nn.Module, source: AnySource, pixels: PixelConfig, device: torch.device
    ) -> dict[str, float]:
        """Nothing: no source of videos says where the object is."""
        return {}

    def extras(self, source: AnySource) -> dict[str, Any]:
        """Which frames the model is to be shown."""
        return {CLIP: asdict(self.config.clip)}
