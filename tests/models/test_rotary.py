"""Angles of points: the host's table on its grid, the definition between its points."""

import copy
import math

import numpy as np
import pytest
import torch
from timm.layers import pos_embed_sincos
from timm.layers.pos_embed_sincos import (
    FourierEmbed,
    RotaryEmbedding,
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    RotaryEmbeddingMixed,
)
from torch.testing import assert_close

from dartok.models.families.timm_rotary import rotary_of
from dartok.models.rotary import Augmentation, Axis, Rotary

GRID = (3, 5)
DIM = 16
HEADS, DEPTH = 2, 3


def cat(**options):
    return RotaryEmbeddingCat(DIM, feat_shape=GRID, **options)


def dinov3(**options):
    return RotaryEmbeddingDinoV3(DIM, feat_shape=GRID, **options)


def dinov3_columns_first():
    if not hasattr(pos_embed_sincos, "_build_grid"):
        pytest.skip("this timm lays such a table out column by column, against its tokens")
    return dinov3(grid_indexing="xy")


def mixed(**options):
    return RotaryEmbeddingMixed(DIM * HEADS, DEPTH, HEADS, feat_shape=GRID, **options)


def mrope(**options):
    kind = getattr(pos_embed_sincos, "RotaryEmbeddingMRope", None)
    if kind is None:
        pytest.skip("this timm has no RotaryEmbeddingMRope")
    return kind(DIM, mrope_section=(2, 3, 3), **options)


def only_newer_timm(make, **options):
    """A rope with options of newer timm, or a skip."""
    try:
        return make(**options)
    except TypeError:
        pytest.skip("this timm does not know these options")


ROPES = {
    "cells": lambda: cat(in_pixels=False),
    "cells, columns first": lambda: cat(in_pixels=False, grid_indexing="xy"),
    "cells of a reference": lambda: cat(in_pixels=False, ref_feat_shape=(6, 4)),
    "cells from 1, as of Perception Encoder": lambda: cat(
        in_pixels=False, grid_offset=1.0, grid_indexing="xy", ref_feat_shape=(24, 12)
    ),
    "pixels": lambda: cat(max_res=64),
    "pixels, linear": lambda: cat(max_res=32, linear_bands=True, grid_indexing="xy"),
    "centred": lambda: only_newer_timm(cat, in_pixels=False, grid_type="centered"),
    "centred of a reference": lambda: only_newer_timm(
        cat, in_pixels=False, grid_type="centered", ref_feat_shape=(6, 4), rotate_half=True
    ),
    "DINOv3": dinov3,
    "DINOv3 by the longer side": lambda: dinov3(normalize_coords="max", grid_offset=0.25),
    "DINOv3 by the shorter side": lambda: dinov3(normalize_coords="min"),
    "DINOv3, columns first": dinov3_columns_first,
    "DINOv3, periods, neighbours": lambda: dinov3(
        min_period=0.5, max_period=90.0, rotate_half=False
    ),
    "mixed": mixed,
    "mixed, rows first": lambda: mixed(grid_indexing="ij"),
    "multimodal": mrope,
}


def cell_centres(rows, columns):
    y, x = np.mgrid[0:rows, 0:columns]
    points = np.stack([(x + 0.5) / columns, (y + 0.5) / rows], -1).reshape(1, -1, 2)
    return torch.from_numpy(points)


def embedded(rotary, points):
    """`(blocks, B, heads, N, 2 * dim)`, or without blocks where they agree."""
    coordinates = rotary.coordinates(points)
    if rotary.freqs.ndim == 2:
        return rotary(coordinates)
    return torch.stack(list(rotary.for_blocks(coordinates, DEPTH)))


@pytest.mark.parametrize("name", ROPES)
@torch.no_grad()
def test_on_the_hosts_grid_the_table_is_the_hosts(name):
    rope = ROPES[name]()
    expected = rope.get_embed(GRID) if "multimodal" in name else rope.get_embed()
    actual = embedded(rotary_of("Host", rope, GRID), cell_centres(*GRID))
    assert_close(actual.squeeze(), expected.squeeze(), rtol=0, atol=5e-6)


def test_sine_and_cosine_apart_are_the_same_angles():
    rope = RotaryEmbedding(DIM, feat_shape=GRID)
    actual = rotary_of("Host", rope, GRID)
    actual = embedded(actual, cell_centres(*GRID)).squeeze()
    assert_close(actual, torch.cat(rope.get_embed(), -1), rtol=0, atol=5e-6)


def oracle_coordinates(points, grid, name):
    """By linear interpolation of the coordinates of the grid's cells, one axis at a time."""
    rows, columns = grid
    result = {}
    for axis, count, where in (("y", rows, points[..., 1]), ("x", columns, points[..., 0])):
        cells = np.arange(-1, count + 1, dtype=np.float64)  # one more at either end
        middles = (cells + 0.5) / count
        values = {
            "cells": cells,
            "cells, columns first": cells,
            "cells from 1, as of Perception Encoder": (cells + 1)
            * {"y": 24, "x": 12}[axis]
            / count,
            "pixels": -1 + 2 * cells / (count - 1),
            "DINOv3": 2 * middles - 1,
            "DINOv3 by the longer side": 2 * (cells + 0.5 + 0.25) / max(grid) - 1,
            "mixed": cells,
        }[name]
        result[axis] = np.interp(where, middles, values)
    return result


def oracle_angles(points, grid, name, rope):
    """Angle of each pair of channels, from the papers' definitions, in float64."""
    at = oracle_coordinates(points, grid, name)
    count = DIM // 4
    if name == "pixels":
        bands = math.pi * 2.0 ** np.linspace(0, math.log2(64) - 1, count)
    elif name.startswith("DINOv3"):
        bands = 2 * math.pi / 100.0 ** (np.arange(count) / count)
    else:
        bands = 10000.0 ** (-np.arange(count) / count)
    if name == "mixed":
        fx, fy = rope.freqs.detach().double().numpy()[:, 1]  # the second block's
        x, y = (at[axis][:, None, :, None] for axis in "xy")
        return x * fx[:, None] + y * fy[:, None]
    order = "xy" if "first" in name or "Encoder" in name else "yx"
    return np.concatenate([at[axis][..., None] * bands for axis in order], -1)[:, None]


@pytest.mark.parametrize(
    "name",
    [
        "cells",
        "cells, columns first",
        "cells from 1, as of Perception Encoder",
        "pixels",
        "DINOv3",
        "DINOv3 by the longer side",
        "mixed",
    ],
)
@torch.no_grad()
def test_between_the_grids_points_the_angles_are_the_oracles(name):
    rope = ROPES[name]()
    rotary = rotary_of("Host", rope, GRID)
    points = torch.rand(2, 7, 2, dtype=torch.float64) * 0.98 + 0.01
    angles = oracle_angles(points.numpy(), GRID, name, rope)
    turned = rotary(rotary.coordinates(points), block=1).double().numpy()
    sines, cosines = np.split(turned, 2, -1)
    for values, expected in ((sines, np.sin(angles)), (cosines, np.cos(angles))):
        if "DINOv3" in name:  # channels of a pair lie half a head apart
            first, second = np.split(values, 2, -1)
        else:
            first, second = values[..., ::2], values[..., 1::2]
        np.testing.assert_array_equal(first, second)
        np.testing.assert_allclose(first, expected, rtol=0, atol=2e-5)


def test_gradients_reach_the_points_and_the_learned_frequencies():
    rotary = rotary_of("Host", mixed(), GRID).double()
    points = torch.rand(1, 2, 2, dtype=torch.float64, requires_grad=True)

    def angles(points, freqs):
        values = {"freqs": freqs}
        return torch.func.functional_call(rotary, values, (rotary.coordinates(points), 1))

    assert torch.autograd.gradcheck(angles, (points, rotary.freqs))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halving_a_model_leaves_the_frequencies_exact(dtype):
    rotary = rotary_of("Host", cat(in_pixels=False), GRID)
    exact = rotary.freqs.clone()
    assert torch.equal(copy.deepcopy(rotary).to(dtype).freqs, exact)
    assert rotary.double().freqs.dtype == torch.float64


@pytest.mark.parametrize("factory", [cat, mixed, dinov3, mrope])
def test_training_moves_the_coordinates_as_the_host_does(factory):
    limits = {"shift_coords": 0.5, "jitter_coords": 1.5, "rescale_coords": 2.0}
    rope = only_newer_timm(factory, **limits).train()
    rotary = rotary_of("Host", rope, GRID).train()
    torch.manual_seed(5)
    expected = rope.get_embed(GRID) if factory is mrope else rope.get_embed()
    torch.manual_seed(5)
    points = cell_centres(*GRID).float()  # as the host's: doubles would draw other numbers
    actual = embedded(rotary, points)
    assert_close(actual.squeeze(), expected.squeeze(), rtol=0, atol=2e-5)
    assert not torch.allclose(actual, embedded(rotary.eval(), points), atol=1e-3)


def test_a_move_of_coordinates_stays_within_its_limits():
    points = torch.ones(1000, 1, 2)
    for limits, low, high in [
        (Augmentation(shift=0.5), 0.5, 1.5),
        (Augmentation(jitter=2.0), 0.5, 2.0),
        (Augmentation(rescale=4.0), 0.25, 4.0),
    ]:
        moved = torch.stack([limits.moved(one) for one in points])
        assert moved.min() >= low
        assert moved.max() <= high
        assert moved.min() < low + 0.1
        assert moved.max() > high - 0.1
        together = limits.rescale is not None
        assert bool((moved[..., 0] == moved[..., 1]).all()) == together


def test_learned_frequencies_are_the_hosts_own_and_do_not_decay():
    rope = mixed()
    rotary = rotary_of("Host", rope, GRID)
    assert rotary.freqs is rope.freqs
    assert rotary.no_weight_decay() == {"freqs"}
    assert rotary_of("Host", cat(), GRID).no_weight_decay() == set()
    assert rotary_of("Host", cat(), GRID).state_dict() == {}


def test_a_rotary_module_says_what_it_turns_by():
    rotary = Rotary(torch.ones(2, 4), (Axis("y", 3, -0.5), Axis("x", 5, -0.5)), halves=True)
    assert "axes=(Axis(of='y', scale=3, offset=-0.5)" in repr(rotary)


@pytest.mark.refuses
def test_unknown_rotary_positions_are_refused_by_name():
    with pytest.raises(
        ValueError, match="cannot carry over Host: its rope is a FourierEmbed, whose"
    ):
        rotary_of("Host", FourierEmbed(), GRID)
