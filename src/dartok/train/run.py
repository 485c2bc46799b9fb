"""A training run from its configuration: load, learn, save, evaluate."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dartok.core.tokenizer import Tokenizer
from dartok.data.augment import PixelConfig
from dartok.data.loading import BadSamples, train_batches
from dartok.data.order import TrainOrder
from dartok.data.samples import Batch, Source
from dartok.data.transforms import eval_transform, train_transform
from dartok.models.dials import set_num_tokens
from dartok.tasks.classification import criterion
from dartok.train.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint
from dartok.train.config import TrainConfig
from dartok.train.evaluation import evaluate
from dartok.train.learner import Learner, Mix, StepReport
from dartok.train.model import build_model, pixels_of, ramp_steps, recipe_of
from dartok.train.package import save_package
from dartok.train.record_config import same_run, write_config
from dartok.train.records import Records
from dartok.train.sources import eval_source, train_source
from dartok.train.world import World

__all__ = ["Progress", "Result", "Run", "choose_precision"]


class Progress(NamedTuple):
    """A step as it is shown while training."""

    report: StepReport
    num_steps: int
    images_per_second: float
    waiting: float
    """Share of the time, since the last report, that the step waited for data."""
    new_bad: tuple[str, ...]
    """Damaged pictures that were met for the first time."""


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
        self.train_source = train_source(config.data)
        self.eval_source = eval_source(config.data, self.train_source.class_names)
        self.order = self._order()
        self.num_steps = loop.steps or loop.epochs * self.order.steps_per_epoch
        self.precision = choose_precision(loop.precision, self.world.device)
        self.start = self._steps_done()
        image_px = config.data.image_px
        num_classes = len(self.train_source.class_names)
        self.recipe = recipe_of(config.model, num_classes=num_classes, image_px=image_px)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(loop.seed)  # the first weights
            model = build_model(config.model, self.recipe)
        self.pixels: PixelConfig = pixels_of(model, image_px)
        self.learner = self._learner(model.to(self.world.device), num_classes)
        self._write_record()

    def train(self) -> None:
        """Learn until the last step, from the newest checkpoint if the run resumes."""
        loop = self.config.loop
        best = self._resume()
        records = Records(loop.out / "metrics.jsonl", first_step=self.start) if self._main else None
        bad = self._bad_samples(self.train_source)
        save_every = loop.save_every or self.order.steps_per_epoch
        eval_every = loop.eval_every or self.order.steps_per_epoch
        clock = time.perf_counter()
        batches = self._batches()
        for step in range(self.start, self.num_steps):
            waited = time.perf_counter()
            micro = [batch.to(self.world.device) for batch in islice(batches, loop.accumulate)]
            waited = time.perf_counter() - waited
            new_bad = bad.add(sample for batch in micro for sample in batch.bad)
            report = self.learner.step(micro, step)
            now = time.perf_counter()
            seconds, clock = now - clock, now
            if records is not None:
                progress = Progress(
                    report,
                    self.num_steps,
                    loop.batch_size / seconds,
                    waited / seconds,
                    tuple(new_bad),
                )
                records.add(report.step, _numbers(progress))
                self.on_step(progress)
            done, last = step + 1, step + 1 == self.num_steps
            if done % eval_every == 0 or last:
                best = self._evaluate(done, best, records)
                clock = time.perf_counter()
            if done % save_every == 0 or last:
                self._save(done, best)
                clock = time.perf_counter()

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
        if newest is not None:
            same_run(self.config, loop.out / "config.toml")
        return 0 if newest is None else int(load_checkpoint(newest)["step"])

    def _write_record(self) -> None:
        """Make the run's folder, once nothing can be refused any more."""
        self.world.wait()  # no process may look for a run after another has written this one
        if self._main:
            out = self.config.loop.out
            out.mkdir(parents=True, exist_ok=True)
            write_config(self.config, out / "config.toml")

    def _learner(self, model: nn.Module, num_classes: int) -> Learner:
        config, loop = self.config, self.config.loop
        return Learner(
            model,
            criterion(config.loss),
            optim=config.optim,
            num_steps=self.num_steps,
            seed=loop.seed,
            world=self.world,
            precision=self.precision,
            mix=_mix(config, num_classes),
            accumulate=loop.accumulate,
            prepare=partial(_set_dials, config, ramp_steps(config.model, self.num_steps)),
        )

    def _batches(self) -> Iterator[Batch]:
        config = self.config
        return train_batches(
            self.train_source,
            train_transform(config.augment, self.pixels),
            self.order.batches(self.start, self.num_steps),
            seed=config.loop.seed,
            workers=config.data.workers,
            pin_memory=self.world.device.type == "cuda",
        )

    def _bad_samples(self, source: Source) -> BadSamples:
        share = self.config.data.max_bad_share
        return BadSamples(num_samples=len(source), max_share=share)

    def _resume(self) -> float:
        """Take over the newest checkpoint, if there is one; the best accuracy so far."""
        newest = latest_checkpoint(self.checkpoints)
        if newest is None:
            return -1.0
        state = load_checkpoint(newest)
        self.learner.load(state)
        return float(state["best"])

    def _save(self, step: int, best: float) -> None:
        if self._main:
            state = self.learner.state() | {"best": best}
            keep_last = self.config.loop.keep_last
            save_checkpoint(self.checkpoints, step, state, keep_last=keep_last)
        self.world.wait()

    def _evaluate(self, step: int, best: float, records: Records | None) -> float:
        model, budget = self.learner.evaluated, self.config.model.budget
        if budget is not None:
            set_num_tokens(model, budget.most)  # not what the step drew: to compare evaluations
        tally = evaluate(
            model,
            self.eval_source,
            eval_transform(self.pixels),
            batch_size=max(1, self.config.loop.batch_size // self.world.size),
            bad=self._bad_samples(self.eval_source),
            world=self.world,
            workers=self.config.data.workers,
            precision=self.precision,
        )
        measures = tally.measures()
        is_best = measures["top1"] > best
        if records is not None:
            if is_best:
                save_package(
                    model,
                    self.recipe,
                    self.config.loop.out / "best",
                    pixels=self.pixels,
                    class_names=self.train_source.class_names,
                    measures=measures | {"step": step},
                )
            records.add(step, {f"eval/{name}": value for name, value in measures.items()})
            self.on_result(Result(step, measures, is_best, tally.confusion.cpu()))
        return max(best, measures["top1"])


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
                module.set_num_tokens(config.model.budget.draw(config.loop.seed, step))


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
    return mixup


def _numbers(progress: Progress) -> dict[str, float]:
    report = progress.report
    return {
        "loss": report.loss,
        "grad_norm": report.grad_norm,
        "learning_rate": report.learning_rate,
        "images_per_second": progress.images_per_second,
        "waiting": progress.waiting,
    }
