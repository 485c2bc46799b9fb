"""`dartok train`: train or fine-tune a model on labelled pictures."""

from typing import Annotated

from cyclopts import Group, Parameter

from dartok.cli.console import say
from dartok.data.augment import AugmentConfig
from dartok.data.clips.clip_config import ClipConfig
from dartok.data.source_config import DataConfig
from dartok.tasks.loss_config import LossConfig
from dartok.tasks.task_config import TaskConfig
from dartok.train.config import TrainConfig
from dartok.train.loop_config import LoopConfig
from dartok.train.model_config import ModelConfig
from dartok.train.optim_config import OptimConfig

__all__ = ["train"]


_MODEL, _AUGMENT, _LOSS, _OPTIM = ModelConfig(), AugmentConfig(), LossConfig(), OptimConfig()
_TASK, _CLIP = TaskConfig(), ClipConfig()


def _part(title: str, place: int) -> Parameter:
    return Parameter(name="*", group=Group(title, sort_key=place))


def train(
    *,
    data: Annotated[DataConfig, _part("Data", 1)],
    loop: Annotated[LoopConfig, _part("Run", 2)],
    task: Annotated[TaskConfig, _part("Task", 3)] = _TASK,
    clip: Annotated[ClipConfig, _part("Clips", 4)] = _CLIP,
    model: Annotated[ModelConfig, _part("Model", 5)] = _MODEL,
    augment: Annotated[AugmentConfig, _part("Augmentation", 6)] = _AUGMENT,
    loss: Annotated[LossConfig, _part("Loss", 7)] = _LOSS,
    optim: Annotated[OptimConfig, _part("Optimisation", 8)] = _OPTIM,
) -> None:
    """Train or fine-tune on a folder with one folder of pictures per class, label maps, or videos.

    Settings come from --config FILE.toml, where a line `flag = value` stands for --flag value, and
    from the command line, which goes before the file. The run's folder --out holds config.toml,
    metrics.jsonl, checkpoints to --resume from, and best/, which dartok and timm load by
    local-dir:OUT/best. Start several processes by
    torchrun --nproc-per-node 2 -m dartok train ...
    """
    config = TrainConfig(
        data=data,
        task=task,
        clip=clip,
        model=model,
        augment=augment,
        loss=loss,
        optim=optim,
        loop=loop,
    )
    from dartok.cli.training import Display
    from dartok.train.run import Run
    from dartok.train.world import start_world

    with start_world(loop.device) as world, Display(enabled=world.is_main) as display:
        run = Run(config=config, world=world, on_step=display.step, on_result=display.result)
        if run.start and world.is_main:
            say(f"resuming {loop.out} at step {run.start} of {run.num_steps}")
        run.train()
        if world.is_main:
            display.plot(run.train_source.class_names, loop.out)
