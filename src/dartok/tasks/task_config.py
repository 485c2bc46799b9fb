"""What is told of a picture, and how: settings only."""

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

__all__ = ["DecoderName", "TaskConfig", "TaskName"]

TaskName = Literal["classification", "segmentation", "video"]
DecoderName = Literal["linear", "mask", "upernet"]


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """What is told of a picture or video. All but the first is for --task segmentation."""

    task: TaskName = "classification"
    """The class of each picture, of each pixel (segmentation) or of each video (video). With
    segmentation --data is a data set of label maps, laid out as ADE20K, Cityscapes, PASCAL VOC,
    CamVid or your own (docs/audit.md); with video it is a folder of class folders of videos, a list
    or shards of them (docs/video.md)."""
    decoder: DecoderName = "linear"
    """What reads the tokens: a linear layer (linear), a mask transformer after Segmenter (mask), or
    UPerNet on maps that they are painted to (upernet)."""
    detail: int = 4
    """Samples per region and axis that the first two tell the classes of; 1 gives each region one
    class."""
    class_balance: float = 0.0
    """Weight of a class in the loss: its share of the pixels to the power of minus this; 0 weighs
    all pixels alike."""
    dice: float = 0.0
    """Weight of the Dice loss beside the cross entropy; 0 for none."""
    score_boundary: float = 0.0
    """Weight of teaching the score net where classes meet; 0 leaves it to the other losses."""
    loss_stride: int = 2
    """The loss looks at each so-many-th row and column of pixels."""
    min_scale: float = 0.5
    """Smallest random scale of a training picture, relative to --image-px."""
    max_scale: float = 2.0
    """Largest random scale of a training picture."""
    crop_width_px: int | None = None
    """Width of training crops; by default that of --image-px, their height."""
    windows: bool = False
    """Evaluate in overlapping windows of a crop's size, instead of the whole picture at once."""

    def __post_init__(self) -> None:
        known = get_args(TaskName)
        if self.task not in known:
            raise ValueError(f"task must be one of {', '.join(known)}, got {self.task!r}")
        self._check_used()
        if self.decoder not in ("linear", "mask", "upernet"):
            raise ValueError(f"decoder must be linear, mask or upernet, got {self.decoder!r}")
        for name in ("detail", "loss_stride", "crop_width_px"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{_flag(name)} must be >= 1, got {value}")
        for name in ("class_balance", "dice", "score_boundary"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(
                    f"{_flag(name)} must be >= 0 and finite, got {getattr(self, name)}"
                )
        if not 0 < self.min_scale <= self.max_scale < math.inf:
            raise ValueError(
                "min-scale must be > 0 and at most max-scale, got "
                f"{self.min_scale} and {self.max_scale}"
            )

    def _check_used(self) -> None:
        """Refuse what a classifier would pass over."""
        if self.task == "segmentation":
            return
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name != "task" and value != entry.default:
                raise ValueError(
                    f"{_flag(entry.name)} needs --task segmentation, got {value} for {self.task}"
                )


def _flag(name: str) -> str:
    return name.replace("_", "-")
