"""Shares of cells, and the pair painting and pooling over any sizes, budgets, flow and grid."""

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.core.overlap import cell_shares, overlap_lengths
from dartok.core.partition import default_num_rows, partition
from dartok.core.regions import Regions

SIDES = st.integers(1, 24)
KINDS = st.sampled_from(["flow", "grid"])


@st.composite
def partitions(draw, most_tokens=80, batch=2):
    """Regions of random scores: any kind, frames, count and rows."""
    kind, num_frames = draw(KINDS), draw(st.sampled_from([1, 1, 2]))
    num_tokens = draw(st.integers(num_frames, most_tokens))
    if kind == "grid":
        num_tokens = num_frames * max(1, num_tokens // num_frames)
    height, width = draw(SIDES), draw(SIDES)
    num_rows = default_num_rows(num_tokens, height, width, kind=kind, num_frames=num_frames)
    seed = draw(st.integers(0, 2**31))
    generator = torch.Generator().manual_seed(seed)
    power = draw(st.sampled_from([0, 1, 5]))  # even, mild, nearly all in some cells
    shape = (batch, num_frames, height, width)
    scores = torch.rand(shape, generator=generator, dtype=torch.float64) ** power + 1e-3
    return partition(scores, num_tokens=num_tokens, num_rows=num_rows, kind=kind)


def weights_of(regions: Regions, size: tuple[int, int]) -> torch.Tensor:
    """How much each region weighs in each cell, `(B, N, T, h, w)`: paint one-hot tokens."""
    num_tokens = regions.num_tokens
    one_hot = torch.eye(num_tokens, dtype=torch.float64).expand(len(regions.row_edges), -1, -1)
    return regions.to_map(one_hot, size).view(len(regions.row_edges), num_tokens, -1, *size)


@settings(max_examples=40)
@given(partitions(), SIDES, SIDES)
def test_regions_cover_every_cell_once_and_weigh_their_area(regions, height, width):
    weights = weights_of(regions, (height, width))
    assert weights.min() >= 0
    assert weights.max() <= 1 + 1e-12
    assert_close(weights.sum(1), torch.ones_like(weights[:, 0]), rtol=0, atol=1e-9)
    assert_close(weights.mean((2, 3, 4)), regions.areas(), rtol=0, atol=1e-12)


@settings(max_examples=40)
@given(partitions(), SIDES, SIDES, st.integers(0, 2**31))
def test_pooling_is_the_adjoint_of_painting(regions, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    weights = weights_of(regions, (height, width))
    shape = (2, 3, regions.num_frames, height, width)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    given_values = values.squeeze(2) if regions.num_frames == 1 else values
    by_weights = torch.einsum("bnthw,bdthw->bnd", weights, values)
    by_weights = by_weights / weights.sum((2, 3, 4)).unsqueeze(-1)
    assert_close(regions.to_tokens(given_values), by_weights, rtol=0, atol=1e-8)


@settings(max_examples=20)
@given(partitions(most_tokens=12, batch=1), st.integers(1, 5), st.integers(1, 5))
def test_gradients_of_the_pair_are_exact(regions, height, width):
    """With respect to values; those to edges below, where these lie off the cells' edges."""
    tokens = torch.randn(1, regions.num_tokens, 2, dtype=torch.float64, requires_grad=True)
    frames = () if regions.num_frames == 1 else (regions.num_frames,)
    values = torch.randn(1, 2, *frames, height, width, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda one: regions.to_map(one, (height, width)), tokens)
    assert gradcheck(regions.to_tokens, values)


@settings(max_examples=20)
@given(
    st.integers(1, 9), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(0, 999)
)
def test_gradients_to_the_edges_are_exact(num_tokens, num_rows, height, width, seed):
    generator = torch.Generator().manual_seed(seed)

    def inner(count: int, end: float) -> torch.Tensor:
        steps = 0.2 + torch.rand(1, count + 1, generator=generator, dtype=torch.float64)
        return (end * steps.cumsum(-1) / steps.sum())[:, :-1].requires_grad_()

    def ends(edges: torch.Tensor, end: float) -> torch.Tensor:
        return torch.cat([edges.new_zeros(1, 1), edges, edges.new_full((1, 1), end)], dim=1)

    def paint(tokens: torch.Tensor, rows: torch.Tensor, strip: torch.Tensor) -> torch.Tensor:
        regions = Regions(ends(rows, 1.0).unsqueeze(1), ends(strip, num_rows))
        return regions.to_map(tokens, (height, width))

    def pool(values: torch.Tensor, rows: torch.Tensor, strip: torch.Tensor) -> torch.Tensor:
        return Regions(ends(rows, 1.0).unsqueeze(1), ends(strip, num_rows)).to_tokens(values)

    edges = inner(num_rows - 1, 1.0), inner(num_tokens - 1, num_rows)
    options = {"generator": generator, "dtype": torch.float64}
    tokens = torch.randn(1, num_tokens, 2, **options).requires_grad_()
    values = torch.randn(1, 2, height, width, **options).requires_grad_()
    assert gradcheck(paint, (tokens, *edges))
    assert gradcheck(pool, (values, *edges))


@settings(max_examples=40)
@given(
    KINDS,
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(1, 3),
    st.floats(0.1, 9),
)
def test_at_a_neutral_score_the_pair_is_reshape_and_average_pooling(
    kind, rows, columns, down, across, score
):
    scores = torch.full((1, 7, 5), score, dtype=torch.float64)
    regions = partition(scores, num_tokens=rows * columns, num_rows=rows, kind=kind)
    tokens = torch.randn(1, rows * columns, 2, dtype=torch.float64)
    grid = tokens.transpose(1, 2).unflatten(2, (rows, columns))
    assert_close(regions.to_map(tokens, (rows, columns)), grid, rtol=0, atol=1e-9)
    fine = regions.to_map(tokens, (rows * down, columns * across))
    copied = grid.repeat_interleave(down, 2).repeat_interleave(across, 3)
    assert_close(fine, copied, rtol=0, atol=1e-9)
    values = torch.randn(1, 2, rows * down, columns * across, dtype=torch.float64)
    pooled = F.avg_pool2d(values, (down, across)).flatten(2).transpose(1, 2)
    assert_close(regions.to_tokens(values), pooled, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_cells", [1, 7, 20_000])
def test_shares_of_cells_are_exact_however_many_there_are(dtype, num_cells):
    inner = torch.rand(5, dtype=torch.float64).sort().values * num_cells
    edges = torch.cat([torch.zeros(1), inner, torch.full((1,), num_cells)])
    expected = overlap_lengths(edges, num_cells)
    shares = cell_shares(edges, num_cells, dtype)
    assert shares.dtype == dtype
    assert_close(shares.double(), expected, rtol=0, atol=2 * torch.finfo(dtype).eps)


def test_a_large_map_in_float32_is_as_exact_as_float32():
    """Of a row of 4096 cells: strip coordinates reach 57344, where float32 resolves 1/256 cell."""
    scores = torch.rand(1, 14, 14, dtype=torch.float64) + 0.05
    regions = partition(scores, num_tokens=196, num_rows=14)
    tokens = torch.randn(1, 196, 1)
    painted = regions.to_map(tokens, (3, 4096))
    exact = regions.to_map(tokens.double(), (3, 4096))
    assert_close(painted.double(), exact, rtol=0, atol=3e-6)  # tokens ~ 3


def test_a_painted_map_is_the_mean_over_rectangles_at_the_size_of_a_decoder():
    scores = torch.rand(1, 14, 14, dtype=torch.float64) ** 2 + 0.02
    regions = partition(scores, num_tokens=49, num_rows=7)
    one = oracles.Partition(regions.row_edges[0].numpy(), regions.strip_edges[0].numpy())
    tokens = torch.randn(1, 49, 3, dtype=torch.float64)
    shares = oracles.overlaps(one, (32, 40)) * 32 * 40
    expected = np.einsum("nthw,nd->dthw", shares, tokens[0].numpy())[:, 0]
    painted = regions.to_map(tokens, (32, 40))
    assert painted.is_contiguous()
    assert_close(painted[0], torch.from_numpy(expected), rtol=0, atol=1e-10)
