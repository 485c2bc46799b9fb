"""Feature maps of hosts that know nothing of us."""

import pytest
import timm
import torch
from torch import nn
from torch.testing import assert_close

from dartok.models.host_maps import change_maps, host_maps, tensors_in

HIERARCHICAL = ["test_convnext", "test_resnet", "test_efficientnet", "test_mambaout"]


def pictures():
    return torch.randn(1, 3, 64, 96)


@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize("name", HIERARCHICAL)
@torch.no_grad()
def test_stages_come_from_fine_to_coarse_at_strides_of_4_to_32(name, features_only):
    host = timm.create_model(name, features_only=features_only).eval()
    maps = host_maps(host, pictures(), 4)
    assert [one.shape[-2:] for one in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    channels = host.feature_info.channels() if features_only else None
    assert channels is None or [one.shape[1] for one in maps] == channels[-4:]


@pytest.mark.parametrize(
    ("count", "stages"), [(1, [4]), (2, [3, 4]), (4, [1, 2, 3, 4]), (7, [0, 1, 2, 3, 4, 4, 4])]
)
@pytest.mark.parametrize("size", [(64, 96), (16, 16)])  # where the last two stages are both 1 x 1
@torch.no_grad()
def test_the_coarsest_stages_are_taken_and_the_last_serves_what_is_left(count, stages, size):
    host = timm.create_model("test_resnet").eval()
    images = torch.randn(1, 3, *size)
    every = host.forward_intermediates(images, intermediates_only=True)
    found = host_maps(host, images, count)
    assert all(torch.equal(one, every[n]) for one, n in zip(found, stages, strict=True))


@torch.no_grad()
def test_a_vit_gives_blocks_at_equal_distances_and_the_last():
    host = timm.create_model("test_vit", img_size=(64, 96)).eval()
    images = pictures()
    every = host.forward_intermediates(images, intermediates_only=True)
    assert len(every) == 6
    for count, blocks in ((1, [5]), (2, [2, 5]), (3, [1, 3, 5]), (4, [1, 2, 4, 5])):
        found = host_maps(host, images, count)
        assert all(torch.equal(one, every[n]) for one, n in zip(found, blocks, strict=True))


@torch.no_grad()
def test_maps_of_the_same_reduction_are_one_stage():
    class Stages(nn.Module):
        def forward(self, images):
            pool = nn.functional.avg_pool2d
            return {"two": pool(images, 2), "again": pool(images, 2) + 1, "four": pool(images, 4)}

    images = pictures()
    fine, coarse = host_maps(Stages(), images, 2)
    assert_close(fine, nn.functional.avg_pool2d(images, 2) + 1)
    assert coarse.shape[-2:] == (16, 24)


def test_maps_are_changed_wherever_they_are_and_nothing_else_is():
    output = {"out": torch.ones(1, 1, 1, 2), "aux": [torch.ones(2, 3), torch.ones(1, 1, 1, 1)]}
    changed = change_maps({**output, "names": ["a"], "ids": torch.ones(1, 1, 1, 1).long()}, abs)
    assert [one.shape for one in tensors_in(changed)] == [one.shape for one in tensors_in(output)]
    doubled = change_maps(output, lambda one: 2 * one)
    assert [float(one.max()) for one in tensors_in(doubled)] == [2, 1, 2]
    assert changed["names"] == ["a"]


@pytest.mark.refuses
def test_hosts_without_maps_are_refused():
    with pytest.raises(ValueError, match="Sequential gives no feature maps; take timm"):
        host_maps(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), pictures(), 1)
