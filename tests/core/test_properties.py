"""What holds for every image, budget and score map, however extreme."""

from typing import NamedTuple

import numpy as np
import oracles
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dartok.core.partition import default_num_rows, partition
from dartok.core.regions import Regions
from dartok.core.sampling import sample_regions

SIDES_PX = st.integers(17, 700)
SCORE_SIDES = st.integers(1, 56)
BUDGETS = st.one_of(st.integers(1, 20), st.integers(1, 1024))
STYLES = st.sampled_from(["constant", "random", "hot", "wide"])


class Case(NamedTuple):
    """One partition, and the size of the images it is for."""

    kind: str
    scores: Tensor
    regions: Regions
    height_px: int
    width_px: int


def make_scores(style: str, shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
    if style == "constant":
        scores = torch.full(shape, 0.1 + seed % 7, dtype=torch.float64)
    elif style == "random":
        scores = uniform + 0.01
    elif style == "wide":  # six decades
        scores = 10 ** (6 * uniform - 3)
    else:
        scores = torch.full(shape, 1e-6, dtype=torch.float64)
        scores.view(-1)[seed % scores.numel()] = 1.0
    return scores.to(dtype)


@st.composite
def cases(draw, kinds=("flow", "grid"), styles=STYLES) -> Case:
    kind = draw(st.sampled_from(kinds))
    height_px, width_px = draw(SIDES_PX), draw(SIDES_PX)
    num_frames = draw(st.sampled_from([1, 1, 2, 3]))
    num_tokens = draw(BUDGETS)
    if kind == "grid":
        num_tokens = num_frames * max(1, num_tokens // num_frames)
    num_rows = default_num_rows(num_tokens, height_px, width_px, kind=kind, num_frames=num_frames)
    if kind == "flow" and draw(st.booleans()):
        num_rows = draw(st.integers(1, num_tokens))
    shape = (1, num_frames, draw(SCORE_SIDES), draw(SCORE_SIDES))
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    scores = make_scores(draw(styles), shape, draw(st.integers(0, 2**31)), dtype)
    regions = partition(scores, num_tokens=num_tokens, num_rows=num_rows, kind=kind)
    return Case(kind, scores, regions, height_px, width_px)


def numpy_of(regions: Regions) -> oracles.Partition:
    return oracles.Partition(regions.row_edges[0].numpy(), regions.strip_edges[0].numpy())


@settings(max_examples=150)
@given(cases())
def test_edges_increase_and_areas_sum_to_one(case):
    regions = case.regions
    rows, strip = regions.row_edges, regions.strip_edges
    assert rows.isfinite().all()
    assert strip.isfinite().all()
    assert (rows.diff(dim=-1) > 0).all()
    assert (strip.diff(dim=-1) > 0).all()
    assert rows[..., 0].eq(0).all()
    assert rows[..., -1].eq(1).all()
    assert strip[0, 0] == 0
    assert strip[0, -1] == regions.num_frames * regions.num_rows
    areas = regions.areas()
    assert (areas > 0).all()
    assert_close(areas.sum(1), torch.ones(1, dtype=areas.dtype), rtol=0, atol=1e-12)
    boxes = regions.pieces().boxes_xyxy
    sides = (boxes[..., 2:] - boxes[..., :2]).prod(-1)
    assert (sides >= 0).all()
    assert_close(sides.sum(1), torch.full((1,), regions.num_frames).to(sides), rtol=0, atol=1e-11)


@settings(max_examples=80)
@given(cases(kinds=("flow",)))
def test_flow_gives_every_row_and_every_region_the_same_mass(case):
    scores, own = case.scores[0].double().numpy(), numpy_of(case.regions)
    masses = oracles.mass_per_region(scores, own)
    assert abs(masses / masses.mean() - 1).max() < 1e-4
    for frame, edges in zip(scores, own.row_edges, strict=True):
        rows = mass_between(edges * len(frame), frame.sum(1))
        assert abs(rows / rows.mean() - 1).max() < 1e-4


@settings(max_examples=80)
@given(cases(kinds=("grid",)))
def test_grid_gives_every_row_and_every_column_the_same_mass(case):
    scores, own = case.scores[0].double().numpy(), numpy_of(case.regions)
    num_rows = case.regions.num_rows
    lattice = np.reshape(own.strip_edges[1:], (len(scores), num_rows, -1))
    lattice = lattice - np.arange(len(scores) * num_rows).reshape(len(scores), num_rows, 1)
    for frame, edges, columns in zip(scores, own.row_edges, lattice, strict=True):
        assert abs(columns - columns[0]).max() < 1e-12
        for own_edges, density in (
            (edges, frame.sum(1)),
            (np.concatenate([[0.0], columns[0]]), frame.sum(0)),
        ):
            mass = mass_between(own_edges * len(density), density)
            assert abs(mass / mass.mean() - 1).max() < 1e-4


def mass_between(edges_cells: np.ndarray, density: np.ndarray) -> np.ndarray:
    """Mass of a density, constant on each cell, between consecutive edges."""
    total = np.concatenate([[0.0], np.cumsum(density)])
    return np.diff(np.interp(edges_cells, np.arange(len(total)), total))


@settings(max_examples=40)
@given(cases())
def test_every_pixel_lies_in_exactly_one_region(case):
    regions, own = case.regions, numpy_of(case.regions)
    labels = regions.label_map((case.height_px, case.width_px))[0]
    assert labels.shape == (regions.num_frames, case.height_px, case.width_px)
    assert labels.min() >= 0
    assert labels.max() < regions.num_tokens
    assert (labels.diff(dim=-1) >= 0).all()  # along a pixel row
    same_band = (labels.diff(dim=1) == 0).all(-1)
    next_band = labels[:, 1:, 0] >= labels[:, :-1, -1]  # goes on where the band above ended
    assert (same_band | next_band).all()
    assert (labels[1:, 0, 0] >= labels[:-1, -1, -1]).all()  # and so does the next frame
    for y, x in np.random.default_rng(0).integers(0, (case.height_px, case.width_px), (20, 2)):
        for frame in range(regions.num_frames):
            strip = strip_coordinate(own.row_edges, frame, case, y, x)
            holds = (own.strip_edges[:-1] <= strip) & (strip < own.strip_edges[1:])
            assert holds.sum() == 1
            assert holds.argmax() == labels[frame, y, x]


def strip_coordinate(row_edges: np.ndarray, frame: int, case: Case, y: int, x: int) -> float:
    centre = (y + 0.5) / case.height_px
    row = sum(top <= centre for top in row_edges[frame, :-1]) - 1
    return (frame * case.regions.num_rows + row) + (x + 0.5) / case.width_px


@settings(max_examples=40)
@given(cases(), st.sampled_from(["centred", "corner"]), st.integers(1, 5), st.integers(1, 3))
def test_patches_are_means_of_pixels_and_their_gradients_are_finite(
    case, sampling, side, oversample
):
    scores = case.scores.clone().requires_grad_()
    regions = partition(
        scores,
        num_tokens=case.regions.num_tokens,
        num_rows=case.regions.num_rows,
        kind=case.kind,
    )
    images = torch.rand(1, case.regions.num_frames, 1, case.height_px, case.width_px) + 1
    patches = sample_regions(
        images, regions, (side, side), sampling=sampling, oversample=oversample
    )
    assert patches.shape == (1, regions.num_tokens, 1, side, side)
    assert patches.max() <= images.max() + 1e-5
    assert patches.min() >= (0 if sampling == "corner" else images.min()) - 1e-5
    patches.square().sum().backward()
    assert scores.grad.isfinite().all()


@settings(max_examples=30)
@given(cases(styles=st.just("constant")))
def test_constant_scores_give_the_plain_grid(case):
    regions = case.regions
    rows = torch.arange(regions.num_rows + 1).double() / regions.num_rows
    assert_close(regions.row_edges, rows.expand_as(regions.row_edges), rtol=0, atol=1e-12)
    steps = torch.arange(regions.num_tokens + 1).double() / regions.num_tokens
    strip = (steps * regions.num_frames * regions.num_rows)[None]
    assert_close(regions.strip_edges, strip, rtol=0, atol=1e-9)


@settings(max_examples=25)
@given(cases(), st.integers(1, 16), st.integers(1, 16))
def test_maps_and_tokens_are_an_adjoint_pair_that_keeps_constants(case, height, width):
    regions = case.regions
    frames = () if regions.num_frames == 1 else (regions.num_frames,)
    tokens = torch.randn(1, regions.num_tokens, 2, dtype=torch.float64)
    values = torch.randn(1, 2, *frames, height, width, dtype=torch.float64)
    painted, pooled = regions.to_map(tokens, (height, width)), regions.to_tokens(values)
    over_cells = (painted * values).sum(1).mean()
    over_regions = (regions.areas() * (tokens * pooled).sum(-1)).sum()
    assert_close(over_cells, over_regions, rtol=0, atol=1e-10)
    ones = torch.ones_like(tokens)
    assert_close(regions.to_map(ones, (height, width)), torch.ones_like(values), rtol=0, atol=1e-9)
    for measure in ("area", "strip"):
        back = regions.to_tokens(torch.ones_like(values), measure=measure)
        assert_close(back, ones, rtol=0, atol=1e-12)
