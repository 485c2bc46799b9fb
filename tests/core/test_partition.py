"""Partitions against the definition in NumPy float64, their limits, and what they refuse."""

import numpy as np
import oracles
import pytest
import torch
from torch.testing import assert_close

from dartok.core.partition import (
    authors_partition,
    default_num_rows,
    flow_partition,
    grid_partition,
    partition,
    row_average,
)
from dartok.core.quantiles import geometry, quantile_edges

SHAPES = [  # frames, map height, map width, tokens, rows
    (1, 14, 14, 196, 14),
    (1, 14, 14, 120, 10),
    (1, 5, 9, 24, 3),
    (1, 9, 4, 7, 7),
    (1, 1, 1, 6, 2),
    (1, 3, 8, 1, 1),
    (3, 6, 5, 36, 4),
    (2, 1, 7, 12, 3),
]


def positive_scores(*shape: int) -> torch.Tensor:
    return torch.rand(shape, dtype=torch.float64) + 0.1


def assert_partition(regions, expected: list[oracles.Partition], atol: float) -> None:
    rows = np.stack([one.row_edges for one in expected])
    strip = np.stack([one.strip_edges for one in expected])
    assert_close(regions.row_edges, torch.from_numpy(rows), rtol=0, atol=atol)
    assert_close(regions.strip_edges, torch.from_numpy(strip), rtol=0, atol=atol)


@pytest.mark.parametrize(("dtype", "atol_cells"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("num_regions", [1, 2, 14, 40])
def test_edges_match_the_oracle(num_regions, dtype, atol_cells):
    density = positive_scores(3, 14)
    expected = np.stack([oracles.quantile_edges(row, num_regions) for row in density.numpy()])
    actual = quantile_edges(density.to(dtype), num_regions)
    assert actual.dtype == dtype
    assert_close(actual.double(), torch.from_numpy(expected), rtol=0, atol=atol_cells)


def test_edges_do_not_depend_on_the_total_mass():
    density = positive_scores(2, 9)
    assert_close(quantile_edges(density * 1e-12, 5), quantile_edges(density, 5))


def test_edges_are_computed_in_float32_where_the_density_is_half():
    edges = quantile_edges(torch.rand(9).half() + 0.5, 5)
    assert edges.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edges_never_decrease_where_the_densities_span_twelve_decades(dtype):
    density = 10 ** (12 * torch.rand(64, 50, dtype=dtype) - 6)
    edges = quantile_edges(density, 300)
    assert (edges.diff() >= 0).all()
    assert edges[:, 0].eq(0).all()
    assert edges[:, -1].eq(50).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_flow_matches_the_oracle(shape):
    num_frames, height, width, num_tokens, num_rows = shape
    scores = positive_scores(2, num_frames, height, width)
    expected = [oracles.flow_partition(one, num_tokens, num_rows) for one in scores.numpy()]
    regions = flow_partition(scores, num_tokens=num_tokens, num_rows=num_rows)
    assert_partition(regions, expected, atol=1e-11)
    assert (regions.num_frames, regions.num_rows, regions.num_tokens) == (
        num_frames,
        num_rows,
        num_tokens,
    )


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[3] % (s[0] * s[4]) == 0], ids=str)
def test_grid_matches_the_oracle(shape):
    num_frames, height, width, num_tokens, num_rows = shape
    scores = positive_scores(2, num_frames, height, width)
    expected = [oracles.grid_partition(one, num_tokens, num_rows) for one in scores.numpy()]
    regions = grid_partition(scores, num_tokens=num_tokens, num_rows=num_rows)
    assert_partition(regions, expected, atol=1e-11)


@pytest.mark.parametrize(("num_tokens", "num_rows"), [(196, 14), (121, 11), (5, 2)])
def test_authors_partition_matches_the_oracle_with_its_epsilons(num_tokens, num_rows):
    scores = positive_scores(2, 14, 14)
    expected = [oracles.authors_partition(one, num_tokens, num_rows) for one in scores.numpy()]
    actual = authors_partition(scores, num_tokens=num_tokens, num_rows=num_rows)
    assert_partition(actual, expected, atol=1e-11)
    exact = flow_partition(scores, num_tokens=num_tokens, num_rows=num_rows)
    off_cells = (actual.strip_edges - exact.strip_edges).abs().max() * 14
    assert 1e-8 < off_cells < 1e-3  # the epsilons are there, and are as small as said


@pytest.mark.parametrize("cut", [flow_partition, grid_partition], ids=["flow", "grid"])
def test_a_picture_is_a_clip_of_one_frame(cut):
    scores = positive_scores(2, 6, 8)
    image = cut(scores, num_tokens=12, num_rows=3)
    clip = cut(scores.unsqueeze(1), num_tokens=12, num_rows=3)
    assert_close(tuple(image), tuple(clip), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["flow", "grid", "authors"])
def test_regions_of_an_image_ignore_its_batch_mates(kind):
    scores = positive_scores(5, 9, 7)
    batch = partition(scores, num_tokens=30, num_rows=5, kind=kind)
    alone = partition(scores[2:3], num_tokens=30, num_rows=5, kind=kind)
    assert torch.equal(batch.row_edges[2:3], alone.row_edges)
    assert torch.equal(batch.strip_edges[2:3], alone.strip_edges)


def test_tokens_flow_to_the_frame_that_holds_the_mass():
    scores = torch.ones(1, 2, 4, 4, dtype=torch.float64)
    scores[:, 1] = 3
    regions = flow_partition(scores, num_tokens=40, num_rows=4)
    first_frame = (regions.centre_frames() == 0).sum()
    assert first_frame == 10


def test_rows_average_the_scores_and_do_not_sum_them():
    scores = torch.tensor([[[[1.0, 2.0], [3.0, 6.0], [5.0, 4.0]]]])
    rows = row_average(scores, torch.tensor([[[0.0, 1.5, 3.0]]]))
    expected = torch.tensor([[[[5 / 3, 10 / 3], [13 / 3, 14 / 3]]]])  # over 1.5 cells each
    assert_close(rows, expected)


@pytest.mark.parametrize("kind", ["flow", "grid", "authors"])
def test_geometry_is_float64_also_under_autocast(kind):
    scores = torch.rand(1, 8, 8) + 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = partition(scores, num_tokens=16, num_rows=4, kind=kind)
    outside = partition(scores, num_tokens=16, num_rows=4, kind=kind)
    assert inside.strip_edges.dtype == inside.row_edges.dtype == torch.float64
    assert torch.equal(inside.strip_edges, outside.strip_edges)


def test_row_average_of_float32_scores_ignores_autocast():
    scores, edges = torch.rand(1, 1, 4, 4), torch.tensor([[[0.0, 1.7, 4.0]]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = row_average(scores, edges)
    assert torch.equal(inside, row_average(scores, edges))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_scores_of_any_float_dtype_become_float64_geometry(dtype):
    assert geometry(torch.ones(1, dtype=dtype)).dtype == torch.float64


def test_one_hot_cell_draws_the_tokens_to_itself():
    scores = torch.full((1, 14, 14), 1e-6)
    scores[0, 3, 9] = 1.0
    centres = flow_partition(scores, num_tokens=100, num_rows=10).centres()[0] * 14
    inside = (centres[:, 0] - 9.5).abs().le(0.5) & (centres[:, 1] - 3.5).abs().le(0.5)
    assert inside.sum() >= 90  # of 100; the others cross from one row to the next


@pytest.mark.parametrize(
    ("num_tokens", "height", "width", "expected"),
    [(196, 224, 224, 14), (98, 100, 200, 7), (98, 200, 100, 14), (1, 9, 9, 1), (5, 1000, 10, 5)],
)
def test_rows_follow_the_aspect_of_the_image(num_tokens, height, width, expected):
    assert default_num_rows(num_tokens, height, width) == expected


@pytest.mark.parametrize("num_tokens", [1, 7, 12, 196, 197, 360])
def test_rows_of_a_grid_divide_its_tokens(num_tokens):
    for height, width in [(224, 224), (100, 700), (700, 100)]:
        assert num_tokens % default_num_rows(num_tokens, height, width, kind="grid") == 0


def test_rows_of_a_clip_are_those_of_one_frames_share():
    assert default_num_rows(784, 224, 224, num_frames=4) == 14
    rows = default_num_rows(784, 224, 224, kind="grid", num_frames=4)
    assert rows == 14
    assert default_num_rows(2, 224, 224, num_frames=4) == 1


@pytest.mark.refuses
@pytest.mark.parametrize("kind", ["flow", "grid", "authors"])
@pytest.mark.parametrize(
    ("num_tokens", "num_rows", "message"),
    [
        (0, 1, r"^num_tokens must be >= 1, got 0$"),
        (-3, 1, r"^num_tokens must be >= 1, got -3$"),
        (4, 5, r"^num_rows must be from 1 to num_tokens = 4, got 5$"),
        (4, 0, r"^num_rows must be from 1 to num_tokens = 4, got 0$"),
    ],
)
def test_counts_out_of_range_are_refused(kind, num_tokens, num_rows, message):
    with pytest.raises(ValueError, match=message):
        partition(torch.ones(1, 4, 4), num_tokens=num_tokens, num_rows=num_rows, kind=kind)


@pytest.mark.refuses
@pytest.mark.parametrize("kind", ["flow", "grid"])
@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 1, 4, 4)])
def test_scores_of_a_wrong_rank_are_refused(kind, shape):
    with pytest.raises(ValueError, match=r"^scores must be \(B, h, w\) or \(B, T, h, w\), got \("):
        partition(torch.ones(shape), num_tokens=4, num_rows=2, kind=kind)


@pytest.mark.refuses
@pytest.mark.parametrize("shape", [(4, 4), (1, 2, 4, 4)])
def test_clips_are_refused_by_the_authors_partition(shape):
    message = (
        r"^scores must be \(B, h, w\) for partition='authors', got \(.*\); "
        r"partition='flow' cuts clips$"
    )
    with pytest.raises(ValueError, match=message):
        authors_partition(torch.ones(shape), num_tokens=4, num_rows=2)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("shape", "num_tokens", "rule"), [((1, 4, 4), 7, 2), ((1, 3, 4, 4), 8, 6), ((1, 3, 4, 4), 2, 6)]
)
def test_a_grid_that_is_not_whole_is_refused(shape, num_tokens, rule):
    message = (
        rf"^num_tokens must be a multiple of frames \* num_rows = {rule} for partition='grid', "
        rf"got {num_tokens}; change num_tokens or num_rows$"
    )
    with pytest.raises(ValueError, match=message):
        grid_partition(torch.ones(shape), num_tokens=num_tokens, num_rows=2)


@pytest.mark.refuses
def test_an_unknown_partition_is_refused_with_the_known_ones():
    message = r"^partition must be one of flow, grid, authors, got 'spiral'$"
    with pytest.raises(ValueError, match=message):
        partition(torch.ones(1, 4, 4), num_tokens=4, num_rows=2, kind="spiral")


@pytest.mark.refuses
@pytest.mark.parametrize("num_regions", [0, -1])
def test_edges_of_no_region_are_refused(num_regions):
    with pytest.raises(ValueError, match=rf"^num_regions must be >= 1, got {num_regions}$"):
        quantile_edges(torch.ones(4), num_regions)
