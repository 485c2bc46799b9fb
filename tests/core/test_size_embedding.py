"""What a token is told of its region's size."""

import math

import pytest
import timm
import torch
from torch.testing import assert_close

import dartok
from dartok.core.partition import flow_partition, grid_partition
from dartok.core.regions import Regions
from dartok.core.size_embedding import SizeEmbedding, _crosses, _log_sizes


def test_sizes_are_the_height_of_the_row_and_the_length_along_the_strip():
    regions = Regions(
        torch.tensor([[[0.0, 0.25, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0, 1.25, 2.0]])
    )
    expected = torch.tensor([[0.25, 0.5], [0.25, 0.5], [0.75, 0.25], [0.75, 0.75]]).log()
    assert_close(_log_sizes(regions)[0], expected)
    assert not _crosses(regions).any()


def test_only_a_region_that_goes_on_in_a_later_row_crosses_a_seam():
    regions = Regions(torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([[0.0, 0.7, 1.2, 2.0]]))
    assert _crosses(regions)[0, :, 0].tolist() == [0, 1, 0]


def test_an_even_lattice_is_of_size_0_in_the_middle_of_what_it_is_told():
    regions = grid_partition(torch.ones(1, 4, 4), num_tokens=16, num_rows=4)
    embedding = SizeEmbedding(8, num_tokens=16)
    assert_close(
        _log_sizes(regions) - embedding.log_even_side.double(),
        torch.zeros(1, 16, 2, dtype=torch.float64),
        rtol=0,
        atol=1e-6,
    )


def test_the_even_size_of_a_clip_is_that_of_a_frames_regions():
    host = timm.create_model("test_vit", img_size=64)
    grid = {"scorer": "uniform", "partition": "grid", "strength": 1.0}
    model = dartok.adapt(host, num_frames=3, num_tokens=48, size_embedding=True, **grid)
    embed = model.patch_embed
    regions = embed.regions(torch.rand(1, 3, 3, 64, 64))
    sizes = _log_sizes(regions) - embed.size_embed.log_even_side.double()
    assert_close(sizes, torch.zeros(1, 48, 2, dtype=torch.float64), rtol=0, atol=1e-6)


def test_it_adds_nothing_at_first_and_learns():
    regions = flow_partition(torch.rand(2, 7, 7) + 0.1, num_tokens=9, num_rows=3)
    embedding = SizeEmbedding(8, num_tokens=9)
    assert embedding(regions).count_nonzero() == 0
    embedding(regions).sum().backward()
    assert embedding.out.bias.grad.abs().sum() > 0


def test_no_gradient_reaches_the_scorer_through_it():
    scores = (torch.rand(1, 7, 7) + 0.1).requires_grad_()
    embedding = SizeEmbedding(8, num_tokens=9)
    torch.nn.init.normal_(embedding.out.weight)
    found = embedding(flow_partition(scores, num_tokens=9, num_rows=3))
    assert found.requires_grad
    found.sum().backward()
    assert scores.grad is None


def test_an_adapted_model_starts_as_the_same_function_and_keeps_it_when_saved(tmp_path):
    host = timm.create_model("test_vit").eval()
    model = dartok.adapt(host, num_tokens=100, size_embedding=True).eval()
    images = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert_close(model(images), host(images), rtol=0, atol=1e-4)
        torch.nn.init.normal_(model.patch_embed.size_embed.out.weight, std=0.1)
        assert (model(images) - host(images)).abs().max() > 1e-3
        dartok.set_num_tokens(model, 30)
        dartok.save_pretrained(model, tmp_path)
        again = dartok.from_pretrained(tmp_path)
        assert_close(again(images), model(images), rtol=0, atol=1e-5)
    even = again.patch_embed.size_embed.log_even_side
    assert float(even) == pytest.approx(-0.5 * math.log(100))


def test_padding_of_images_of_fewer_tokens_stays_empty():
    model = dartok.adapt(
        timm.create_model("test_vit"), num_tokens=20, size_embedding=True, strength=1.0
    )
    torch.nn.init.normal_(model.patch_embed.size_embed.out.weight)
    dartok.set_num_tokens(model, "auto", least=5, most=40, step=5)
    images = torch.cat([torch.randn(1, 3, 96, 96), torch.zeros(1, 3, 96, 96)])
    regions = model.patch_embed.regions(images)
    tokens = model.patch_embed.embed(images, regions)
    assert tokens.isfinite().all()
    assert tokens[~regions.is_region()].count_nonzero() == 0
