"""State dicts in files: safe to read, strict to load, whole when written."""

import argparse
import pickle

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dartok.scorers.weights import load_strictly, read_state, write_state


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_state_dicts_are_read_bare_or_under_model_with_or_without_args(tmp_path):
    state = {"weight": torch.ones(2, 3)}
    for number, content in enumerate(
        [state, {"model": state}, {"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}]
    ):
        path = tmp_path / f"{number}.pth"
        torch.save(content, path)
        assert torch.equal(read_state(path)["weight"], state["weight"])
    write_state(state, tmp_path / "a.safetensors", metadata={"format": "pt"})
    assert torch.equal(read_state(tmp_path / "a.safetensors")["weight"], state["weight"])


@pytest.mark.refuses
def test_what_is_no_checkpoint_is_refused_in_one_line(tmp_path, capsys):
    torch.save({"weight": torch.ones(200, 300)}, tmp_path / "whole.pth")
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "truncated.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.pth").write_text("not a checkpoint")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "harmful.pth").write_bytes(pickle.dumps(Harmful(), protocol=2))
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "no_state.pth")
    for path in tmp_path.iterdir():
        if path.name == "whole.pth":
            continue
        with pytest.raises(ValueError, match=rf"^checkpoint .*{path.name} [^\n]*$"):
            read_state(path)
    with pytest.raises(ValueError, match="is not a file"):
        read_state(tmp_path)
    assert capsys.readouterr().out == ""


@pytest.mark.refuses
def test_a_state_that_does_not_fit_changes_nothing_and_names_the_entries():
    module = nn.Linear(2, 1)
    before = module.weight.clone()
    state = {"weight": torch.ones(1, 2), "bias": torch.ones(3), "extra": torch.ones(1)}
    with pytest.raises(ValueError, match=r"unexpected: extra; misshapen: bias \(3,\), not \(1,\)"):
        load_strictly(module, state, source="a.pth")
    assert torch.equal(module.weight, before)
    many = {f"x{number}": torch.ones(1) for number in range(9)}
    with pytest.raises(ValueError, match=r"unexpected: x0, x1, x2, x3 and 5 more"):
        load_strictly(module, many, source="a.pth")


@pytest.mark.refuses
def test_nothing_half_written_is_left_behind(tmp_path, monkeypatch):
    target = tmp_path / "a.safetensors"
    write_state({"a": torch.ones(3)}, target, metadata={})
    with monkeypatch.context() as patch:
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            write_state({"a": torch.zeros(3)}, target, metadata={})
    assert torch.equal(load_file(target)["a"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    with pytest.raises(ValueError, match=r"output must end in .safetensors, got"):
        write_state({}, tmp_path / "a.pth", metadata={})
    with pytest.raises(ValueError, match="does not exist; create it first"):
        write_state({}, tmp_path / "none" / "a.safetensors", metadata={})
