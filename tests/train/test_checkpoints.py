"""Checkpoints: complete or absent, the newest kept, the unreadable refused."""

import os

import pytest
import torch

from dartok.train.checkpoints import latest_checkpoint, load_checkpoint, save_checkpoint

FULL_DISK = OSError(28, "No space left on device")
FULL_DISK_OF_TORCH = RuntimeError("[enforce fail] PytorchStreamWriter failed writing file\nat ...")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def fail_half_way(monkeypatch, error):
    """Let `torch.save` write some bytes, then fail."""

    def save(content, path):
        path.write_bytes(b"PK half of a checkpoint")
        raise error

    monkeypatch.setattr(torch, "save", save)


def test_what_is_saved_is_loaded(tmp_path):
    state = {"model": {"w": torch.randn(3)}, "best": 0.5}
    path = save_checkpoint(tmp_path / "new", 12, state, keep_last=1)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert (loaded["step"], loaded["best"]) == (12, 0.5)


def test_the_newest_are_kept_by_their_number_of_steps(tmp_path):
    for step in (2, 900, 1000, 10_000):
        save_checkpoint(tmp_path, step, {}, keep_last=2)
    assert names(tmp_path) == ["step-00001000.pt", "step-00010000.pt"]
    assert latest_checkpoint(tmp_path) == tmp_path / "step-00010000.pt"


def test_there_is_no_newest_in_an_empty_or_missing_folder(tmp_path):
    (tmp_path / "notes.pt").write_text("mine")
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "missing") is None


def test_files_of_others_in_the_folder_stay(tmp_path):
    (tmp_path / "step-1.pt.backup").write_text("mine")
    save_checkpoint(tmp_path, 2, {}, keep_last=1)
    assert names(tmp_path) == ["step-00000002.pt", "step-1.pt.backup"]


@pytest.mark.parametrize("error", [FULL_DISK, FULL_DISK_OF_TORCH])
def test_a_full_disk_leaves_the_old_checkpoints_and_no_part_of_the_new(
    tmp_path, monkeypatch, error
):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"w": torch.ones(1)}, keep_last=2)
    fail_half_way(monkeypatch, error)
    with pytest.raises(OSError, match="No space left|step-00000003.pt cannot be written") as raised:
        save_checkpoint(tmp_path, 3, {}, keep_last=1)
    assert "\n" not in str(raised.value)
    assert names(tmp_path) == ["step-00000001.pt", "step-00000002.pt"]
    assert load_checkpoint(latest_checkpoint(tmp_path))["step"] == 2


def test_a_full_disk_while_replacing_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 3, {"w": torch.ones(1)}, keep_last=1)
    fail_half_way(monkeypatch, FULL_DISK)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 3, {}, keep_last=1)
    assert torch.equal(load_checkpoint(tmp_path / "step-00000003.pt")["w"], torch.ones(1))


def test_an_interrupt_while_writing_leaves_nothing_half_written(tmp_path, monkeypatch):
    fail_half_way(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 1, {}, keep_last=1)
    assert names(tmp_path) == []


def test_what_a_killed_process_left_half_written_goes_with_the_next_checkpoint(tmp_path):
    left = tmp_path / ".step-00000002.pt.4711"
    left.write_bytes(b"half")
    assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 2, {}, keep_last=1)
    assert names(tmp_path) == ["step-00000002.pt"]


def test_the_older_ones_go_only_when_the_new_one_is_there(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {}, keep_last=1)
    seen = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(names(tmp_path)))
    save_checkpoint(tmp_path, 2, {}, keep_last=1)
    assert seen
    assert all("step-00000001.pt" in listed for listed in seen)
    assert names(tmp_path) == ["step-00000002.pt"]


@pytest.mark.refuses
@pytest.mark.parametrize("damage", ["truncated", "empty", "text", "code"])
def test_a_damaged_checkpoint_is_refused_in_one_line(tmp_path, damage):
    path = save_checkpoint(tmp_path, 1, {"w": torch.ones(1000)}, keep_last=1)
    content = path.read_bytes()
    if damage == "code":
        torch.save({"format": 1, "step": print}, path)
    else:
        spoilt = {"truncated": content[: len(content) // 2], "empty": b"", "text": b"<html>"}
        path.write_bytes(spoilt[damage])
    with pytest.raises(ValueError, match="cannot be read .* resume from the one before") as raised:
        load_checkpoint(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.refuses
@pytest.mark.parametrize("content", [{"model": {}}, torch.ones(2), {"format": 99, "step": 1}])
def test_a_checkpoint_of_another_program_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="was not written by dartok train; check the path"):
        load_checkpoint(tmp_path / "a.pt")
