"""`dartok models` lists what `create_model` knows."""

import json

import pytest

from dartok.models import list_models


def test_every_model_has_a_line_with_its_numbers(dartok):
    code, out, err = dartok("models")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines()[1:-1]}
    assert sorted(lines) == list_models()
    assert lines["darvit_tiny"][:4] == ["196", "14", "6.30", "M"]
    assert lines["darvit_tiny_121p"][:2] == ["121", "11"]
    assert lines["darvim_sm_2seq"][:4] == ["392", "20", "28.95", "M"]
    assert lines["vim_tiny_stride8"][:4] == ["729", "27", "7.25", "M"]
    assert " ".join(lines["vim_tiny_stride8"][4:]) == (
        "Vim-Ti+, fixed grid, 224 px, a patch every 8 px"
    )
    assert lines["rmt_t3"][:4] == ["-", "-", "14.33", "M"]
    assert " ".join(lines["darmt_s"]) == (
        "196 14 31.10 M RMT-S behind an image reshaper, efficientnet_b0, 448 px"
    )
    assert " ".join(lines["videomamba_middle"][4:]) == "VideoMamba-M, fixed grid, 224 px"
    assert lines["videomamba_tiny_video"][0] == "1568"
    assert " ".join(lines["videomamba_small_video"][4:]) == (
        "VideoMamba-S for video, fixed grid, 8 frames of 224 px"
    )
    assert "on vim_* and videomamba_* of stride 16." in out


def test_json_holds_the_same(dartok):
    entries = json.loads(dartok("models", "--json").out)
    assert [entry["name"] for entry in entries] == list_models()
    parameters = {entry["name"]: entry["parameters"] for entry in entries}
    assert parameters["darvit_tiny_v2"] == pytest.approx(6.76e6, rel=0.01)
    assert parameters["darvit_sm"] == pytest.approx(24.10e6, rel=0.01)
    assert parameters["vim_small"] == pytest.approx(25.80e6, abs=0.005e6)
    assert parameters["videomamba_middle"] == pytest.approx(74.22e6, abs=0.005e6)
    assert (parameters["darmt_s"], parameters["darmt_l6"]) == (31_097_861, 99_595_485)
    assert next(entry for entry in entries if entry["name"] == "rmt_s")["tokens"] is None
    assert parameters["darvim_tiny"] == parameters["darvim_tiny_2seq"] == 8_186_280 - 192


def test_models_of_one_layout_are_built_once_and_without_weights(dartok, monkeypatch):
    from dartok.cli import models as command
    from dartok.models import named

    built, build = [], named.build_named

    def counted(name):
        model = build(name)
        assert next(model.parameters()).is_meta
        built.append(name)
        return model

    command._num_parameters.cache_clear()
    monkeypatch.setattr(named, "build_named", counted)
    dartok("models")
    assert len(built) == len(set(built)) == 22


@pytest.mark.parametrize("pattern", ["vit_tin", "*vit_tin*", "darvit_tin*"])
def test_a_part_of_a_name_or_a_shell_pattern_selects(dartok, pattern):
    names = [entry["name"] for entry in json.loads(dartok("models", pattern, "--json").out)]
    assert names == ["darvit_tiny", "darvit_tiny_121p", "darvit_tiny_v2"]


@pytest.mark.refuses
def test_an_unknown_name_is_answered_with_the_nearest(refused):
    message = refused("models", "darvit_tny")
    assert message.startswith("no model matches 'darvit_tny'; nearest: darvit_tiny")


@pytest.mark.refuses
def test_a_name_like_no_other_is_answered_with_all(refused):
    assert ", ".join(list_models()) in refused("models", "zzz")
