"""Every recipe in configs/ runs as its head says, and says what it should reach in which time."""

import re
import shlex
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from states import steps_of

from dartok.cli.app import main
from dartok.cli.evaluate import EvalConfig
from dartok.cli.predict import PredictConfig
from dartok.models.registry import create_model
from dartok.train.config import TrainConfig
from dartok.train.model import recipe_of
from dartok.train.record_config import flat

ROOT = Path(__file__).resolve().parents[1]
CONFIGS, PAGE = ROOT / "configs", ROOT / "docs" / "training.md"

if not CONFIGS.is_dir():
    pytest.skip("the wheel's tests run without the repository", allow_module_level=True)

FILES = sorted(CONFIGS.glob("*.toml"))
TINY = [
    *("--data", "digits", "--num-digits", 16, "--image-px", 32, "--batch-size", 4, "--workers", 0),
    *("--steps", 2, "--warmup-steps", 1, "--device", "cpu"),
]
"""What a machine without GPUs can do in seconds, instead of the recipe's."""


class ParsedError(Exception):
    """Raised in place of a run."""


@pytest.fixture
def parse(monkeypatch):
    """The configuration that arguments of `dartok` mean, by the command's own way."""
    seen = []

    def run(*, config, **rest):
        seen.append(config)
        raise ParsedError

    monkeypatch.setattr("dartok.train.run.Run", run)
    monkeypatch.chdir(ROOT)

    def parsed(*arguments):
        with pytest.raises(ParsedError):
            main([str(argument) for argument in arguments])
        return seen.pop()

    return parsed


def head_of(file):
    """The comment before the first setting, without its signs."""
    lines = file.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    assert all(line.startswith("#") for line in lines), "settings follow an empty line"
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines)


def command_in(head):
    """Arguments of `dartok` in the first command of a head."""
    found = re.search(r"^  (\S.* )?dartok train (?:.*\\\n)*.*$", head, re.MULTILINE)
    assert found is not None, "the head shows no command"
    words = shlex.split(found[0].replace("\\\n", " "))
    return words[words.index("dartok") + 1 :]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_command_in_the_head_means_what_the_file_says(parse, file):
    arguments = command_in(head_of(file))
    assert arguments[:3] == ["train", "--config", f"configs/{file.name}"]
    config = parse(*arguments, "--device", "cpu")
    settings = flat(config)
    for flag, value in tomllib.loads(file.read_text(encoding="utf-8")).items():
        assert settings[flag.replace("-", "_")] == value, flag
    recipe = recipe_of(config.model, num_classes=1000, image_px=config.data.image_px)
    assert config.model.model in (recipe.name, recipe.args.get("host"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_head_names_figure_and_hours(file):
    head = head_of(file)
    assert re.search(r"^figure: \S", head, re.MULTILINE)
    hours = re.search(r"^hours: ([\d.]+) on \S(?:.*\n(?!\w+: ))*.*", head, re.MULTILINE)
    assert hours is not None
    assert "estimate" in hours[0] or "measured" in hours[0]
    assert 0 < float(hours[1]) < 1000


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_line_stays_within_100_columns_and_names_nobody_s_machine(file):
    text = file.read_text(encoding="utf-8")
    assert max(map(len, text.splitlines())) <= 100
    assert not re.search(r"(^|[\s\"'])/\w", text), "an absolute path"


@pytest.mark.refuses
def test_a_misspelt_setting_would_be_found(tmp_path, capsys):
    text = (CONFIGS / "darvit_tiny.toml").read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(text.replace("\nmixup = ", "\nmixupp = "), encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", str(wrong), "--data", "digits", "--out", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert 'Unknown option: "[mixupp]"' in capsys.readouterr().err


@pytest.mark.refuses
def test_a_head_without_a_command_would_be_found():
    head = head_of(CONFIGS / "darvit_tiny.toml")
    with pytest.raises(AssertionError, match="no command"):
        command_in(head.replace("dartok train", "dartok eval"))


def test_the_page_lists_each_file_once():
    listed = re.findall(r"^\| `(\w+)\.toml`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [file.stem for file in FILES]


def test_every_flag_on_the_page_is_one_of_a_command():
    commands = [*(part.type for part in fields(TrainConfig)), EvalConfig, PredictConfig]
    known = {field.name.replace("_", "-") for command in commands for field in fields(command)}
    named = re.findall(r"(?<![\w-])--([a-z][a-z-]*)", PAGE.read_text(encoding="utf-8"))
    assert set(named) - known <= {"config", "help", "nproc-per-node"}
    assert "distill-weight" in named, "the pattern finds flags"


@pytest.mark.slow
def test_recipes_train_two_steps_and_fine_tune_what_they_left(tmp_path, monkeypatch):
    """From scratch, from the first one's weights to another budget, taught, retrofitted."""
    monkeypatch.chdir(ROOT)
    scorer = tmp_path / "scorer.pth"
    torch.save(create_model("darvit_tiny").patch_embed.scorer.state_dict(), scorer)
    left = tmp_path / "darvit_tiny" / "best" / "model.safetensors"
    changes = {
        "darvit_tiny": ["--scorer-weights", scorer, "--num-tokens", 9],
        "darvit_tiny_121p": ["--checkpoint", left, "--num-tokens", 16],
        "darvit_tiny_hard": [
            *("--scorer-weights", scorer, "--num-tokens", 9),
            *("--teacher", f"local-dir:{left.parent}"),
        ],
        "retrofit": ["--no-pretrained", "--model", "test_vit", "--num-tokens", "4..9"],
    }
    for name, change in changes.items():
        out = tmp_path / name
        file = CONFIGS / f"{name}.toml"
        arguments = ["train", "--config", file, *TINY, *change, "--out", out]
        main([str(argument) for argument in arguments])
        assert steps_of(out, "loss") == [1, 2]
