"""`dartok convert`: strict, and nothing half written."""

import pytest
import torch
from safetensors.torch import load_file

from dartok.models.named import build_named


@pytest.fixture(scope="module")
def state():
    return build_named("darvit_tiny").state_dict()


def test_a_checkpoint_becomes_safetensors_of_the_model_it_belongs_to(dartok, tmp_path, state):
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save({"model": state}, source)
    assert dartok("convert", source, target) == (0, f"{target}: weights of darvit_tiny\n", "")
    converted = load_file(target)
    assert converted.keys() == state.keys()
    torch.testing.assert_close(converted["norm.weight"], state["norm.weight"], rtol=0, atol=0)


@pytest.mark.refuses
def test_vim_and_videomamba_need_their_name(dartok, refused, tmp_path):
    source, target = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save({"model": build_named("vim_tiny", num_classes=3).state_dict()}, source)
    message = refused("convert", source, target)
    assert "could be of vim_tiny or videomamba_tiny" in message
    assert message.endswith("name the model (dartok convert --model NAME)")
    assert not target.exists()
    for name in ("videomamba_tiny", "vim_tiny"):
        done = dartok("convert", source, target, "--model", name)
        assert done == (0, f"{target}: weights of {name}\n", "")
    assert load_file(target)["head.weight"].shape == (3, 192)


@pytest.mark.refuses
@pytest.mark.parametrize("content", [b"", b"words\n", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04half"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_is_no_checkpoint_is_refused(refused, tmp_path, content, suffix):
    source = tmp_path / f"a{suffix}"
    source.write_bytes(content)
    message = refused("convert", source, tmp_path / "b.safetensors")
    assert message.startswith(f"checkpoint {source} ")
    assert "weights_only` set to `False`" not in message
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.refuses
def test_a_missing_entry_is_named_and_nothing_is_written(refused, tmp_path, state):
    source = tmp_path / "a.pth"
    torch.save({name: value for name, value in state.items() if name != "norm.weight"}, source)
    message = refused("convert", source, tmp_path / "b.safetensors", "--model", "darvit_tiny")
    assert "missing: norm.weight" in message
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.refuses
def test_a_missing_checkpoint_is_refused(refused, tmp_path):
    source = tmp_path / "a.pth"
    assert f"checkpoint {source} is not a file" in refused("convert", source, "b.safetensors")
