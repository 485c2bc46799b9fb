"""Patches laid back on the picture, against a loop over pixels and against what sampled them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dartok.core.partition import flow_partition, grid_partition
from dartok.core.regions import Regions
from dartok.core.sampling import sample_regions
from dartok.core.unsampling import unsample_regions


def some_regions(num_tokens=12, num_rows=3, batch=2, frames=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(batch, frames, 7, 9, generator=generator, dtype=torch.float64) + 0.05
    return flow_partition(scores, num_tokens=num_tokens, num_rows=num_rows)


def oracle(patches, regions, size):
    """The definition, pixel by pixel, in plain Python."""
    batch, _, channels, height, width = patches.shape
    frames, rows = regions.num_frames, regions.num_rows
    out = torch.zeros(batch, channels, frames, *size, dtype=patches.dtype)

    def read(patch, place, samples, other):
        at = min(max(place * samples - 0.5, 0), samples - 1)
        first = min(int(at), samples - 1)
        second = min(first + 1, samples - 1)
        share = at - first
        return other(patch, first) * (1 - share) + other(patch, second) * share

    for b in range(batch):
        strip_edges = regions.strip_edges[b].tolist()
        for t in range(frames):
            row_edges = regions.row_edges[b, t].tolist()
            for i in range(size[0]):
                y = (i + 0.5) / size[0]
                r = max(k for k in range(rows) if row_edges[k] <= y)
                v = (y - row_edges[r]) / (row_edges[r + 1] - row_edges[r])
                for j in range(size[1]):
                    s = t * rows + r + (j + 0.5) / size[1]
                    n = max(k for k in range(len(strip_edges) - 1) if strip_edges[k] <= s)
                    u = (s - strip_edges[n]) / (strip_edges[n + 1] - strip_edges[n])
                    down = read(patches[b, n], v, height, lambda patch, k: patch[:, k])
                    out[b, :, t, i, j] = read(down, u, width, lambda row, k: row[:, k])
    return out.squeeze(2) if frames == 1 else out


@pytest.mark.parametrize("frames", [1, 2])
def test_it_is_its_definition_pixel_by_pixel(frames):
    regions = some_regions(frames=frames)
    patches = torch.randn(2, 12, 3, 2, 4, dtype=torch.float64)
    actual = unsample_regions(patches, regions, (11, 13))
    assert_close(actual, oracle(patches, regions, (11, 13)), rtol=0, atol=1e-12)


def test_one_sample_per_patch_paints_each_pixel_with_the_value_of_its_region():
    regions = some_regions()
    values = torch.randn(2, 12, 1, 1, 1, dtype=torch.float64)
    painted = unsample_regions(values, regions, (20, 30))[:, 0]
    index = regions.label_map((20, 30))[:, 0].flatten(1)
    assert_close(painted.flatten(1), values.flatten(1).gather(1, index), rtol=0, atol=1e-12)


def test_on_the_fixed_grid_it_is_the_plain_reshape():
    regions = grid_partition(torch.ones(2, 4, 6), num_tokens=24, num_rows=4)
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    patches = sample_regions(images, regions, (4, 4))
    assert_close(unsample_regions(patches, regions, (16, 24)), images, rtol=0, atol=1e-12)


def ramp(batch, height, width):
    y = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    x = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    return (2 * y[:, None] - 3 * x[None]).expand(batch, 1, -1, -1)


@pytest.mark.parametrize("samples", [4, 8, 16])
def test_sampling_and_unsampling_a_ramp_errs_by_at_most_half_a_sample(samples):
    regions = grid_partition(
        torch.rand(2, 7, 9, dtype=torch.float64) + 0.1, num_tokens=12, num_rows=3
    )
    images = ramp(2, 96, 96)
    back = unsample_regions(sample_regions(images, regions, (samples, samples)), regions, (96, 96))
    boxes = regions.boxes()
    sides = (boxes[..., 2:] - boxes[..., :2]).amax((1, 2, 0))
    steepest = 2 * sides + 3 * sides  # per unit of x and y, over one region
    assert (back - images).abs().amax() <= steepest / (2 * samples) + 5 / 96


@given(
    num_tokens=st.integers(1, 40),
    num_rows=st.integers(1, 6),
    height=st.integers(1, 33),
    width=st.integers(1, 33),
    samples=st.integers(1, 5),
)
def test_a_constant_stays_constant_at_any_size(num_tokens, num_rows, height, width, samples):
    regions = some_regions(num_tokens, min(num_rows, num_tokens))
    patches = torch.full((2, num_tokens, 1, samples, samples), 2.5, dtype=torch.float32)
    painted = unsample_regions(patches, regions, (height, width))
    assert_close(painted, torch.full((2, 1, height, width), 2.5), rtol=0, atol=1e-6)


def test_gradients_in_patches_and_edges_are_those_of_finite_differences():
    regions = some_regions(5, 2, batch=1)
    patches = torch.randn(1, 5, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    edges = [edge.clone().requires_grad_() for edge in (regions.row_edges, regions.strip_edges)]

    def painted(patches, rows, strip):
        return unsample_regions(patches, Regions(rows, strip), (5, 7))

    assert torch.autograd.gradcheck(painted, (patches, *edges), eps=1e-7, atol=1e-5)


def test_an_image_ignores_its_batch_mates():
    regions = some_regions(batch=3)
    patches = torch.randn(3, 12, 2, 2, 2)
    alone = unsample_regions(patches[1:2], regions.select(slice(1, 2)), (9, 9))
    assert_close(unsample_regions(patches, regions, (9, 9))[1:2], alone, rtol=0, atol=0)


def test_half_precision_is_read_in_float32_at_thousands_of_regions():
    regions = grid_partition(torch.ones(1, 56, 56), num_tokens=3136, num_rows=56)
    values = torch.randn(1, 3136, 1, 4, 4).to(torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        painted = unsample_regions(values, regions, (224, 224))
    plain = values.unflatten(1, (56, 56)).permute(0, 3, 1, 4, 2, 5).reshape(1, 1, 224, 224)
    assert painted.dtype == torch.bfloat16
    assert_close(painted, plain)


@pytest.mark.refuses
def test_other_numbers_of_patches_and_empty_pictures_are_refused():
    regions = some_regions()
    with pytest.raises(ValueError, match=r"\(B, N\) = \(2, 12\), got \(2, 11, 1, 1, 1\)"):
        unsample_regions(torch.zeros(2, 11, 1, 1, 1), regions, (4, 4))
    with pytest.raises(ValueError, match=r"at least 1 pixel each, got \(0, 4\)"):
        unsample_regions(torch.zeros(2, 12, 1, 1, 1), regions, (0, 4))
