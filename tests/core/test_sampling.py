"""Patches against a sample-by-sample oracle, and the cases with a closed form."""

import numpy as np
import oracles
import pytest
import torch
from region_cases import pictures, regions_of
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.core.partition import partition
from dartok.core.regions import Regions
from dartok.core.sampling import sample_regions

ORACLES = {"centred": oracles.centred_patch, "corner": oracles.corner_patch}
CASES = [  # kind, frames, tokens, rows, height, width
    ("flow", 1, 9, 3, 24, 24),
    ("flow", 1, 4, 4, 17, 31),
    ("flow", 1, 2, 1, 31, 17),
    ("flow", 1, 40, 5, 11, 9),
    ("grid", 1, 12, 3, 20, 33),
    ("flow", 2, 9, 2, 18, 13),
    ("grid", 3, 12, 2, 9, 21),
]


def expected_patches(
    images: torch.Tensor,
    regions: Regions,
    patch_size: tuple[int, int],
    sampling: str,
    oversample: int = 1,
) -> torch.Tensor:
    clips = images.numpy().reshape(2, regions.num_frames, 3, *images.shape[-2:])
    return torch.from_numpy(
        np.stack(
            [
                [
                    ORACLES[sampling](
                        clips[image],
                        oracles.Partition(
                            regions.row_edges[image].numpy(), regions.strip_edges[image].numpy()
                        ),
                        region,
                        patch_size,
                        oversample,
                    )
                    for region in range(regions.num_tokens)
                ]
                for image in range(2)
            ]
        )
    )


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_patches_match_the_oracle(case, sampling):
    regions, images = regions_of(*case[:4]), pictures(case[1], *case[4:])
    expected = expected_patches(images, regions, (4, 6), sampling)
    patches = sample_regions(images, regions, (4, 6), sampling=sampling)
    assert_close(patches, expected, rtol=0, atol=1e-11)
    # float32 coordinates are good to about 1e-5 px, and neighbouring pixels differ by up to 5
    patches = sample_regions(images.float(), regions, (4, 6), sampling=sampling)
    assert patches.dtype == torch.float32
    assert_close(patches.double(), expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("sampling", ["centred", "corner"])
def test_an_oversampled_patch_is_the_mean_of_a_finer_one(sampling):
    regions, images = regions_of("flow", 1, 5, 2), pictures(1, 23, 16)
    expected = expected_patches(images, regions, (2, 3), sampling, oversample=3)
    patches = sample_regions(images, regions, (2, 3), sampling=sampling, oversample=3)
    assert_close(patches, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("num_frames", "height", "width"), [(1, 12, 20), (3, 8, 4)])
def test_the_plain_grid_at_its_own_size_copies_the_patches(num_frames, height, width):
    images, rows, columns = pictures(num_frames, height, width), height // 4, width // 4
    scores = torch.ones(2, num_frames, 1, 1)
    regions = partition(scores, num_tokens=num_frames * rows * columns, num_rows=rows)
    frames = images.reshape(2 * num_frames, 3, height, width)
    unfolded = F.unfold(frames, 4, stride=4).view(2, num_frames, 3, 4, 4, -1)
    expected = unfolded.permute(0, 1, 5, 2, 3, 4).flatten(1, 2)
    assert_close(sample_regions(images, regions, (4, 4)), expected, rtol=0, atol=1e-12)
    corner = sample_regions(images, regions, (4, 4), sampling="corner")
    assert_close(corner, expected, rtol=0, atol=1e-12)


def test_the_plain_grid_at_twice_the_size_averages_two_by_two_pixels():
    images = pictures(1, 16, 24)
    regions = partition(torch.ones(2, 7, 5), num_tokens=6, num_rows=2)
    halved = F.unfold(F.avg_pool2d(images, 2), 4, stride=4).view(2, 3, 4, 4, 6)
    expected = halved.permute(0, 4, 1, 2, 3)
    assert_close(sample_regions(images, regions, (4, 4)), expected, rtol=0, atol=1e-12)


def test_the_corner_rule_at_twice_the_size_takes_every_other_pixel():
    images = pictures(1, 16, 24)
    regions = partition(torch.ones(2, 2, 3), num_tokens=6, num_rows=2)
    every_other = F.unfold(images[..., ::2, ::2], 4, stride=4).view(2, 3, 4, 4, 6)
    patches = sample_regions(images, regions, (4, 4), sampling="corner")
    assert_close(patches, every_other.permute(0, 4, 1, 2, 3), rtol=0, atol=1e-12)


def test_a_constant_picture_gives_constant_patches_for_every_region():
    regions = regions_of("flow", 1, 30, 3)
    patches = sample_regions(torch.full((2, 3, 9, 9), 2.5), regions, (5, 5), oversample=2)
    assert_close(patches, torch.full_like(patches, 2.5))


def test_the_corner_rule_fades_to_zero_after_the_last_row():
    strip = torch.tensor([[0.0, 1.95, 2.0]])
    regions = Regions(torch.tensor([[[0.0, 0.5, 1.0]]]), strip)
    patches = sample_regions(torch.ones(1, 1, 4, 4), regions, (2, 2), sampling="corner")
    # the last region starts at column 3.8 of 4 and is sampled there and at 3.9
    assert_close(patches[0, 1, 0], torch.tensor([[0.2, 0.1], [0.2, 0.1]]))


def test_frames_of_a_clip_do_not_bleed_into_each_other():
    clip = torch.stack([torch.zeros(1, 1, 6, 6), torch.ones(1, 1, 6, 6)], dim=1)
    regions = partition(torch.ones(1, 2, 3, 3), num_tokens=18, num_rows=3)
    patches = sample_regions(clip, regions, (8, 8))
    assert patches[0, :9].eq(0).all()
    assert patches[0, 9:].eq(1).all()


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize("num_frames", [1, 2])
def test_patches_of_an_image_equal_those_in_any_batch(num_frames, sampling):
    scores = torch.rand(4, num_frames, 7, 7) + 0.1
    images = torch.randn(4, num_frames, 3, 40, 29)
    batch = partition(scores, num_tokens=14, num_rows=5)
    alone = partition(scores[2:3], num_tokens=14, num_rows=5)
    together = sample_regions(images, batch, (8, 8), sampling=sampling)[2:3]
    assert torch.equal(together, sample_regions(images[2:3], alone, (8, 8), sampling=sampling))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("sampling", ["centred", "corner"])
def test_half_precision_images_are_sampled_in_float32(dtype, sampling):
    regions, images = regions_of("flow", 1, 12, 3), pictures(1, 40, 50).to(dtype)
    patches = sample_regions(images, regions, (8, 8), sampling=sampling)
    assert patches.dtype == torch.float32
    assert torch.equal(patches, sample_regions(images.float(), regions, (8, 8), sampling=sampling))


@pytest.mark.parametrize("sampling", ["centred", "corner"])
def test_sampling_ignores_autocast(sampling):
    regions, images = regions_of("flow", 1, 12, 3), pictures(1, 40, 50).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = sample_regions(images, regions, (8, 8), sampling=sampling)
    assert torch.equal(inside, sample_regions(images, regions, (8, 8), sampling=sampling))


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize("kind", ["flow", "grid", "authors"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0], ids=["nan", "inf", "no mass"])
def test_scores_that_define_no_region_give_nan_to_their_own_image_alone(bad, kind, sampling):
    scores = torch.rand(3, 5, 5) + 0.1
    scores[1] = bad
    scores.requires_grad_()
    images = torch.randn(3, 3, 20, 30, requires_grad=True)
    regions = partition(scores, num_tokens=10, num_rows=2, kind=kind)
    patches = sample_regions(images, regions, (4, 4), sampling=sampling)
    assert patches[1].isnan().all()
    assert patches[[0, 2]].isfinite().all()
    patches.sum().backward()  # on the CPU this would end the process if the NaN got through
    assert scores.grad[[0, 2]].isfinite().all()
    assert images.grad[[0, 2]].isfinite().all()


@pytest.mark.refuses
def test_an_unknown_sampling_is_refused_with_the_known_ones():
    regions = regions_of("flow", 1, 4, 2)
    message = r"^sampling must be one of centred, corner, got 'random'$"
    with pytest.raises(ValueError, match=message):
        sample_regions(torch.ones(2, 3, 8, 8), regions, (4, 4), sampling="random")


@pytest.mark.refuses
@pytest.mark.parametrize("oversample", [0, -1])
def test_an_oversample_below_one_is_refused(oversample):
    regions = regions_of("flow", 1, 4, 2)
    with pytest.raises(ValueError, match=rf"^oversample must be >= 1, got {oversample}$"):
        sample_regions(torch.ones(2, 3, 8, 8), regions, (4, 4), oversample=oversample)


@pytest.mark.refuses
@pytest.mark.parametrize("patch_size", [(0, 4), (4, 0)])
def test_a_patch_without_samples_is_refused(patch_size):
    regions = regions_of("flow", 1, 4, 2)
    message = r"^patch_size must be \(height, width\) of at least 1, got \("
    with pytest.raises(ValueError, match=message):
        sample_regions(torch.ones(2, 3, 8, 8), regions, patch_size)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("num_frames", "shape"),
    [(1, (2, 2, 3, 8, 8)), (2, (2, 3, 8, 8)), (2, (2, 3, 3, 8, 8)), (1, (2, 8, 8))],
)
def test_images_of_other_frames_are_refused(num_frames, shape):
    regions = regions_of("flow", num_frames, 4, 2)
    message = rf"^images must be .* with T = {num_frames} as the regions, got \("
    with pytest.raises(ValueError, match=message):
        sample_regions(torch.ones(shape), regions, (4, 4))


@pytest.mark.refuses
def test_images_of_another_batch_are_refused():
    regions = regions_of("flow", 1, 4, 2)
    message = r"^images and regions must be of one batch, got 3 images and regions of 2$"
    with pytest.raises(ValueError, match=message):
        sample_regions(torch.ones(3, 3, 8, 8), regions, (4, 4))


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gathers_read_what_grid_sample_reads(case, sampling):
    regions, images = regions_of(*case[:4]), pictures(case[1], *case[4:])
    expected = sample_regions(images, regions, (4, 6), sampling=sampling, oversample=2)
    actual = sample_regions(
        images, regions, (4, 6), sampling=sampling, oversample=2, bilinear="gather"
    )
    assert_close(actual, expected, rtol=0, atol=1e-12)


@pytest.mark.refuses
def test_an_unknown_way_of_reading_is_refused():
    with pytest.raises(ValueError, match="bilinear must be one of grid_sample, gather, got 'near'"):
        sample_regions(pictures(1, 9, 9), regions_of("flow", 1, 4, 2), (2, 2), bilinear="near")


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize("num_frames", [2, 3, 7, 64])
def test_a_frame_gives_the_same_samples_however_many_there_are(num_frames, sampling):
    """White noise shows how exactly places are kept: float32 would lose 1e-3 of it in 64 frames."""
    frames = torch.rand(1, num_frames, 2, 40, 56)
    alone = partition(torch.rand(1, 5, 5) + 0.2, num_tokens=9, num_rows=3)
    length = 3 * torch.arange(num_frames, dtype=torch.float64)[:, None]
    strip = (alone.strip_edges[:, 1:] + length).flatten()
    edges = torch.cat([torch.zeros(1, dtype=torch.float64), strip])[None]
    regions = Regions(alone.row_edges.expand(-1, num_frames, -1), edges)
    patches = sample_regions(frames, regions, (5, 4), sampling=sampling).unflatten(1, (-1, 9))
    for number in {0, num_frames // 2, num_frames - 1}:
        expected = sample_regions(frames[:, number], alone, (5, 4), sampling=sampling)
        inner = slice(None, -1) if sampling == "corner" else slice(None)  # seams of the last row
        assert patches.dtype == torch.float32
        assert_close(patches[:, number, inner], expected[:, inner], rtol=0, atol=2e-5)
