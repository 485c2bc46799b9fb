"""`dartok train`: flags, the settings file, what is printed, and mistakes in one line."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from run_configs import make_config
from states import losses_of, steps_of

from dartok.train.record_config import write_config


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """`train` with 2 x 8 and `val` with 2 x 3 pictures, of classes that brightness tells."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 3)):
        for name, level in (("bright", 170), ("dark", 80)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                noise = rng.normal(level, 30, (40, 48, 3)).clip(0, 255).astype("uint8")
                Image.fromarray(noise).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def usual(pictures):
    """Arguments of a run of a second."""
    return [
        *("--data", pictures / "train", "--image-px", 64, "--workers", 0, "--model", "test_vit"),
        *("--batch-size", 8, "--device", "cpu"),
    ]


def test_a_run_prints_its_evaluations_and_leaves_a_model(dartok, usual, tmp_path):
    out = tmp_path / "deep" / "run"
    code, printed, err = dartok(
        "train", *usual, "--out", out, "--steps", 4, "--eval-every", 2, "--num-tokens", "6..12"
    )
    assert code == 0, err
    lines = re.findall(r"^step (\d): top-1 [\d.]+%, top-5 100.00%, .*\(6 images\)", printed, re.M)
    assert lines == ["2", "4"]
    assert "the best so far" in printed.splitlines()[0]
    assert "loss" in err, "progress is on the error stream"
    assert (out / "best" / "model.safetensors").is_file()
    assert steps_of(out, "loss") == [1, 2, 3, 4]


def test_a_damaged_picture_is_said_on_the_error_stream(dartok, usual, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "p")
    (tmp_path / "p" / "train" / "dark" / "3.png").write_bytes(b"")
    data = ("--data", tmp_path / "p" / "train", "--max-bad-share", 0.5)
    code, _, err = dartok("train", *usual[2:], *data, "--out", tmp_path / "run", "--steps", 2)
    assert code == 0
    assert err.count("dark/3.png is damaged; another picture stands in") == 1


def test_the_record_of_a_run_repeats_it(dartok, usual, tmp_path):
    """On a command line that gives but another folder; what is left unset there stays unset."""
    flags = ["--num-tokens", "6..12", "--steps", 3, "--ema-decay", 0.5, "--mixup", 0.3]
    assert dartok("train", *usual, *flags, "--out", tmp_path / "a").code == 0
    record = tmp_path / "a" / "config.toml"
    assert dartok("train", "--config", record, "--out", tmp_path / "b").code == 0
    assert losses_of(tmp_path / "a") == losses_of(tmp_path / "b")
    again = (tmp_path / "b" / "config.toml").read_text()
    assert again == record.read_text().replace(str(tmp_path / "a"), str(tmp_path / "b"))


def test_the_command_line_goes_before_the_file_and_the_file_before_the_defaults(
    dartok, usual, tmp_path
):
    file = tmp_path / "my.toml"
    file.write_text('learning-rate = 0.25\nseed = 7\nnum-tokens = "9"\nparts = "head"\n')
    code, _, err = dartok(
        "train", "--seed", 5, *usual, "--steps", 1, "--out", tmp_path / "run", "--config", file
    )
    assert code == 0, err
    record = (tmp_path / "run" / "config.toml").read_text()
    for line in ('parts = "head"', "learning-rate = 0.25", "seed = 5", 'num-tokens = "9"'):
        assert f"\n{line}\n" in record
    assert "\nweight-decay = 0.05\n" in record


@pytest.mark.parametrize("line", ["num-tokens = 9", "learning-rate = 1", "num_tokens = '9'"])
def test_a_file_may_write_a_value_as_people_do(dartok, usual, tmp_path, line):
    """A whole number for a text or a fraction, and an underscore in a name."""
    (tmp_path / "my.toml").write_text(f"{line}\n")
    out = ["--out", tmp_path / "run"]
    assert dartok("train", *usual, "--steps", 1, *out, "--config", tmp_path / "my.toml").code == 0


def test_a_file_of_one_command_does_not_reach_the_next(dartok, usual, tmp_path):
    (tmp_path / "my.toml").write_text("steps = 1\nseed = 9\n")
    dartok("train", *usual, "--out", tmp_path / "a", "--config", tmp_path / "my.toml")
    dartok("train", *usual, "--out", tmp_path / "b", "--steps", 1)
    assert "\nseed = 0\n" in (tmp_path / "b" / "config.toml").read_text()


def test_a_finished_or_missing_run_can_be_resumed(dartok, usual, tmp_path):
    run = ["train", *usual, "--steps", 2, "--out", tmp_path / "run", "--resume"]
    assert "resuming" not in dartok(*run).out
    code, printed, _ = dartok(*run)
    assert code == 0
    assert f"resuming {tmp_path / 'run'} at step 2 of 2" in printed


def test_the_help_names_every_part_and_its_flags(dartok):
    code, printed, _ = dartok("train", "--help")
    assert code == 0
    parts = ["Data", "Run", "Model", "Augmentation", "Loss", "Optimisation"]
    places = [printed.index(f" {part} ─") for part in parts]
    assert places == sorted(places)
    for flag in ("--data", "--out", "--num-tokens", "--strength-ramp", "--mixup", "--ema-decay"):
        assert flag in printed


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", 0], "steps must be >= 1, got 0"),
        (["--num-tokens", "9..4"], "num-tokens must be a number >= 1, or two as in 49..392"),
        (["--strength-ramp", 5], "strength-ramp needs regions; give --num-tokens too"),
        (["--optimiser", "adamm"], "optimiser must be one of timm's"),
        (["--loss", "mse"], 'Choose from: "ce", "bce"'),
        (["--learning-rate", "high"], 'unable to convert "high" into float'),
        (["--learning-rat", "1"], "Did you mean --learning-rate"),
        (["--val", "missing"], "folder missing does not exist"),
        (["--auto-augment", "foo"], "auto-augment must be a policy of timm"),
        (["--parts", "tokenizer"], "parts tokenizer needs regions; give --num-tokens too"),
        (["--scorer", "foo", "--num-tokens", 9], "unknown scorer 'foo'"),
        (["--checkpoint", "foo.pth"], "checkpoint foo.pth is not a file"),
        (["--accumulate", 3], "batch-size must be a multiple of the 1 processes times"),
        (["--mixup", 1, "--accumulate", 8], "an even number of pictures"),
    ],
)
def test_a_run_that_cannot_be_is_refused_in_one_line(refused, usual, tmp_path, flags, message):
    assert message in refused("train", *usual, *flags, "--out", tmp_path / "run")


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("--model", "vitt", "model 'vitt' is unknown; see dartok models"),
        ("--image-px", 65, "image-px must be a multiple of 16, the patch of this fixed grid"),
        ("--batch-size", 17, "batch-size must be at most the 16 training pictures of an epoch"),
        ("--device", "tpuu", "device 'tpuu' is not to be had here"),
        ("--data", "missing", "folder missing does not exist; check the path"),
    ],
)
def test_a_usual_value_replaced_by_an_impossible_one_is_refused(
    refused, usual, tmp_path, name, value, message
):
    place = usual.index(name)
    changed = [*usual[: place + 1], value, *usual[place + 2 :]]
    assert message in refused("train", *changed, "--out", tmp_path / "run")


@pytest.mark.refuses
def test_what_a_run_needs_is_asked_for(refused, usual, tmp_path):
    assert "--out" in refused("train", *usual)
    assert "--data" in refused("train", "--out", tmp_path / "run")


@pytest.mark.refuses
def test_a_folder_that_holds_a_run_is_not_overwritten(dartok, refused, usual, tmp_path):
    run = ["train", *usual, "--steps", 1, "--out", tmp_path / "run"]
    dartok(*run)
    assert "holds a run already; continue it with --resume" in refused(*run)
    assert "learning-rate must be 0.0005" in refused(*run, "--resume", "--learning-rate", 1)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('num-tokenz = "9"', 'Unknown option: "[num-tokenz]"'),
        ("[optim]\nbeta1 = 0.5", "Unknown option"),
        ('learning-rate = "high"', 'unable to convert "high" into float'),
        ("seed = true", 'unable to convert "True" into int'),
        ("pretrained = 3", 'unable to convert "3" into bool'),
        ("weight-decay = nan", "weight-decay must be >= 0 and finite, got nan"),
        ('loss = "mse"', 'Choose from: "ce", "bce"'),
        ("learning-rate 3", "my.toml cannot be read as TOML"),
    ],
)
def test_a_mistake_in_the_file_is_refused_in_one_line(refused, usual, tmp_path, text, message):
    file = tmp_path / "my.toml"
    file.write_text(text)
    assert message in refused("train", *usual, "--out", tmp_path / "run", "--config", file)


@pytest.mark.refuses
def test_a_file_that_is_missing_is_refused(refused, tmp_path):
    file = tmp_path / "my.toml"
    assert f"config {file} is not a file; check the path" in refused("train", "--config", file)
    assert "config must be followed by a TOML file" in refused("train", "--config")
    file.write_bytes(b"\xff\xfe")
    assert f"config {file} cannot be read as TOML" in refused("train", "--config", file)


def test_a_configuration_written_by_hand_is_read_by_the_command(dartok, usual, tmp_path):
    """Every setting that can be recorded can be read."""
    config = make_config(
        tmp_path,
        tmp_path / "run",
        data=str(usual[1]),
        steps=1,
        num_tokens="9",
        warmup_steps=1,
        save_every=1,
        eval_every=1,
        strength_ramp=0,
        auto_augment="rand-m5-inc1",
        val=str(usual[1].with_name("val")),
    )
    write_config(config, tmp_path / "all.toml")
    code, _, err = dartok("train", "--config", tmp_path / "all.toml")
    assert code == 0, err
    written, read = (tmp_path / "all.toml").read_text(), (tmp_path / "run" / "config.toml")
    assert read.read_text() == written
    assert json.loads((tmp_path / "run" / "best" / "config.json").read_text())["num_classes"] == 2
