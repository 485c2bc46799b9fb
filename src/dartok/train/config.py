"""The configuration of a training run: command line, help, TOML file and record in one."""

from dataclasses import dataclass, field, fields

from dartok.data.augment import AugmentConfig
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.source_config import DataConfig
from dartok.models.presets import AUTHORS_PRESETS, VIDEO_PRESETS
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.task_config import TaskConfig
from dartok.train.loop_config import LoopConfig
from dartok.train.model_config import ModelConfig
from dartok.train.optim_config import OptimConfig

__all__ = ["TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything about a run."""

    data: DataConfig
    clip: ClipConfig = field(default_factory=ClipConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    loop: LoopConfig

    def __post_init__(self) -> None:
        steps, warmup = self.loop.steps, self.optim.warmup_steps
        if steps is not None and warmup is not None and warmup > steps:
            raise ValueError(f"warmup-steps must be at most --steps {steps}, got {warmup}")
        self.check_pairs(num_processes=1)
        if self.task.task == "video":
            self._check_video()
            return
        self._refuse_clips()
        if self.task.task == "segmentation":
            self._check_segmentation()
        else:
            self.data.check_kind("pictures")

    def _check_segmentation(self) -> None:
        """Refuse what is for classifiers alone."""
        self.data.check_kind("label maps")
        if self.loop.shard:
            raise ValueError("shard is for --task classification, got True; drop --shard")
        if self.model.model in AUTHORS_PRESETS:
            raise ValueError(
                f"model {self.model.model} classifies pictures; for --task segmentation give a "
                "timm ViT or a `vim_*` host"
            )

    def _check_video(self) -> None:
        """Refuse what is for pictures alone."""
        self.data.check_kind("videos")
        of_pictures = {
            "on-device": self.augment.on_device,
            "channels-last": self.loop.channels_last,
            "teacher": self.loss.teacher,
        }
        for flag, value in of_pictures.items():
            if value:
                raise ValueError(f"{flag} is not for videos, got {value}; drop --{flag}")
        if self.model.parts == "tokenizer" and self.model.budget is None:
            raise ValueError("parts tokenizer needs regions; give --num-tokens too")
        if self.model.model in AUTHORS_PRESETS:
            raise ValueError(
                f"model {self.model.model} sees pictures; for --task video give a timm ViT or a "
                "`videomamba_*_video` host"
            )

    def _refuse_clips(self) -> None:
        """Refuse what is for videos alone."""
        usual = ClipConfig()
        for name in (each.name for each in fields(usual)):
            if getattr(self.clip, name) != getattr(usual, name):
                flag = name.replace("_", "-")
                raise ValueError(f"{flag} needs --task video, got {getattr(self.clip, name)}")
        if self.model.model in VIDEO_PRESETS:
            raise ValueError(f"model {self.model.model} sees clips; give --task video")

    def check_pairs(self, *, num_processes: int) -> None:
        """Refuse to mix the pictures of a batch that has an odd number of them.

        Raises:
            ValueError: If it has.
        """
        micro = self.loop.batch_size // (self.loop.accumulate * num_processes)
        if self.mixes and micro % 2:
            raise ValueError(
                "batch-size must give each micro-batch of each process an even number of pictures "
                f"with --mixup or --cutmix, which pair them, got {micro} of {self.loop.batch_size}"
            )

    @property
    def mixes(self) -> bool:
        """Whether pictures of a batch are mixed."""
        return self.augment.mixup > 0 or self.augment.cutmix > 0
