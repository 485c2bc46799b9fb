"""Official checkpoints: loaded strictly from any of their forms, and converted."""

import argparse
import json
import re

import pytest
import torch
from refusals import refused
from safetensors import safe_open

import dartok
from dartok.models import checkpoints, convert_checkpoint
from dartok.models.named import build_named
from dartok.models.presets import (
    AUTHORS_PRESETS,
    DARMT_PRESETS,
    DARVIM_PRESETS,
    PRESETS,
    RMT_PRESETS,
    VIDEO_PRESETS,
    VIM_PRESETS,
)


def authors_checkpoint(name: str, num_classes: int = 1000) -> dict[str, torch.Tensor]:
    """A state dict in the official layout, with random values."""
    state = build_named(name, num_classes=num_classes).state_dict()
    if name in {**VIM_PRESETS, **VIDEO_PRESETS, **RMT_PRESETS}:
        return state
    if name in DARMT_PRESETS:
        return {_their_name(key): value for key, value in state.items() if not _is_ours(key)}
    positions = state.pop("patch_embed.pos_embed").flatten(2).transpose(1, 2)
    place = positions.shape[1] // 2 if name in DARVIM_PRESETS else 0
    parts = positions[:, :place], torch.randn(1, 1, positions.shape[2]), positions[:, place:]
    theirs = {"pos_embed": torch.cat(parts, dim=1)}
    ours = {key: value for key, value in state.items() if not _is_ours(key)}
    return theirs | {_their_name(key): value for key, value in ours.items()}


def _is_ours(key: str) -> bool:
    return "strength" in key or "statistics" in key


def _their_name(key: str) -> str:
    key = key.replace("scorer.head.mlp.", "spn.spn.spn.mlp.net.")
    return re.sub(r"^(patch_embed|pre_image)\.scorer\.", r"\1.spn.spn.spn.", key)


@pytest.mark.parametrize("name", AUTHORS_PRESETS)
def test_every_model_loads_its_checkpoint_and_its_converted_form(name, tmp_path):
    state = authors_checkpoint(name)
    torch.save({"model": state, "args": argparse.Namespace(lr=1.0)}, tmp_path / "a.pth")
    model = dartok.create_model(name, checkpoint=tmp_path / "a.pth")
    assert not model.training
    place = 98 if name in DARVIM_PRESETS else 0
    assert torch.equal(model.cls_token, state["cls_token"] + state["pos_embed"][:, [place]])
    patches = torch.cat([state["pos_embed"][:, :place], state["pos_embed"][:, place + 1 :]], dim=1)
    assert torch.equal(model.patch_embed.pos_embed.flatten(2).transpose(1, 2), patches)
    block = "layers.3.mixer.x_proj_b" if name in DARVIM_PRESETS else "blocks.3.mlp.fc1"
    assert torch.equal(model.get_submodule(block).weight, state[f"{block}.weight"])
    found = convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert {"darvit_tiny_121p": "darvit_tiny"}.get(name, name).startswith(found)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["model"] == found
    again = dartok.create_model(name, checkpoint=tmp_path / "a.safetensors")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


HOSTS = [
    pytest.param(name, marks=() if "tiny" in name else pytest.mark.slow) for name in VIM_PRESETS
]


@pytest.mark.parametrize("name", HOSTS)
def test_official_vision_mambas_load_bare_wrapped_and_converted(name, tmp_path):
    state = authors_checkpoint(name)
    args = argparse.Namespace(lr=1.0)
    torch.save(state, tmp_path / "bare.pth")
    torch.save({"model": state}, tmp_path / "wrapped.pth")
    torch.save({"model": state, "epoch": 3, "args": args}, tmp_path / "args.pth")
    convert_checkpoint(tmp_path / "args.pth", tmp_path / "c.safetensors", name=name)
    for file in ("bare.pth", "wrapped.pth", "args.pth", "c.safetensors"):
        model = dartok.create_model(name, checkpoint=tmp_path / file)
        assert not model.training
        loaded = model.state_dict()
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())


@pytest.mark.parametrize(
    ("name", "authors"), [("vim_tiny", "darvim_tiny"), ("vim_small", "darvim_sm")]
)
def test_vision_mambas_are_laid_out_as_officially(name, authors, shared_golden):
    spec = json.loads((shared_golden / f"state_dicts/{authors}.json").read_text())
    expected = {key: tuple(shape) for key, shape, _ in spec["entries"] if ".spn." not in key}
    found = {key: tuple(value.shape) for key, value in build_named(name).state_dict().items()}
    assert found == expected


ALONE = ["darvit_tiny_v2", "darvim_tiny", "vim_tiny_stride8"]
"""No other model has their layout."""


@pytest.mark.parametrize("name", ALONE)
@pytest.mark.parametrize("num_classes", [0, 7])
def test_a_checkpoint_tells_its_model_and_its_classes(name, num_classes, tmp_path):
    torch.save(authors_checkpoint(name, num_classes=num_classes), tmp_path / "a.pth")
    assert convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors") == name
    dartok.create_model(name, checkpoint=tmp_path / "a.safetensors", num_classes=num_classes)


@pytest.mark.refuses
def test_vim_and_videomamba_are_told_apart_by_name_alone(tmp_path):
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save(authors_checkpoint("videomamba_tiny"), source)
    with refused(
        f"checkpoint {source} could be of vim_tiny or videomamba_tiny, whose weights are laid out "
        "alike; name the model (dartok convert --model NAME)"
    ):
        convert_checkpoint(source, target)
    assert not target.exists()
    assert convert_checkpoint(source, target, name="videomamba_tiny") == "videomamba_tiny"
    with safe_open(target, "pt") as file:
        assert file.metadata()["model"] == "videomamba_tiny"


@pytest.mark.refuses
def test_a_converted_file_says_whose_it_is(tmp_path):
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save(authors_checkpoint("vim_tiny"), source)
    convert_checkpoint(source, target, name="vim_tiny")
    assert convert_checkpoint(target, tmp_path / "b.safetensors") == "vim_tiny"
    dartok.create_model("vim_tiny", checkpoint=target)
    with refused(f"checkpoint {target} is of vim_tiny, not of videomamba_tiny; name that model"):
        dartok.create_model("videomamba_tiny", checkpoint=target)


def test_every_layout_is_told_from_all_others_but_those_of_vim_and_videomamba():
    """By shapes alone: the large ones would take long to write."""
    for name in PRESETS:
        with torch.device("meta"):
            state = authors_checkpoint(name)
        try:
            found = [checkpoints._recognise(state, "a.pth")]
        except ValueError as error:
            found = re.search("could be of (.*), whose", str(error))[1].split(" or ")
        size = name.split("_", 1)[1]
        twins = [f"vim_{size}", f"videomamba_{size}"]
        alone = [re.sub(r"_(2seq|\d+p)$", "", name)]  # more tokens, the same layout
        assert found == (twins if name in twins and size in ("tiny", "small") else alone)


def test_a_bare_state_dict_and_safetensors_in_the_authors_layout_load_too(tmp_path):
    from safetensors.torch import save_file

    state = authors_checkpoint("darvit_tiny", num_classes=5)
    torch.save(state, tmp_path / "bare.pth")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "theirs.safetensors")
    for path in tmp_path.iterdir():
        dartok.create_model("darvit_tiny", checkpoint=path, num_classes=5)


@pytest.mark.refuses
def test_a_checkpoint_of_another_model_is_a_readable_difference(tmp_path):
    torch.save(authors_checkpoint("darvit_sm"), tmp_path / "sm.pth")
    with pytest.raises(ValueError, match=r"sm.pth as darvit_tiny does not fit RegionViT: missing"):
        dartok.create_model("darvit_tiny", checkpoint=tmp_path / "sm.pth")
    torch.save(authors_checkpoint("darvit_tiny"), tmp_path / "tiny.pth")
    with pytest.raises(ValueError, match=r"misshapen: head.weight \(1000, 192\), not \(10, 192\)"):
        dartok.create_model("darvit_tiny", checkpoint=tmp_path / "tiny.pth", num_classes=10)
    torch.save({"a": torch.ones(1)}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match=r"none.pth is of no known model; expected one of darvit"):
        convert_checkpoint(tmp_path / "none.pth", tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match=r"model must be one of .*, got 'deit'"):
        convert_checkpoint(tmp_path / "tiny.pth", tmp_path / "out.safetensors", name="deit")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.refuses
def test_a_vision_mamba_of_another_kind_is_a_readable_difference(tmp_path):
    torch.save(authors_checkpoint("darvim_tiny"), tmp_path / "d.pth")
    torch.save(authors_checkpoint("vim_tiny"), tmp_path / "v.pth")
    message = r"v.pth as darvim_tiny does not fit RegionVim: missing: patch_embed.scorer.features"
    with pytest.raises(ValueError, match=message):
        dartok.create_model("darvim_tiny", checkpoint=tmp_path / "v.pth")
    message = r"d.pth as vim_tiny does not fit Vim: unexpected: patch_embed.spn"
    with pytest.raises(ValueError, match=message):
        dartok.create_model("vim_tiny", checkpoint=tmp_path / "d.pth")
    message = r"misshapen: pos_embed \(1, 197, 192\), not \(1, 730, 192\)"
    with pytest.raises(ValueError, match=message):
        dartok.create_model("vim_tiny_stride8", checkpoint=tmp_path / "v.pth")
    message = r"d.pth as darvit_tiny does not fit RegionViT: missing: blocks.0"
    with pytest.raises(ValueError, match=message):
        dartok.create_model("darvit_tiny", checkpoint=tmp_path / "d.pth")


@pytest.mark.refuses
def test_missing_and_extra_entries_are_named(tmp_path):
    state = authors_checkpoint("darvit_tiny")
    del state["norm.bias"], state["pos_embed"]
    state["dist_token"] = torch.ones(1)
    torch.save(state, tmp_path / "a.pth")
    message = (
        r"missing: norm.bias|missing: patch_embed.pos_embed, norm.bias; unexpected: dist_token"
    )
    with pytest.raises(ValueError, match=message):
        dartok.create_model("darvit_tiny", checkpoint=tmp_path / "a.pth")
