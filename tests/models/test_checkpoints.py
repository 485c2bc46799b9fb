"""The authors' checkpoints: loaded strictly from any of their forms, and converted."""

import argparse

import pytest
import torch
from safetensors import safe_open

import dartok
from dartok.models import convert_checkpoint
from dartok.models.darvit import build_darvit
from dartok.models.presets import DARVIT_PRESETS


def authors_checkpoint(name: str, num_classes: int = 1000) -> dict[str, torch.Tensor]:
    """A state dict in the authors' layout, with random values."""
    state = build_darvit(DARVIT_PRESETS[name], num_classes=num_classes).state_dict()
    positions = state.pop("patch_embed.pos_embed").flatten(2).transpose(1, 2)
    theirs = {"pos_embed": torch.cat([torch.randn(1, 1, positions.shape[2]), positions], dim=1)}
    for key, value in state.items():
        if "strength" not in key and "statistics" not in key:
            key = key.replace("scorer.head.mlp.", "spn.spn.spn.mlp.net.")
            theirs[key.replace("patch_embed.scorer.", "patch_embed.spn.spn.spn.")] = value
    return theirs


@pytest.mark.parametrize("name", DARVIT_PRESETS)
def test_every_model_loads_its_checkpoint_and_its_converted_form(name, tmp_path):
    state = authors_checkpoint(name)
    torch.save({"model": state, "args": argparse.Namespace(lr=1.0)}, tmp_path / "a.pth")
    model = dartok.create_model(name, checkpoint=tmp_path / "a.pth")
    assert not model.training
    assert torch.equal(model.cls_token, state["cls_token"] + state["pos_embed"][:, :1])
    assert torch.equal(model.blocks[3].mlp.fc1.weight, state["blocks.3.mlp.fc1.weight"])
    found = convert_checkpoint(tmp_path / "a.pth", tmp_path / "a.safetensors")
    assert {"darvit_tiny_121p": "darvit_tiny"}.get(name, name).startswith(found)
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert file.metadata()["model"] == found
    again = dartok.create_model(name, checkpoint=tmp_path / "a.safetensors")
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in model.state_dict().items())


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
