"""A training run from its configuration: load, learn, save, evaluate."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dartok.core.tokenizer import Tokenizer
from dartok.data.augment import PixelConfig
from dartok.data.feed import train_feed
from dartok.data.loading import BadSamples
from dartok.data.order import TrainOrder
from dartok.data.samples import AnySource, Batch, PictureSource, ShardedSource
from dartok.data.transforms import DeviceTransform
from dartok.models.dials import set_num_tokens
from dartok.train.acceleration import accelerate
from dartok.train.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from dartok.train.clips import ClipJob
from dartok.train.config import TrainConfig
from dartok.train.distribution import full_state, share_buffers
from dartok.train.job import ClassifyingJob, Job
from dartok.train.learner import Learner, Mix
from dartok.train.model import ramp_steps
from dartok.train.monitor import Monitor, Progress
from dartok.train.package import save_package
from dartok.train.record_config import flat, same_run, write_config
from dartok.train.records import Records
from dartok.train.segmenting import SegmentingJob
from dartok.train.trackers import Tracker, create_trackers
from dartok.train.world import World

__all__ = ["Progress", "Result", "Run", "choose_precision"]


class Result(NamedTuple):
    """An evaluation while training."""

    step: int
    measures: dict[str, float]
    is_best: bool
    confusion: Tensor
    """Pictures of each class (row) that were taken for each class (column)."""


@dataclass(kw_only=True)
class Run:
    """One process's part in a training run.

    Args:
        config: Everything about the run.
        world: This process among all.
        on_step: Called after each step in the main process.
        on_result: Called after each evaluation in the main process.
    """

    config: TrainConfig
    world: World
    on_step: Callable[[Progress], object] = lambda progress: None
    on_result: Callable[[Result], object] = lambda result: None

    def __post_init__(self) -> None:
        config, loop = self.config, self.config.loop
        config.check_pairs(num_processes=self.world.size)
        self.checkpoints = loop.out / "checkpoints"
        self.job = job_of(config)
        self.train_source = self.job.train_source()
        self.eval_source = self.job.eval_source(self.train_source.class_names)
        self.order = self._order()
        self.num_steps = loop.steps or loop.epochs * self.order.steps_per_epoch
        self.precision = choose_precision(loop.precision, self.world.device)
        self.start = self._steps_done()
        num_classes = len(self.train_source.class_names)
        self.recipe = self.job.recipe(num_classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(loop.seed)  # the first weights
            model = self.job.build(self.recipe)
        self.pixels: PixelConfig = self.job.pixels(model)
        self.learner = self._learner(model.to(self.world.device), num_classes)
        self._write_record()

    def train(self) -> None:
        """Learn until the last step, from the newest checkpoint if the run resumes."""
        best = self._resume()
        bad = self._bad_samples(self.train_source, share_of=self.world.size)
        save_every = self.config.loop.save_every or self.order.steps_per_epoch
        eval_every = self.config.loop.eval_every or self.order.steps_per_epoch
        with closing(self._monitor()) as monitor:
            batches = self._batches()
            for step in range(self.start, self.num_steps):
                micro, waited_s = self._next(batches)
                new_bad = bad.add(sample for batch in micro for sample in batch.bad)
                monitor.step(self.learner.step(micro, step), waited_s, new_bad)
                done, last = step + 1, step + 1 == self.num_steps
                if done % eval_every == 0 or last:
                    best = self._evaluate(done, best, monitor)
                if done % save_every == 0 or last:
                    self._save(done, best)
                if done % eval_every == 0 or done % save_every == 0:
                    monitor.restart()

    def _next(self, batches: Iterator[Batch]) -> tuple[list[Batch], float]:
        """The micro-batches of a step on the device, and the seconds that they took."""
        start = time.perf_counter()
        micro = [
            batch.to(self.world.device) for batch in islice(batches, self.config.loop.accumulate)
        ]
        return micro, time.perf_counter() - start

    def _monitor(self) -> Monitor:
        """Notes of the main process; the others' go nowhere."""
        loop = self.config.loop
        trackers: list[Tracker] = []
        if self._main:
            settings = flat(self.config)
            trackers.append(Records(loop.out / "metrics.jsonl", first_step=self.start))
            trackers += create_trackers(loop.trackers, loop.out, settings, first_step=self.start)
        return Monitor(
            self.learner.model,
            trackers,
            image_px=self.pixels.size_px,
            batch_size=loop.batch_size,
            num_steps=self.num_steps,
            device=self.world.device,
            on_step=self.on_step if self._main else lambda progress: None,
        )

    @property
    def _main(self) -> bool:
        return self.world.is_main

    def _order(self) -> TrainOrder:
        loop = self.config.loop
        return TrainOrder(
            num_samples=len(self.train_source),
            batch_size=loop.batch_size,
            seed=loop.seed,
            num_repeats=self.config.augment.repeats,
            rank=self.world.rank,
            world_size=self.world.size,
            accumulate=loop.accumulate,
        )

    def _steps_done(self) -> int:
        """Steps of the run to resume, 0 without one; refuses a folder that holds another run."""
        loop = self.config.loop
        newest = latest_checkpoint(self.checkpoints)
        if newest is not None and not loop.resume:
            raise ValueError(
                f"out {loop.out} holds a run already; continue it with --resume, or choose "
                "another --out"
            )
        if newest is None:
            return 0
        stream = isinstance(self.train_source, ShardedSource)
        same_run(self.config, loop.out / "config.toml", stream=stream)
        state = load_checkpoint(newest)
        if stream and state["processes"] != self.world.size:
            raise ValueError(
                f"a run on a stream must be resumed by as many processes, {state['processes']}, "
                f"got {self.world.size}: they share out its pictures; or choose another --out"
            )
        return int(state["step"])

    def _write_record(self) -> None:
        """Make the run's folder, once nothing can be refused any more."""
        self.world.wait()  # no process may look for a run after another has written this one
        if self._main:
            out = self.config.loop.out
            out.mkdir(parents=True, exist_ok=True)
            write_config(self.config, out / "config.toml")

    def _learner(self, model: nn.Module, num_classes: int) -> Learner:
        config, loop, device = self.config, self.config.loop, self.world.device
        goal = self.job.objective(model, self.train_source, self.pixels, device)
        on_device = config.augment.on_device
        return Learner(
            accelerate(model, loop, config.model.budget),
            goal,
            optim=config.optim,
            num_steps=self.num_steps,
            seed=loop.seed,
            world=self.world,
            precision=self.precision,
            mix=_mix(config, num_classes),
            accumulate=loop.accumulate,
            prepare=partial(_set_dials, config, ramp_steps(config.model, self.num_steps)),
            on_images=DeviceTransform(config.augment, self.pixels, device) if on_device else None,
            shard=loop.shard,
        )

    def _batches(self) -> Iterator[Batch]:
        config = self.config
        return train_feed(
            self.train_source,
            self.job.train_transform(self.pixels),
            self.order,
            self.start,
            self.num_steps,
            shuffle_buffer=config.data.shuffle_buffer,
            workers=config.data.workers,
            pin_memory=self.world.device.type == "cuda",
        )

    def _bad_samples(self, source: AnySource | PictureSource, *, share_of: int = 1) -> BadSamples:
        """Counts of all pictures, or of one process's share of them."""
        share = self.config.data.max_bad_share
        return BadSamples(num_samples=max(1, len(source) // share_of), max_share=share)

    def _resume(self) -> float:
        """Take over the newest checkpoint, if there is one; the best accuracy so far."""
        newest = latest_checkpoint(self.checkpoints)
        if newest is None:
            return -1.0
        state = load_checkpoint(newest)
        self.learner.load(state)
        return float(state["best"])

    def _save(self, step: int, best: float) -> None:
        state = self.learner.state() | {"best": best, "processes": self.world.size}
        if self._main:
            keep_last = self.config.loop.keep_last
            save_checkpoint(self.checkpoints, step, state, keep_last=keep_last)
        self.world.wait()

    def _evaluate(self, step: int, best: float, monitor: Monitor) -> float:
        model, budget = self.learner.evaluated, self.config.model.budget
        if budget is not None:
            set_num_tokens(
                model, budget.most, num_rows=self.config.model.num_rows
            )  # not what the step drew: to compare evaluations
        share_buffers(model, self.world)  # what is evaluated is what the main process keeps
        tally = self.job.evaluate(
            model,
            self.eval_source,
            self.pixels,
            batch_size=max(1, self.config.loop.batch_size // self.world.size),
            bad=self._bad_samples(self.eval_source),
            world=self.world,
            precision=self.precision,
        )
        measures = tally.measures()
        is_best = measures[tally.best] > best
        if is_best:
            self._save_best(model, measures | {"step": step})
        values = {f"eval/{name}": value for name, value in measures.items()}
        if self._main:
            values |= self.job.notes(model, self.eval_source, self.pixels, self.world.device)
        monitor.note(step, values)
        if self._main:
            self.on_result(Result(step, measures, is_best, tally.confusion.cpu()))
        return max(best, measures[tally.best])

    def _save_best(self, model: nn.Module, measures: dict[str, float]) -> None:
        state = full_state(model)  # every process takes part
        if self._main:
            save_package(
                model,
                self.recipe,
                self.config.loop.out / "best",
                state=state,
                pixels=self.pixels,
                class_names=self.train_source.class_names,
                measures=measures,
                extras=self.job.extras(self.train_source),
            )


_JOBS: dict[str, Callable[[TrainConfig], Job]] = {
    "classification": ClassifyingJob,
    "segmentation": SegmentingJob,
    "video": ClipJob,
}


def job_of(config: TrainConfig) -> Job:
    """What the task of a configuration has to do."""
    return _JOBS[config.task.task](config)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """The dtype that "auto", "float32" or "bfloat16" means on a device."""
    narrow = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if name == "auto":
        name = "bfloat16" if narrow else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]


def _set_dials(config: TrainConfig, ramp: int, model: nn.Module, step: int) -> None:
    """Strength and number of tokens of a step, counted from 0."""
    for module in model.modules():
        if isinstance(module, Tokenizer):
            module.set_strength(min(1.0, step / ramp) if ramp else 1.0)
            if config.model.budget is not None:
                num_tokens = config.model.budget.draw(config.loop.seed, step)
                module.set_num_tokens(num_tokens, config.model.num_rows)


def _mix(config: TrainConfig, num_classes: int) -> Mix | None:
    if not config.mixes:
        return None
    from timm.data import Mixup

    mixup: Mix = Mixup(  # type: ignore[no-untyped-call]
        mixup_alpha=config.augment.mixup,
        cutmix_alpha=config.augment.cutmix,
        label_smoothing=config.loss.label_smoothing,
        num_classes=num_classes,
    )
    return _of_frames(mixup) if config.task.task == "video" else mixup


def _of_frames(mix: Mix) -> Mix:
    """The same mixing for all frames of a clip: they are channels of one picture to timm."""

    def mix_clips(clips: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        mixed, shares = mix(clips.flatten(1, 2), labels)
        return mixed.unflatten(1, clips.shape[1:3]), shares

    return mix_clips
