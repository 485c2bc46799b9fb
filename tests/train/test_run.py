"""Whole runs of seconds: what they leave, and that a run cut short ends as if it had not been."""

import json
import math
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from run_configs import make_config
from states import difference, load, losses_of, steps_of

from dartok.core.tokenizer import Tokenizer
from dartok.data.loading import BadSamples
from dartok.data.transforms import eval_transform
from dartok.tasks.classification import Tally
from dartok.train.budgets import Budget
from dartok.train.checkpoints import latest_checkpoint
from dartok.train.evaluation import evaluate
from dartok.train.package import load_package
from dartok.train.run import Run, choose_precision
from dartok.train.world import World

EVERYTHING = {
    "num_tokens": "6..12",
    "ema_decay": 0.9,
    "drop_path": 0.2,
    "mixup": 0.8,
    "random_erasing": 0.3,
    "color_jitter": 0.3,
    "accumulate": 2,
    "strength_ramp": 5,
    "steps": 7,
    "save_every": 2,
    "eval_every": 3,
}
"""All that is random or changes from step to step."""


class StoppedError(Exception):
    """Stands for whatever ends a process."""


def train(config, **settings):
    run = Run(config=config, world=World(), **settings)
    run.train()
    return run


def train_until(config, step, **settings):
    """Train, and stop right after a step."""

    def on_step(progress):
        if progress.report.step == step:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(config, on_step=on_step, **settings)


@pytest.fixture(scope="module")
def whole(pictures, tmp_path_factory):
    """The folder of an uninterrupted run with `EVERYTHING`."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(make_config(pictures, out, **EVERYTHING))
    return out


def test_a_run_leaves_its_settings_its_metrics_its_checkpoints_and_its_best_model(config_of):
    config = config_of(steps=7, save_every=2, eval_every=3, keep_last=2)
    train(config)
    out = config.loop.out
    assert sorted(path.name for path in out.iterdir()) == [
        "best",
        "checkpoints",
        "config.toml",
        "metrics.jsonl",
    ]
    kept = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert kept == ["step-00000006.pt", "step-00000007.pt"]
    assert steps_of(out, "loss") == [1, 2, 3, 4, 5, 6, 7]
    assert steps_of(out, "eval/top1") == [3, 6, 7]
    assert sorted(path.name for path in (out / "best").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]


def test_epochs_are_counted_in_whole_steps_and_each_is_evaluated_and_saved(config_of):
    config = config_of(steps=None, epochs=2, batch_size=10, keep_last=9)
    run = train(config)
    assert run.num_steps == 4, "24 pictures are two steps of ten"
    assert steps_of(config.loop.out, "eval/top1") == [2, 4]
    kept = sorted(path.name for path in (config.loop.out / "checkpoints").iterdir())
    assert kept == ["step-00000002.pt", "step-00000004.pt"]


def test_a_run_learns_what_can_be_learnt(config_of):
    results = []
    train(config_of(steps=20, num_tokens="9"), on_result=results.append)
    assert results[-1].measures["top1"] == 1.0
    assert results[-1].measures["images"] == 10


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_run_cut_short_and_resumed_ends_bit_for_bit_as_if_it_had_not_been(
    config_of, whole, tmp_path, stop
):
    """Stopped before the first checkpoint, between two, right at one, and after an evaluation."""
    cut = tmp_path / "cut"
    train_until(config_of(**EVERYTHING, out=cut), stop)
    run = train(config_of(**EVERYTHING, out=cut, resume=True))
    assert run.start == 2 * ((stop - 1) // 2), "a step is shown before it is saved"
    assert difference(load(whole, 7), load(cut, 7)) == ""
    assert losses_of(whole) == losses_of(cut)
    assert steps_of(cut, "loss") == [1, 2, 3, 4, 5, 6, 7]
    assert steps_of(cut, "eval/top1") == [3, 6, 7]
    for name in ("config.json", "model.safetensors"):
        assert (whole / "best" / name).read_bytes() == (cut / "best" / name).read_bytes()


def test_a_run_that_was_cut_twice_ends_the_same(config_of, whole, tmp_path):
    cut = tmp_path / "cut"
    train_until(config_of(**EVERYTHING, out=cut), 3)
    train_until(config_of(**EVERYTHING, out=cut, resume=True), 5)
    train(config_of(**EVERYTHING, out=cut, resume=True))
    assert difference(load(whole, 7), load(cut, 7)) == ""
    assert losses_of(whole) == losses_of(cut)


def test_resuming_a_finished_run_changes_nothing(config_of):
    config = config_of(steps=3)
    train(config)
    out = config.loop.out
    before = load(out, 3), (out / "metrics.jsonl").read_text()
    shown = []
    train(config_of(steps=3, resume=True), on_step=shown.append)
    assert shown == []
    assert difference(before[0], load(out, 3)) == ""
    assert (out / "metrics.jsonl").read_text() == before[1]


def test_resuming_where_there_is_no_run_starts_one(config_of):
    run = train(config_of(steps=2, resume=True))
    assert run.start == 0
    assert steps_of(run.config.loop.out, "loss") == [1, 2]


def test_the_seed_decides_the_run_and_the_global_generators_are_left_alone(
    config_of, whole, tmp_path
):
    losses = [losses_of(whole)]
    for seed in (0, 1):
        torch.manual_seed(9)
        states = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
        out = tmp_path / str(seed)
        train(config_of(**EVERYTHING, out=out, seed=seed))
        assert torch.equal(states[0], torch.get_rng_state())
        assert states[1:] == (np.random.get_state()[2], random.getstate())
        losses.append(losses_of(out))
    assert losses[0] == losses[1]
    assert set(losses[0].values()).isdisjoint(losses[2].values())


def test_each_step_has_its_strength_and_its_number_of_tokens(config_of):
    seen = []

    def on_step(progress):
        for model in (run.learner.model, run.learner.evaluated):
            (tokenizer,) = (m for m in model.modules() if isinstance(m, Tokenizer))
            seen.append((progress.report.step, float(tokenizer.strength), tokenizer.num_tokens))

    config = config_of(steps=6, num_tokens="6..12", strength_ramp=4, ema_decay=0.9, seed=5)
    run = Run(config=config, world=World(), on_step=on_step)
    run.train()
    strengths = [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    drawn = [Budget(6, 12).draw(5, step) for step in range(6)]
    assert seen == [
        (step + 1, strengths[step], drawn[step]) for step in range(6) for _ in ("model", "average")
    ]


def test_the_best_folder_holds_the_model_that_was_measured_as_it_was_measured(config_of):
    """With a range of budgets, at the largest: whatever number the last step happened to draw."""
    results = []
    config = config_of(steps=5, eval_every=5, num_tokens="6..40", ema_decay=0.5, seed=3)
    run = train(config, on_result=results.append)
    assert run.learner.model.patch_embed.num_tokens < 40, "else the test shows nothing"
    package = load_package(config.loop.out / "best")
    tally = evaluate(
        package.model,
        run.eval_source,
        eval_transform(package.pixels),
        batch_size=8,
        bad=BadSamples(num_samples=10, max_share=0),
        world=World(),
    )
    assert tally.measures() == results[-1].measures
    assert package.class_names == ("bright", "dark")
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(package.model(images), run.learner.evaluated.eval()(images))


@pytest.mark.parametrize("stop", [None, 4])
def test_the_best_is_the_first_of_the_highest_accuracy_also_over_a_resume(
    config_of, monkeypatch, stop
):
    def scripted(*_, **__):
        accuracy = [0.2, 0.5, 0.5, 0.4, 0.6, 0.1][len(results)]
        tally = Tally(num_classes=2)
        tally.sums += torch.tensor([10.0, 10 * accuracy, 10.0, 0.0])
        return tally

    results = []
    monkeypatch.setattr("dartok.train.job.evaluate", scripted)
    config = config_of(steps=6, eval_every=1, save_every=1)
    if stop is not None:
        train_until(config, stop, on_result=results.append)
        config = config_of(steps=6, eval_every=1, save_every=1, resume=True)
    train(config, on_result=results.append)
    assert [result.is_best for result in results] == [True, True, False, False, True, False]
    kept = json.loads((config.loop.out / "best" / "config.json").read_text())
    assert kept["measures"]["step"] == 5
    assert load(config.loop.out, 6)["best"] == 0.6


def test_only_the_parts_that_learn_change(config_of):
    config = config_of(steps=2, save_every=1, num_tokens="9", parts="head")
    train(config)
    before, after = (load(config.loop.out, step)["model"] for step in (1, 2))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


def test_damaged_pictures_are_named_once(config_of, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    (tmp_path / "pictures" / "train" / "dark" / "3.png").write_bytes(b"<html>")
    (tmp_path / "pictures" / "val" / "dark" / "4.png").write_bytes(b"")
    settings = {"data": str(tmp_path / "pictures" / "train"), "max_bad_share": 0.1, "steps": 9}
    shown, results = [], []
    train(config_of(**settings), on_step=shown.append, on_result=results.append)
    assert [name for progress in shown for name in progress.new_bad] == ["dark/3.png"]
    assert results[-1].measures["images"] == 9


def test_progress_says_how_fast_and_how_long_it_waited(config_of):
    shown = []
    train(config_of(steps=3), on_step=shown.append)
    assert [progress.report.step for progress in shown] == [1, 2, 3]
    assert all(progress.num_steps == 3 for progress in shown)
    assert all(0 < progress.waiting < 1 for progress in shown)
    assert all(0 < progress.images_per_second < math.inf for progress in shown)


def test_a_full_disk_stops_a_run_that_can_then_be_resumed(config_of, whole, tmp_path, monkeypatch):
    cut = tmp_path / "cut"
    save = torch.save

    def fail_after_two(content, path):
        if content["step"] > 2:
            path.write_bytes(b"half")
            raise RuntimeError("[enforce fail] PytorchStreamWriter failed writing file")
        save(content, path)

    monkeypatch.setattr(torch, "save", fail_after_two)
    with pytest.raises(OSError, match=r"step-00000004.pt cannot be written"):
        train(config_of(**EVERYTHING, out=cut))
    monkeypatch.undo()
    assert [path.name for path in (cut / "checkpoints").iterdir()] == ["step-00000002.pt"]
    train(config_of(**EVERYTHING, out=cut, resume=True))
    assert difference(load(whole, 7), load(cut, 7)) == ""


def test_precision_is_what_was_asked_for_and_auto_is_float32_on_a_cpu():
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == torch.float32
    assert choose_precision("float32", cpu) == torch.float32
    assert choose_precision("bfloat16", cpu) == torch.bfloat16


def test_a_run_in_bfloat16_keeps_its_weights_in_float32(config_of):
    config = config_of(steps=2, num_tokens="9", precision="bfloat16")
    train(config)
    state = load(config.loop.out, 2)["model"]
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float32}


@pytest.mark.refuses
def test_a_folder_that_holds_a_run_is_not_overwritten(config_of):
    config = config_of(steps=1)
    train(config)
    with pytest.raises(ValueError, match=r"out .* holds a run already; continue it with --resume"):
        Run(config=config, world=World())
    assert steps_of(config.loop.out, "loss") == [1]


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 1.0}, "learning-rate must be 0.0005, as in the run to resume"),
        ({"model": "test_vit2"}, "model must be 'test_vit', as in the run to resume"),
        ({"num_tokens": "9"}, "num-tokens must be unset, as in the run to resume"),
        ({"steps": 9}, "steps must be 2, as in the run to resume"),
    ],
)
def test_a_run_is_not_resumed_with_other_settings(config_of, settings, message):
    train(config_of(steps=2))
    with pytest.raises(ValueError, match=message):
        Run(config=config_of(**{"steps": 2, "resume": True} | settings), world=World())


@pytest.mark.refuses
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_serves(config_of, whole, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    last = latest_checkpoint(cut / "checkpoints")
    last.write_bytes(last.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step-00000007.pt cannot be read .*; remove it to"):
        Run(config=config_of(**EVERYTHING, out=cut, resume=True), world=World())
    last.unlink()
    train(config_of(**EVERYTHING, out=cut, resume=True))
    assert difference(load(whole, 7), load(cut, 7)) == ""


@pytest.mark.refuses
def test_too_many_damaged_pictures_stop_the_run(config_of, pictures, tmp_path):
    shutil.copytree(pictures / "train", tmp_path / "train")
    for number in range(6):
        (tmp_path / "train" / "dark" / f"{number}.png").write_bytes(b"")
    config = config_of(data=str(tmp_path / "train"), val=str(pictures / "val"), steps=3)
    with pytest.raises(ValueError, match="of 24 pictures are damaged, more than max-bad-share"):
        train(config)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("settings", "world", "message"),
    [
        ({"mixup": 0.8}, World(size=8), "an even number of pictures .* got 1 of 8"),
        ({"batch_size": 9}, World(size=2), "multiple of the 2 processes .* got 9"),
        ({"batch_size": 25}, World(), "batch-size must be at most the 24 training pictures"),
        ({"val": "missing"}, World(), "folder missing does not exist"),
        ({"warmup_steps": 40, "steps": None, "epochs": 2}, World(), "at most the 6 of the run"),
        ({"image_px": 70}, World(), "image-px must be a multiple of 16"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_anything_is_written(
    config_of, settings, world, message
):
    config = config_of(**settings)
    with pytest.raises(ValueError, match=message) as raised:
        Run(config=config, world=world)
    assert "\n" not in str(raised.value)
    assert latest_checkpoint(config.loop.out / "checkpoints") is None


@pytest.mark.refuses
def test_pictures_that_ruin_the_loss_stop_the_run_and_the_last_checkpoint_serves(
    config_of, monkeypatch
):
    config = config_of(steps=4, save_every=1)
    run = Run(config=config, world=World())
    step = run.learner.step

    def spoil(batches, number):
        if number == 2:
            batches = [batch._replace(images=batch.images * math.nan) for batch in batches]
        return step(batches, number)

    monkeypatch.setattr(run.learner, "step", spoil)
    with pytest.raises(ValueError, match="got loss nan at step 3, first in the output of patch_em"):
        run.train()
    assert latest_checkpoint(config.loop.out / "checkpoints").name == "step-00000002.pt"
    train(config_of(steps=4, save_every=1, resume=True))
    assert steps_of(config.loop.out, "loss") == [1, 2, 3, 4]


def test_a_picture_of_any_mode_and_shape_is_learnt_from(config_of, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    for mode in ("L", "RGBA", "P", "1"):
        Image.new(mode, (9, 70)).save(tmp_path / "pictures" / "train" / "dark" / f"{mode}.png")
    train(config_of(data=str(tmp_path / "pictures" / "train"), steps=None, epochs=1, batch_size=14))
