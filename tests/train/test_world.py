"""The processes of a run; several of them are tested with whole runs in test_run.py."""

import pytest
import torch

from dartok.train.world import World, start_world


def test_a_process_alone_adds_up_and_gathers_only_its_own():
    world, value = World(), torch.tensor([1.0, 2.0])
    world.add_up(value)
    world.wait()
    assert value.tolist() == [1.0, 2.0]
    assert world.gather({"a": 1}) == [{"a": 1}]
    assert world.is_main
    assert not World(rank=1, size=2).is_main


def test_without_torchrun_there_is_one_process_and_no_group(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with start_world("cpu") as world:
        assert (world.rank, world.size, world.device) == (0, 1, torch.device("cpu"))
        assert not torch.distributed.is_initialized()


def test_the_group_is_left_also_when_the_run_fails(monkeypatch):
    calls = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    group = torch.distributed
    monkeypatch.setattr(group, "init_process_group", lambda name: calls.append(name))
    monkeypatch.setattr(group, "destroy_process_group", lambda: calls.append("left"))

    def join_and_fail():
        with start_world("cpu") as world:
            assert (world.rank, world.size) == (1, 2)
            raise KeyError

    with pytest.raises(KeyError):
        join_and_fail()
    assert calls == ["gloo", "left"]


@pytest.mark.refuses
@pytest.mark.parametrize("device", ["tpuu", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_in_one_line(device):
    with pytest.raises(ValueError, match=f"device '{device}' is not to be had here") as raised:
        start_world(device).__enter__()
    assert "\n" not in str(raised.value)
