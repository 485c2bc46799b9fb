"""`dartok train`, `eval` and `predict` of videos, as commands."""

import json

import av
import pytest
from clip_folders import write_clips


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips"), train=4, val=2)


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory):
    from dartok.cli.app import main

    out = tmp_path_factory.mktemp("runs") / "clips"
    settings = {"num-frames": 4, "num-tokens": 24, "scorer": "motion/conv", "image-px": 32}
    settings |= {"batch-size": 4, "workers": 0, "steps": 2, "warmup-steps": 1, "device": "cpu"}
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    data = ["--data", str(clips / "train"), "--model", "test_vit", "--out", str(out)]
    main(["train", "--task", "video", *data, *flags])
    return out / "best"


def test_a_model_of_videos_is_evaluated_at_other_budgets_clips_and_crops(dartok, clips, trained):
    options = ("--num-tokens", "8,24", "--num-clips", "2", "--num-crops", "3", "--workers", "0")
    code, out, err = dartok("eval", trained, clips / "val", *options, "--json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [(row["num_tokens"], row["images"]) for row in rows] == [(8, 4), (24, 4)]


def test_videos_are_named_and_what_the_model_saw_is_written_as_a_film(
    dartok, clips, trained, tmp_path
):
    out_folder = tmp_path / "seen"
    code, out, _ = dartok("predict", trained, clips / "val", "--out", out_folder, "--top", "2")
    assert code == 0
    assert [line.split(": ")[0] for line in out.splitlines()] == [
        str(clips / "val" / name)
        for name in ("left/0.mp4", "left/1.mp4", "right/0.mp4", "right/1.mp4")
    ]
    names = sorted(path.name for path in out_folder.iterdir())
    assert names == ["0-2.regions.mp4", "0.regions.mp4", "1-2.regions.mp4", "1.regions.mp4"]
    with av.open(str(out_folder / "0.regions.mp4")) as film:
        assert len(list(film.decode(video=0))) == 4


@pytest.mark.refuses
def test_what_is_not_for_videos_is_refused_in_a_line(dartok, clips, trained, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    code, _, err = dartok("predict", trained, broken)
    assert code == 1
    assert "broken.mp4 cannot be read" in err
    code, _, err = dartok("eval", trained, clips / "missing")
    assert code == 2
    assert "missing does not exist" in err


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict", "--windows"), "windows is for pictures, got True for videos; drop --windows"),
        (("predict", "--image-column", "a"), "image-column is for pictures, got a for videos"),
        (("predict", "--engine", "ray"), "engine is for pictures, got ray for videos"),
        (("eval", "--stream"), "stream is not for videos, got True; drop --stream"),
        (("eval", "--label-column", "y"), "label-column is not for videos, got y"),
        (("eval", "--paper"), "paper is for models of pictures, got one of videos"),
        (("eval", "--windows"), "windows is for label maps, got a classifier of videos"),
    ],
)
def test_settings_of_pictures_are_refused_by_models_of_videos(
    dartok, clips, trained, words, message
):
    code, _, err = dartok(words[0], trained, clips / "val", *words[1:])
    assert (code, err.count("\n")) == (2, 1)
    assert message in err
