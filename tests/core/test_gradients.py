"""Every step from scores to patches, and the pair map <-> tokens, against finite differences."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from dartok.core.partition import partition
from dartok.core.quantiles import quantile_edges
from dartok.core.regions import Regions
from dartok.core.sampling import sample_regions

CASES = [  # kind, frames, map height, map width, tokens, rows, image height, image width
    ("flow", 1, 4, 4, 6, 2, 12, 12),
    ("flow", 1, 3, 5, 5, 3, 9, 16),
    ("flow", 2, 4, 3, 7, 2, 14, 8),
    ("flow", 2, 3, 3, 3, 3, 8, 8),
    ("grid", 1, 4, 4, 6, 2, 12, 12),
    ("grid", 1, 5, 3, 6, 3, 16, 9),
    ("grid", 2, 4, 3, 8, 2, 14, 8),
    ("grid", 2, 3, 3, 4, 2, 8, 8),
    ("authors", 1, 4, 4, 6, 2, 12, 12),
]


def leaf(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64).add(0.2).requires_grad_()


def frames_of(num_frames: int) -> tuple[int, ...]:
    """The frame axis of clips; images have none."""
    return () if num_frames == 1 else (num_frames,)


def pictures(case: tuple) -> Tensor:
    shape = (2, *frames_of(case[1]), 1, *case[6:])
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("num_regions", [1, 3, 9])
def test_gradients_of_quantile_edges_are_exact(num_regions):
    assert gradcheck(lambda density: quantile_edges(density, num_regions), leaf(2, 5))


@pytest.mark.parametrize("sampling", ["centred", "corner"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_from_scores_and_images_to_patches_are_exact(case, sampling):
    kind, num_frames, height, width, num_tokens, num_rows = case[:6]

    def patches(scores: Tensor, images: Tensor) -> Tensor:
        regions = partition(scores, num_tokens=num_tokens, num_rows=num_rows, kind=kind)
        return sample_regions(images, regions, (2, 3), sampling=sampling)

    assert gradcheck(patches, (leaf(2, *frames_of(num_frames), height, width), pictures(case)))


def test_gradients_of_oversampled_patches_are_exact():
    def patches(scores: Tensor) -> Tensor:
        regions = partition(scores, num_tokens=4, num_rows=2)
        return sample_regions(images, regions, (2, 2), oversample=2)

    images = torch.randn(1, 1, 11, 13, dtype=torch.float64)
    assert gradcheck(patches, leaf(1, 3, 4))


def with_frames(values: Tensor, num_frames: int) -> Tensor:
    return values[:, :, 0] if num_frames == 1 else values


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients_of_map_to_tokens_and_back_are_exact(case):
    kind, num_frames, height, width, num_tokens, num_rows = case[:6]

    def regions_of(scores: Tensor) -> Regions:
        return partition(scores, num_tokens=num_tokens, num_rows=num_rows, kind=kind)

    def paint(tokens: Tensor, scores: Tensor) -> Tensor:
        return regions_of(scores).to_map(tokens, (3, 4))

    def pool(values: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
        maps, regions = with_frames(values, num_frames), regions_of(scores)
        return regions.to_tokens(maps), regions.to_tokens(maps, measure="strip")

    scores = leaf(2, *frames_of(num_frames), height, width)
    assert gradcheck(paint, (leaf(2, num_tokens, 2), scores))
    assert gradcheck(pool, (leaf(2, 2, num_frames, 3, 4), scores))


@pytest.mark.parametrize("num_frames", [1, 2])
def test_gradients_of_the_pair_with_respect_to_each_edge_are_exact(num_frames):
    scores = leaf(2, num_frames, 4, 3)
    with torch.no_grad():  # of flow: a grid's edges lie on row ends, where there is a kink
        rows, strip, _ = partition(scores, num_tokens=5, num_rows=2)

    def regions_of(inner_rows: Tensor, inner_strip: Tensor) -> Regions:
        # the outer edges are constants: an edge outside the picture is outside the domain
        return Regions(
            torch.cat([rows[..., :1], inner_rows, rows[..., -1:]], dim=-1),
            torch.cat([strip[:, :1], inner_strip, strip[:, -1:]], dim=-1),
        )

    def paint(tokens: Tensor, inner_rows: Tensor, inner_strip: Tensor) -> Tensor:
        return regions_of(inner_rows, inner_strip).to_map(tokens, (3, 4))

    def pool(values: Tensor, inner_rows: Tensor, inner_strip: Tensor) -> Tensor:
        return regions_of(inner_rows, inner_strip).to_tokens(with_frames(values, num_frames))

    inner = rows[..., 1:-1].clone().requires_grad_(), strip[:, 1:-1].clone().requires_grad_()
    assert gradcheck(paint, (leaf(2, 5, 2), *inner))
    assert gradcheck(pool, (leaf(2, 2, num_frames, 3, 4), *inner))


@pytest.mark.parametrize("kind", ["flow", "grid"])
def test_gradients_of_areas_boxes_and_centres_are_exact(kind):
    def answers(scores: Tensor) -> tuple[Tensor, ...]:
        regions = partition(scores, num_tokens=8, num_rows=2, kind=kind)
        return regions.areas(), regions.boxes(), regions.centres(), regions.pieces().boxes_xyxy

    assert gradcheck(answers, leaf(1, 2, 3, 4))


@pytest.mark.parametrize("style", ["constant", "hot", "wide"])
@pytest.mark.parametrize("kind", ["flow", "grid"])
def test_gradients_are_finite_where_edges_tie_or_scores_are_extreme(kind, style):
    scores = torch.ones(1, 6, 6)
    if style == "hot":
        scores = scores * 1e-6
        scores[0, 2, 4] = 1.0
    if style == "wide":
        scores = 10 ** (6 * torch.rand(1, 6, 6) - 3)
    scores.requires_grad_()
    regions = partition(scores, num_tokens=36, num_rows=6, kind=kind)
    sample_regions(torch.randn(1, 3, 30, 40), regions, (4, 4)).square().sum().backward()
    assert scores.grad.isfinite().all()
