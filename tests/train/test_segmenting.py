"""Training and evaluating on label maps: through the same run as classifiers, and by hand."""

import numpy as np
import pytest
import torch
from map_folders import write_maps
from run_configs import make_config
from torch.testing import assert_close

from dartok.data.label_maps import open_label_maps
from dartok.data.label_maps.transforms import eval_map_transform
from dartok.data.loading import BadSamples
from dartok.models.dials import tokenizer_of
from dartok.train.package import load_package
from dartok.train.records import read_records
from dartok.train.run import Run
from dartok.train.segmenting import class_shares, evaluate_maps, open_split
from dartok.train.world import World


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return write_maps(tmp_path_factory.mktemp("maps"))


def config_of(maps, out, **settings):
    usual = {
        "data": str(maps),
        "task": "segmentation",
        "num_tokens": "20",
        "image_px": 40,
        "crop_width_px": 56,
        "batch_size": 3,
        "warmup_steps": 1,
        "learning_rate": 2e-3,
    }
    return make_config(maps, **{**usual, "out": out, **settings})


def run(maps, out, **settings):
    found = []
    Run(config=config_of(maps, out, **settings), world=World(), on_result=found.append).train()
    return found


@pytest.mark.parametrize("decoder", ["linear", "mask", "upernet"])
def test_the_loss_falls_and_the_best_model_can_be_loaded(maps, tmp_path, decoder):
    run(maps, tmp_path / "run", decoder=decoder, steps=12, eval_every=12)
    losses = [record["loss"] for record in read_records(tmp_path / "run/metrics.jsonl")[:12]]
    assert sum(losses[-3:]) < sum(losses[:3])
    package = load_package(tmp_path / "run/best")
    assert package.class_names == ("ground", "box")
    assert package.colours[1] == (255, 0, 0)
    assert package.model(torch.zeros(1, 3, 40, 56)).shape == (1, 2, 40, 56)


def test_all_terms_are_noted_and_a_box_is_found(maps, tmp_path):
    found = run(
        maps,
        tmp_path / "run",
        steps=80,
        eval_every=80,
        score_boundary=0.3,
        dice=0.5,
        class_balance=0.5,
        min_scale=1.0,
        max_scale=1.0,
        color_jitter=0.1,
    )
    record = read_records(tmp_path / "run/metrics.jsonl")[0]
    assert {"loss/pixels", "loss/dice", "loss/boundary"} <= record.keys()
    assert found[-1].measures["miou"] > 0.7
    assert found[-1].confusion.sum() > 0


def test_a_broken_off_run_goes_on_as_if_it_had_not_been(maps, tmp_path):
    run(maps, tmp_path / "whole", steps=4, eval_every=4, save_every=2)
    run(maps, tmp_path / "part", steps=4, eval_every=4, save_every=2)
    for name in ("checkpoints",):
        last = sorted((tmp_path / "part" / name).iterdir())[-1]
        last.unlink()
    run(maps, tmp_path / "part", steps=4, eval_every=4, save_every=2, resume=True)
    first, second = (load_package(tmp_path / name / "best").model for name in ("whole", "part"))
    for (name, ours), theirs in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name


def test_an_evaluation_is_picture_by_picture_at_its_own_size_whatever_the_batch(maps, tmp_path):
    run(maps, tmp_path / "run", steps=3, eval_every=3, image_px=32, crop_width_px=44)
    package = load_package(tmp_path / "run/best")
    source = open_label_maps(maps, "val")
    both = total = 0
    transform = eval_map_transform(package.pixels)
    with torch.no_grad():
        for index in range(len(source)):
            image, labels = transform(source.load(index))
            found = package.model(image[None], tuple(labels.shape)).argmax(1)[0]
            known = labels != 255
            both += (found == labels)[known].sum().item()
            total += known.sum().item()
    for batch_size in (1, 2, 5):
        tally = evaluate_maps(
            package.model,
            source,
            package.pixels,
            batch_size=batch_size,
            bad=BadSamples(num_samples=5, max_share=0.0),
            world=World(),
        )
        assert tally.measures()["pixel_accuracy"] == pytest.approx(both / total, abs=1e-9)
        assert tally.measures()["images"] == 5


def test_the_counts_of_all_processes_are_added_up(maps, tmp_path, monkeypatch):
    run(maps, tmp_path / "run", steps=1, eval_every=1)
    package = load_package(tmp_path / "run/best")

    def add_up(self, *parts):
        for part in parts:
            part *= 2  # as if another process had seen the same

    monkeypatch.setattr(World, "add_up", add_up)
    tally = evaluate_maps(
        package.model,
        open_label_maps(maps, "val"),
        package.pixels,
        batch_size=2,
        bad=BadSamples(num_samples=5, max_share=0.0),
        world=World(),
    )
    assert tally.measures()["images"] == 10


def test_windows_see_a_picture_of_one_window_as_the_whole(maps, tmp_path):
    run(maps, tmp_path / "run", steps=3, eval_every=3, windows=True)
    package = load_package(tmp_path / "run/best")
    pixels = package.pixels
    tallies = [
        evaluate_maps(
            package.model,
            open_label_maps(maps, "val"),
            pixels,
            batch_size=2,
            bad=BadSamples(num_samples=5, max_share=0.0),
            world=World(),
            windows=windows,
        )
        for windows in (False, True)
    ]
    whole, by_windows = (tally.measures()["miou"] for tally in tallies)
    assert by_windows == pytest.approx(whole, abs=0.2)


def test_a_damaged_label_map_is_counted_and_left_out(maps, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(maps, root)
    (root / "labels/val/1.png").write_bytes(b"no picture")
    source = open_split(f"{root}:val", "train")
    run(maps, tmp_path / "run", steps=1, eval_every=1)
    package = load_package(tmp_path / "run/best")
    bad = BadSamples(num_samples=5, max_share=0.5)
    tally = evaluate_maps(
        package.model, source, package.pixels, batch_size=2, bad=bad, world=World()
    )
    assert tally.measures()["images"] == 4
    assert list(bad.reasons) == ["images/val/1.png"]


def test_shares_of_classes_are_those_of_the_labelled_pixels(maps):
    source = open_label_maps(maps, "train")
    labels = np.concatenate(
        [np.array(source.load(index).labels).ravel() for index in range(len(source))]
    )
    box = (labels == 1).sum() / (labels != 255).sum()
    assert_close(class_shares(source)[1].item(), box, rtol=1e-5, atol=0)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": 0.8, "batch_size": 4}, "mixup does not know label maps"),
        ({"loss": "bce"}, "pixels are learnt by cross entropy"),
        ({"stream": True}, "^stream is not for label maps, got True; drop --stream$"),
        ({"model": "darvit_tiny"}, "model darvit_tiny classifies pictures"),
        ({"num_rows": 21}, "num-rows must be at most num-tokens, got 21 and 20"),
    ],
)
def test_what_is_for_classifiers_alone_is_refused(maps, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        run(maps, tmp_path / "run", **settings)


def test_the_rows_asked_for_stay_through_training_and_evaluation(maps, tmp_path):
    rows = []
    job = Run(
        config=config_of(maps, tmp_path / "run", steps=2, num_rows=3),
        world=World(),
        on_step=lambda step: rows.append(tokenizer_of(job.learner.model).num_rows),
        on_result=lambda result: rows.append(tokenizer_of(job.learner.model).num_rows),
    )
    job.train()
    assert rows == [3, 3, 3]
    assert tokenizer_of(load_package(tmp_path / "run/best").model).num_rows == 3
