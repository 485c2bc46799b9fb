"""The record of a run: TOML that reads as the same settings."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from dartok.train.record_config import flat, same_run, write_config


@pytest.fixture
def recorded(config_of, tmp_path):
    """A configuration, and the file that records it."""
    config = config_of(num_tokens="6..12", learning_rate=1e-5, save_every=3)
    write_config(config, tmp_path / "config.toml")
    return config, tmp_path / "config.toml"


def changed(config, part, **settings):
    return dataclasses.replace(
        config, **{part: dataclasses.replace(getattr(config, part), **settings)}
    )


def test_every_setting_is_a_line_under_its_flag(recorded):
    config, path = recorded
    read = tomllib.loads(path.read_text())
    assert read["learning-rate"] == 1e-5
    assert read["num-tokens"] == "6..12"
    assert read["out"] == str(config.loop.out)
    assert read["resume"] is False
    count = sum(len(dataclasses.fields(getattr(config, part))) for part in vars(config))
    unset = re.findall(r"^# ([a-z0-9-]+): unset$", path.read_text(), re.MULTILINE)
    assert len(read) + len(unset) == count == len(flat(config))
    assert "warmup-steps" in unset


@pytest.mark.parametrize("name", ['q"uote', "back\\slash", "naïve", "smile😀", "tab\tbell\x07\x7f"])
def test_any_path_is_read_back_as_it_was(config_of, tmp_path, name):
    config = config_of(out=Path(name), data=name)
    write_config(config, tmp_path / "config.toml")
    read = tomllib.loads((tmp_path / "config.toml").read_text(encoding="utf-8"))
    assert read["out"] == read["data"] == name
    same_run(config, tmp_path / "config.toml")


def test_the_same_settings_continue_a_run(recorded):
    same_run(*recorded)


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("loop", {"resume": True}),
        ("loop", {"out": Path("moved")}),
        ("loop", {"device": "cuda"}),
        ("loop", {"save_every": None}),
        ("loop", {"eval_every": 7}),
        ("loop", {"keep_last": 5}),
        ("data", {"workers": 9}),
        ("data", {"max_bad_share": 0.5}),
    ],
)
def test_what_does_not_change_what_is_learnt_may_change(recorded, part, settings):
    config, path = recorded
    same_run(changed(config, part, **settings), path)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        ("model", {"model": "test_vit2"}, "model must be 'test_vit', as in the run to resume"),
        ("model", {"num_tokens": "8"}, "num-tokens must be '6..12'"),
        ("model", {"parts": "head"}, "parts must be 'all'"),
        ("optim", {"learning_rate": 1e-4}, "learning-rate must be 1e-05"),
        ("optim", {"ema_decay": 0.9}, "ema-decay must be 0.0"),
        ("optim", {"warmup_steps": 0}, "warmup-steps must be unset, .* got 0"),
        ("data", {"data": "elsewhere"}, "data must be '.*train', .* got 'elsewhere'"),
        ("data", {"num_digits": 3}, "num-digits must be 4096"),
        ("augment", {"mixup": 0.8}, "mixup must be 0.0"),
        ("loss", {"loss": "bce"}, "loss must be 'ce'"),
        ("loop", {"steps": 5}, "steps must be 4"),
        ("loop", {"steps": None}, "steps must be 4, .* got unset"),
        ("loop", {"batch_size": 16}, "batch-size must be 8"),
        ("loop", {"accumulate": 2}, "accumulate must be 1"),
        ("loop", {"seed": 3}, "seed must be 0"),
        ("loop", {"precision": "bfloat16"}, "precision must be 'auto'"),
    ],
)
def test_what_changes_what_is_learnt_is_refused_by_its_flag(recorded, part, settings, message):
    config, path = recorded
    with pytest.raises(ValueError, match=f"^{message}.*; change it back, or choose") as raised:
        same_run(changed(config, part, **settings), path)
    assert "\n" not in str(raised.value)


@pytest.mark.refuses
@pytest.mark.parametrize("content", [None, b"not toml", b"\xff\xfe"])
def test_a_missing_or_damaged_record_is_refused(recorded, content):
    config, path = recorded
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="record .* cannot be read .*; choose another --out"):
        same_run(config, path)
