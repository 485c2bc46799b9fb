"""`Regions` against brute force: pixels, areas, rectangles, and the pair map <-> tokens."""

import numpy as np
import oracles
import pytest
import torch
from torch.testing import assert_close

from dartok.core.overlap import overlap_lengths
from dartok.core.partition import partition
from dartok.core.regions import Regions

CASES = [  # kind, frames, tokens, rows
    ("flow", 1, 12, 3),
    ("flow", 1, 3, 3),
    ("flow", 1, 1, 1),
    ("flow", 1, 4, 2),
    ("flow", 3, 20, 2),
    ("flow", 2, 3, 3),
    ("grid", 1, 12, 4),
    ("grid", 2, 12, 3),
]
SIZES = [(5, 8), (9, 4), (1, 1)]


@pytest.fixture(params=CASES, ids=str)
def regions(request) -> Regions:
    kind, num_frames, num_tokens, num_rows = request.param
    scores = torch.rand(2, num_frames, 6, 5, dtype=torch.float64) ** 3 + 0.02
    return partition(scores, num_tokens=num_tokens, num_rows=num_rows, kind=kind)


def each(regions: Regions) -> list[oracles.Partition]:
    """Every image's regions, as the oracle takes them."""
    pairs = zip(regions.row_edges.numpy(), regions.strip_edges.numpy(), strict=True)
    return [oracles.Partition(rows, strip) for rows, strip in pairs]


def with_frames(values: torch.Tensor, regions: Regions) -> torch.Tensor:
    """`(B, D, T, h, w)` as the package takes it: without T for images."""
    return values.squeeze(2) if regions.num_frames == 1 else values


@pytest.mark.parametrize("size", [(16, 16), (13, 29), (40, 7)], ids=str)
def test_every_pixel_gets_the_region_whose_rectangle_holds_its_centre(regions, size):
    expected = np.stack([oracles.label_map(one, size) for one in each(regions)])
    assert (expected >= 0).all()
    labels = regions.label_map(size)
    assert labels.dtype == torch.int64
    assert_close(labels, torch.from_numpy(expected), rtol=0, atol=0)


def test_a_pixel_centre_on_an_edge_belongs_to_the_region_that_starts_there():
    regions = Regions(torch.tensor([[[0.0, 0.5, 1.0]]]), torch.tensor([[0.0, 0.5, 1.5, 2.0]]))
    expected = torch.tensor([[[[0, 1, 1], [1, 2, 2], [1, 2, 2]]]])
    assert torch.equal(regions.label_map((3, 3)), expected)


def test_areas_are_those_of_the_rectangles(regions):
    expected = [oracles.overlaps(one, (1, 1)).sum((1, 2, 3)) for one in each(regions)]
    areas = torch.from_numpy(np.stack(expected)) / regions.num_frames
    assert_close(regions.areas(), areas, rtol=0, atol=1e-12)


def test_boxes_enclose_the_rectangles(regions):
    expected = []
    for one in each(regions):
        for region in range(regions.num_tokens):
            parts = oracles.rectangles(one, region)
            low = [min(p.left for p in parts), min(p.top for p in parts)]
            expected.append([*low, max(p.right for p in parts), max(p.bottom for p in parts)])
    boxes = torch.tensor(expected, dtype=torch.float64).view(2, -1, 4)
    assert_close(regions.boxes(), boxes, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("num_tokens", "num_rows"), [(121, 11), (36, 6), (196, 14), (60, 5)])
@pytest.mark.parametrize("cells", [(14, 14), (56, 56), (5, 9)], ids=str)
@pytest.mark.parametrize("score", [1.0, 1 / 3])
def test_boxes_of_the_plain_grid_are_its_cells_however_edges_round(
    num_tokens, num_rows, cells, score
):
    regions = partition(torch.full((1, *cells), score), num_tokens=num_tokens, num_rows=num_rows)
    num_columns = num_tokens // num_rows
    index = torch.arange(num_tokens, dtype=torch.float64)
    x, y = index % num_columns, (index / num_columns).floor()
    expected = torch.stack(
        [x / num_columns, y / num_rows, (x + 1) / num_columns, (y + 1) / num_rows], dim=-1
    )
    assert_close(regions.boxes()[0], expected, rtol=0, atol=1e-9)


def test_a_region_without_extent_has_a_box_without_extent():
    edges = torch.tensor([[0.0, 0.5, 0.5, 1.0, 1.0, 2.0]])
    boxes = Regions(torch.tensor([[[0.0, 0.5, 1.0]]]), edges).boxes()
    assert boxes.isfinite().all()
    assert_close(boxes[0, 0], torch.tensor([0.0, 0.0, 0.5, 0.5]))
    assert_close(boxes[0, 4], torch.tensor([0.0, 0.5, 1.0, 1.0]))


def test_centres_lie_midway_along_the_strip(regions):
    for image, one in enumerate(each(regions)):
        for region in range(regions.num_tokens):
            middle = one.strip_edges[region : region + 2].mean()
            strip_row = min(int(middle), regions.num_frames * regions.num_rows - 1)
            frame, row = divmod(strip_row, regions.num_rows)
            y = one.row_edges[frame, row : row + 2].mean()
            centre = regions.centres()[image, region]
            assert_close(centre, torch.tensor([middle - strip_row, y]).double())
            assert regions.centre_frames()[image, region] == frame


def test_a_centre_lies_in_its_own_region(regions):
    for image, one in enumerate(each(regions)):
        for region in range(regions.num_tokens):
            x, y = regions.centres()[image, region].tolist()
            frame = regions.centre_frames()[image, region].item()
            assert any(
                part.frame == frame
                and part.left <= x <= part.right
                and part.top <= y <= part.bottom
                for part in oracles.rectangles(one, region)
            )


def test_pieces_are_the_rectangles_of_all_regions_in_order(regions):
    pieces = regions.pieces()
    count = regions.num_tokens + regions.num_frames * regions.num_rows - 1
    assert pieces.boxes_xyxy.shape == (2, count, 4)
    for image, one in enumerate(each(regions)):
        expected = [
            (region, part.frame, part.left, part.top, part.right, part.bottom)
            for region in range(regions.num_tokens)
            for part in oracles.rectangles(one, region)
        ]
        wide = pieces.boxes_xyxy[image, :, 2] > pieces.boxes_xyxy[image, :, 0]
        found = torch.cat(
            [
                pieces.region[image, wide, None],
                pieces.frame[image, wide, None],
                pieces.boxes_xyxy[image, wide],
            ],
            dim=1,
        )
        assert_close(found, torch.tensor(expected).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_to_map_is_the_area_weighted_mean_of_the_regions_over_a_cell(regions, size):
    tokens = torch.randn(2, regions.num_tokens, 3, dtype=torch.float64)
    expected = np.stack(
        [
            np.einsum("nthw,nd->dthw", oracles.overlaps(one, size), own) * size[0] * size[1]
            for one, own in zip(each(regions), tokens.numpy(), strict=True)
        ]
    )
    painted = regions.to_map(tokens, size)
    expected = with_frames(torch.from_numpy(expected), regions)
    assert_close(painted, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize("measure", ["area", "strip"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_to_tokens_is_the_mean_of_the_map_over_a_region(regions, size, measure):
    values = torch.randn(2, 3, regions.num_frames, *size, dtype=torch.float64)
    expected = []
    for one, own in zip(each(regions), values.numpy(), strict=True):
        shared = oracles.overlaps(one, size, measure)
        total = shared.sum((1, 2, 3))[:, None]
        expected.append(np.einsum("nthw,dthw->nd", shared, own) / total)
    pooled = regions.to_tokens(with_frames(values, regions), measure=measure)
    assert_close(pooled, torch.from_numpy(np.stack(expected)), rtol=0, atol=1e-11)


def test_one_map_serves_a_whole_batch(regions):
    values = torch.randn(1, 3, regions.num_frames, 4, 7, dtype=torch.float64)
    shared = regions.to_tokens(with_frames(values, regions))
    copied = regions.to_tokens(with_frames(values.expand(2, -1, -1, -1, -1), regions))
    assert_close(shared, copied)


def test_the_plain_grid_hands_each_token_its_own_cell():
    regions = partition(torch.ones(1, 3, 5), num_tokens=15, num_rows=3)
    cells = torch.randn(1, 2, 3, 5, dtype=torch.float64)
    tokens = regions.to_tokens(cells)
    assert_close(tokens, cells.flatten(2).transpose(1, 2))
    assert_close(regions.to_map(tokens, (3, 5)), cells)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_maps_and_tokens_keep_the_dtype_they_came_in(regions, dtype):
    tokens = torch.randn(2, regions.num_tokens, 3).to(dtype)
    painted = regions.to_map(tokens, (4, 6))
    pooled = regions.to_tokens(painted)
    assert painted.dtype == pooled.dtype == dtype
    exact = regions.to_map(tokens.double(), (4, 6))
    assert_close(painted.double(), exact, rtol=0, atol=16 * torch.finfo(dtype).eps)  # tokens ~ 3


def test_maps_and_tokens_ignore_autocast(regions):
    tokens = torch.randn(2, regions.num_tokens, 3)
    painted = regions.to_map(tokens, (4, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(regions.to_map(tokens, (4, 6)), painted)
        inside = regions.to_tokens(painted)
    assert torch.equal(inside, regions.to_tokens(painted))


def test_overlaps_of_intervals_sum_to_their_lengths():
    edges = torch.rand(2, 3, 7, dtype=torch.float64).cumsum(-1)
    edges = (edges - edges[..., :1]) / (edges[..., -1:] - edges[..., :1])
    overlaps = overlap_lengths(edges, 4, 0.25)
    assert overlaps.shape == (2, 3, 6, 4)
    assert_close(overlaps.sum(-1), edges.diff(dim=-1))
    assert_close(overlaps.sum(-2), torch.full((2, 3, 4), 0.25, dtype=torch.float64))


@pytest.mark.refuses
@pytest.mark.parametrize("shape", [(1, 6, 4), (2, 5, 4), (2, 4, 4), (2, 6), (2, 6, 2, 2)], ids=str)
def test_tokens_of_another_partition_are_refused(shape):
    regions = partition(torch.ones(2, 4, 4), num_tokens=6, num_rows=2)
    message = r"^tokens must be \(B, N, D\) with \(B, N\) = \(2, 6\), got \("
    with pytest.raises(ValueError, match=message):
        regions.to_map(torch.ones(shape), (2, 2))


@pytest.mark.refuses
@pytest.mark.parametrize("size", [(0, 3), (3, 0), (-1, 3)], ids=str)
def test_a_map_without_cells_is_refused(size):
    regions = partition(torch.ones(1, 4, 4), num_tokens=6, num_rows=2)
    message = r"^size must be \(height, width\) of at least 1 cell each, got \("
    with pytest.raises(ValueError, match=message):
        regions.to_map(torch.ones(1, 6, 1), size)
    with pytest.raises(ValueError, match=message):
        regions.label_map(size)


@pytest.mark.refuses
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 2, 4, 4), (2, 3, 4, 4)], ids=str)
def test_a_map_of_other_frames_is_refused(shape):
    regions = partition(torch.ones(2, 3, 4, 4), num_tokens=6, num_rows=2)
    message = r"^values must be \(B, D, h, w\) or \(B, D, 3, h, w\), got \("
    with pytest.raises(ValueError, match=message):
        regions.to_tokens(torch.ones(shape))


@pytest.mark.refuses
@pytest.mark.parametrize(("regions_batch", "map_batch"), [(2, 3), (1, 3)])
def test_a_map_of_another_batch_is_refused(regions_batch, map_batch):
    regions = partition(torch.ones(regions_batch, 4, 4), num_tokens=6, num_rows=2)
    message = rf"^values must have a batch of 1 or {regions_batch} as the regions, got {map_batch}$"
    with pytest.raises(ValueError, match=message):
        regions.to_tokens(torch.ones(map_batch, 3, 4, 4))


@pytest.mark.refuses
def test_an_unknown_measure_is_refused():
    regions = partition(torch.ones(1, 4, 4), num_tokens=6, num_rows=2)
    with pytest.raises(ValueError, match=r"^measure must be one of area, strip, got 'volume'$"):
        regions.to_tokens(torch.ones(1, 3, 4, 4), measure="volume")
