"""Area means against integration pixel by pixel, and what they promise beside points."""

import itertools

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from region_cases import pictures, regions_of
from torch.autograd import gradcheck
from torch.testing import assert_close

import dartok.core.antialias
from dartok.core.antialias import interval_means
from dartok.core.partition import partition
from dartok.core.regions import Regions
from dartok.core.sampling import sample_regions

CASES = [  # kind, frames, tokens, rows, height, width
    ("flow", 1, 9, 3, 24, 24),
    ("flow", 1, 4, 4, 47, 31),
    ("flow", 1, 2, 1, 31, 17),
    ("flow", 1, 2, 2, 60, 70),
    ("flow", 1, 40, 5, 11, 9),
    ("grid", 1, 12, 3, 20, 63),
    ("flow", 2, 9, 2, 38, 23),
    ("grid", 3, 12, 2, 9, 41),
]


def shares(start_px: float, end_px: float, length_px: int) -> np.ndarray:
    """What an interval shares with each pixel, of a total of 1."""
    start_px, end_px = max(start_px, 0.0), min(end_px, float(length_px))
    pixels = np.arange(length_px)
    common = np.minimum(end_px, pixels + 1) - np.maximum(start_px, pixels)
    return np.maximum(common, 0) / (end_px - start_px)


def area_patch(clip, own, region, patch_size, oversample=1):
    """One region's patch, each sample the mean over its rectangle of at least one pixel."""
    height, width = clip.shape[2:]
    rows, columns = patch_size[0] * oversample, patch_size[1] * oversample
    num_rows = own.row_edges.shape[1] - 1
    left, right = own.strip_edges[region : region + 2]
    fine = np.zeros((clip.shape[1], rows, columns))
    across_px = max((right - left) / columns * width, 1.0)
    for j in range(columns):
        strip = left + (right - left) * (j + 0.5) / columns
        frame, row = divmod(min(int(strip), len(clip) * num_rows - 1), num_rows)
        x_px = (strip - frame * num_rows - row) * width
        over_x = shares(x_px - across_px / 2, x_px + across_px / 2, width)
        top, bottom = own.row_edges[frame, row : row + 2] * height
        down_px = max((bottom - top) / rows, 1.0)
        for k in range(rows):
            y_px = top + (bottom - top) * (k + 0.5) / rows
            over_y = shares(y_px - down_px / 2, y_px + down_px / 2, height)
            fine[:, k, j] = over_y @ clip[frame] @ over_x
    shape = (clip.shape[1], patch_size[0], oversample, patch_size[1], oversample)
    return fine.reshape(shape).mean((2, 4))


def expected_patches(images, regions, patch_size, oversample=1):
    clips = images.double().numpy().reshape(2, regions.num_frames, 3, *images.shape[-2:])
    own = [
        oracles.Partition(regions.row_edges[i].numpy(), regions.strip_edges[i].numpy())
        for i in range(2)
    ]
    patches = [
        [area_patch(clips[i], own[i], n, patch_size, oversample) for n in range(regions.num_tokens)]
        for i in range(2)
    ]
    return torch.from_numpy(np.array(patches))


@pytest.mark.parametrize("oversample", [1, 2])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_patches_are_the_means_that_integration_finds(case, oversample):
    regions, images = regions_of(*case[:4]), pictures(case[1], *case[4:])
    expected = expected_patches(images, regions, (4, 6), oversample)
    options = {"oversample": oversample, "antialias": True}
    patches = sample_regions(images, regions, (4, 6), **options)
    assert_close(patches, expected, rtol=0, atol=1e-11)
    # points of resolved regions are placed in float32 to about 1e-5 px
    patches = sample_regions(images.float(), regions, (4, 6), **options)
    assert patches.dtype == torch.float32
    assert_close(patches.double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_cumulative_sums_give_the_same_as_adding_each_line(case, monkeypatch):
    regions, images = regions_of(*case[:4]), pictures(case[1], *case[4:])
    expected = sample_regions(images, regions, (4, 6), antialias=True)
    monkeypatch.setattr(dartok.core.antialias, "readable", lambda values: False)
    actual = sample_regions(images, regions, (4, 6), antialias=True)
    assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("bilinear", ["grid_sample", "gather"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("num_frames", "height", "width", "tokens", "rows"),
    [(1, 64, 96, 24, 4), (1, 224, 224, 196, 14), (3, 32, 48, 18, 2), (1, 33, 41, 40, 5)],
)
def test_regions_of_at_most_a_patch_are_sampled_as_without(
    num_frames, height, width, tokens, rows, dtype, bilinear
):
    regions = partition(torch.ones(2, num_frames, 5, 4), num_tokens=tokens, num_rows=rows)
    images = pictures(num_frames, height, width).to(dtype)
    plain = sample_regions(images, regions, (16, 16), bilinear=bilinear)
    antialiased = sample_regions(images, regions, (16, 16), bilinear=bilinear, antialias=True)
    assert torch.equal(antialiased, plain)


def test_each_region_decides_for_itself():
    regions = Regions(torch.tensor([[[0.0, 0.25, 1.0]]]), torch.tensor([[0.0, 0.25, 1.0, 2.0]]))
    images = torch.randn(1, 3, 32, 32)
    plain = sample_regions(images, regions, (8, 8))
    antialiased = sample_regions(images, regions, (8, 8), antialias=True)
    assert torch.equal(antialiased[:, 0], plain[:, 0])  # 8 x 8 px
    assert (antialiased[:, 1:] - plain[:, 1:]).abs().amax((0, 2, 3, 4)).min() > 0.1


def zone_plate(side_px: int) -> torch.Tensor:
    """Rings that get finer outwards, up to half the sampling rate at the corners."""
    centred = torch.arange(side_px, dtype=torch.float64) - side_px / 2 + 0.5
    square = centred**2 + centred.unsqueeze(1) ** 2
    return torch.cos(np.pi * square / side_px).expand(2, 3, -1, -1)


@pytest.mark.parametrize("tokens", [16, 49])
def test_a_zone_plate_does_not_alias(tokens):
    images = zone_plate(160)
    regions = regions_of("flow", 1, tokens, round(tokens**0.5))
    expected = expected_patches(images, regions, (4, 4))

    def error(**options) -> float:
        patches = sample_regions(images.float(), regions, (4, 4), **options)
        return float((patches - expected).square().mean().sqrt())

    errors = [error(), error(oversample=2), error(antialias=True)]
    assert errors[0] > 0.4
    assert errors[1] > 0.15
    assert errors[2] < 1e-4


@pytest.mark.parametrize("shift", [(0, 5), (3, 0), (7, 11)])
def test_a_picture_moved_by_whole_pixels_gives_the_same_patches(shift):
    images = torch.randn(1, 3, 120, 150, dtype=torch.float64)
    moved = images.roll(shift, dims=(2, 3))

    def sampled(picture, dy, dx):
        rows = torch.tensor([0, 21 + dy, 60 + dy, 90 + dy, 120], dtype=torch.float64) / 120
        columns = [25.5 + dx, 60 + dx, 61 + dx, 130.25 + dx, 150]
        columns = torch.tensor(columns, dtype=torch.float64) / 150
        strip = columns + torch.arange(4)[:, None]
        edges = torch.cat([torch.zeros(1, dtype=torch.float64), strip.flatten()])
        regions = Regions(rows[None, None], edges[None])
        patches = sample_regions(picture, regions, (5, 4), antialias=True)
        return patches.unflatten(1, (4, 5))[:, 1:-1, 1:-1]  # those that keep their size

    expected = sampled(images, 0, 0)
    assert_close(sampled(moved, *shift), expected, rtol=0, atol=1e-11)


def test_a_constant_picture_gives_constant_patches_for_every_region():
    regions = regions_of("flow", 1, 7, 3)
    patches = sample_regions(torch.full((2, 3, 90, 90), 2.5), regions, (5, 5), antialias=True)
    assert_close(patches, torch.full_like(patches, 2.5))


@pytest.mark.parametrize("num_frames", [1, 2])
def test_the_mean_of_a_large_patch_is_that_of_its_region(num_frames):
    regions = regions_of("grid", num_frames, 8, 2)
    images = pictures(num_frames, 300, 280)
    maps = images if num_frames == 1 else images.transpose(1, 2)
    means = sample_regions(images, regions, (4, 4), antialias=True).mean((-2, -1))
    assert_close(means, regions.to_tokens(maps), rtol=0, atol=1e-12)


def test_a_region_that_crosses_a_seam_reads_no_pixel_of_another():
    rows, strip = [0.0, 0.4, 1.0], [0.0, 0.55, 1.7, 2.0]
    edges = (torch.tensor(one, dtype=torch.float64) for one in ([[rows]], [strip]))
    regions = Regions(*edges)
    images = torch.ones(1, 1, 50, 60, requires_grad=True)
    sample_regions(images, regions, (4, 4), antialias=True)[0, 1].sum().backward()
    own = oracles.Partition(regions.row_edges[0].numpy(), regions.strip_edges[0].numpy())
    held = torch.from_numpy(oracles.overlaps(own, (50, 60))[1, 0]) > 1e-9
    read = images.grad[0, 0] > 1e-9
    assert not (read & ~held).any()
    # all that it holds but what its second column, from 0.8375 to 1.125, has of the second row
    assert (read & held).sum() == held.sum() - 30 * 7


GRADIENTS = [  # kind, frames, map height, map width, tokens, rows, image height, image width
    ("flow", 1, 3, 3, 3, 2, 11, 9),
    ("flow", 2, 2, 3, 5, 2, 7, 8),
    ("grid", 2, 2, 3, 4, 1, 5, 9),
]


@pytest.mark.parametrize("way", [True, False], ids=["sums", "differences"])
@pytest.mark.parametrize("case", GRADIENTS, ids=str)
def test_gradients_from_scores_and_images_to_patches_are_exact(case, way, monkeypatch):
    monkeypatch.setattr(dartok.core.antialias, "readable", lambda values: way)
    kind, num_frames, height, width, num_tokens, num_rows = case[:6]

    def patches(scores: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        regions = partition(scores, num_tokens=num_tokens, num_rows=num_rows, kind=kind)
        return sample_regions(images, regions, (2, 3), antialias=True)

    scores = torch.rand(1, num_frames, height, width, dtype=torch.float64) + 0.2
    images = torch.randn(1, num_frames, 1, *case[6:], dtype=torch.float64)
    assert gradcheck(patches, (scores.requires_grad_(), images.requires_grad_()))


def patch_of(images: torch.Tensor, height_px: float, width_px: float) -> torch.Tensor:
    """A region of that size, a little off the corner."""
    rows = torch.tensor([[[0.0, 3.3, 3.3 + height_px, 64.0]]], dtype=torch.float64) / 64
    strip = torch.tensor([0.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    strip[1:3] = 1 + torch.tensor([2.7, 2.7 + width_px], dtype=torch.float64) / 64
    strip[3] = 3
    return sample_regions(images, Regions(rows, strip[None]), (4, 4), antialias=True)[:, 1]


@pytest.mark.parametrize("size_px", [4, 8, 16, 32])
def test_nothing_jumps_where_a_region_grows_beyond_a_patch_or_doubles(size_px):
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    for grown in ((1e-7, 0), (0, 1e-7), (1e-7, 1e-7)):
        before = patch_of(images, size_px - grown[0], size_px - grown[1])
        after = patch_of(images, size_px + 1e-5 * grown[0] / 1e-7, size_px + grown[1])
        assert (after - before).abs().max() < 1e-4
    steps = [patch_of(images, size_px + step / 100, size_px - step / 100) for step in range(100)]
    assert max((b - a).abs().max() for a, b in itertools.pairwise(steps)) < 0.1


@settings(max_examples=60)
@given(
    st.integers(17, 300),
    st.integers(17, 300),
    st.integers(1, 80),
    st.integers(1, 3),
    st.integers(1, 7),
    st.integers(0, 2**31),
)
def test_patches_of_any_regions_are_means_of_pixels(height, width, tokens, frames, side, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = 10 ** (6 * torch.rand(1, frames, 5, 7, generator=generator) - 3)
    rows = int(torch.randint(1, tokens + 1, (1,), generator=generator))
    regions = partition(scores, num_tokens=tokens, num_rows=rows)
    images = torch.rand(1, frames, 1, height, width, generator=generator) + 1
    patches = sample_regions(images, regions, (side, side), antialias=True)
    assert patches.max() <= images.max() + 1e-5
    assert patches.min() >= images.min() - 1e-5


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 2**31))
def test_interval_means_match_the_definition(length, count, seed):
    generator = np.random.default_rng(seed)
    edges = np.sort(generator.uniform(0, length, count + 1))
    edges[[0, -1]] = 0, length
    centres = (edges[1:] + edges[:-1]) / 2
    half = np.maximum(edges[1:] - edges[:-1], min(1.0, length)) / 2
    starts, ends = np.maximum(centres - half, 0), np.minimum(centres + half, length)
    lines = generator.normal(size=(length, 3))
    expected = [shares(a, b, length) @ lines for a, b in zip(starts, ends, strict=True)]
    given_ = [torch.from_numpy(values)[None] for values in (lines, starts, ends)]
    assert_close(
        interval_means(*given_)[0], torch.from_numpy(np.array(expected)), rtol=0, atol=1e-11
    )


@pytest.mark.parametrize("num_frames", [1, 2])
def test_patches_of_an_image_equal_those_in_any_batch(num_frames):
    scores = torch.rand(4, num_frames, 7, 7) + 0.1
    images = torch.randn(4, num_frames, 3, 140, 129)
    batch = partition(scores, num_tokens=14, num_rows=5)
    together = sample_regions(images, batch, (8, 8), antialias=True)[2:3]
    alone = sample_regions(images[2:3], batch.select(slice(2, 3)), (8, 8), antialias=True)
    assert torch.equal(together, alone)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast_change_nothing(dtype):
    regions, images = regions_of("flow", 1, 12, 3), pictures(1, 140, 150).to(dtype)
    expected = sample_regions(images.float(), regions, (8, 8), antialias=True)
    assert expected.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sample_regions(images, regions, (8, 8), antialias=True), expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0], ids=["nan", "inf", "no mass"])
def test_scores_that_define_no_region_give_nan_to_their_own_image_alone(bad):
    scores = torch.rand(3, 5, 5) + 0.1
    scores[1] = bad
    scores.requires_grad_()
    images = torch.randn(3, 3, 60, 70, requires_grad=True)
    regions = partition(scores, num_tokens=10, num_rows=2)
    patches = sample_regions(images, regions, (4, 4), antialias=True)
    assert patches[1].isnan().all()
    assert patches[[0, 2]].isfinite().all()
    patches.sum().backward()
    assert scores.grad[[0, 2]].isfinite().all()
    assert images.grad[[0, 2]].isfinite().all()


@pytest.mark.refuses
def test_the_authors_rule_is_refused():
    message = r"^antialias needs sampling='centred', got 'corner'; drop one of both$"
    with pytest.raises(ValueError, match=message):
        sample_regions(
            pictures(1, 9, 9),
            regions_of("flow", 1, 4, 2),
            (2, 2),
            sampling="corner",
            antialias=True,
        )
