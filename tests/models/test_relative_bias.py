"""Bias between points: the table on the grid, bilinear between, the outermost entry beyond."""

import numpy as np
import pytest
import torch
from timm.layers import RelPosBias, RelPosMlp
from timm.models.beit import RelativePositionBias
from torch import nn
from torch.testing import assert_close

from dartok.models.relative_bias import MlpBias, TableBias, bias_between

GRID = (3, 4)
HEADS = 2


def cell_centres(rows, columns):
    y, x = np.mgrid[0:rows, 0:columns]
    points = np.stack([(x + 0.5) / columns, (y + 0.5) / rows], -1).reshape(1, -1, 2)
    return torch.from_numpy(points)


def oracle(table, query, key):
    """One bias, by the four entries around the difference of two points (x, y)."""
    rows, columns = (np.array(table.shape) + 1) // 2
    down = np.clip((query[1] - key[1]) * rows, 1 - rows, rows - 1) + rows - 1
    right = np.clip((query[0] - key[0]) * columns, 1 - columns, columns - 1) + columns - 1
    total = 0.0
    for i in range(table.shape[0]):
        for j in range(table.shape[1]):
            total += max(0, 1 - abs(down - i)) * max(0, 1 - abs(right - j)) * table[i, j]
    return total


def test_between_whole_cells_the_table_is_read_bilinearly():
    table = torch.randn(HEADS, 5, 7)
    points = torch.rand(2, 6, 2, dtype=torch.float64)
    actual = bias_between(table, points).numpy()
    for image in range(2):
        for head in range(HEADS):
            for i in range(6):
                for j in range(6):
                    one, other = points[image, i].numpy(), points[image, j].numpy()
                    expected = oracle(table[head].double().numpy(), one, other)
                    assert abs(actual[image, head, i, j] - expected) < 1e-5


@pytest.mark.parametrize("num_prefix", [0, 1])
@torch.no_grad()
def test_on_the_hosts_grid_a_table_gives_the_hosts_bias(num_prefix):
    host = RelPosBias(GRID, HEADS, prefix_tokens=num_prefix)
    bias = TableBias(host.relative_position_bias_table, GRID, num_prefix)
    actual = bias(cell_centres(*GRID))
    assert_close(actual, host.get_bias(), rtol=0, atol=1e-6)


@torch.no_grad()
def test_on_the_hosts_grid_beits_shared_table_gives_the_hosts_bias():
    host = RelativePositionBias(GRID, HEADS)
    nn.init.normal_(host.relative_position_bias_table)
    bias = TableBias(host.relative_position_bias_table, GRID, 1)
    assert_close(bias(cell_centres(*GRID))[0], host(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["cr", "swin"])
@pytest.mark.parametrize("num_prefix", [0, 1])
@torch.no_grad()
def test_on_the_hosts_grid_a_network_gives_the_hosts_bias(mode, num_prefix):
    host = RelPosMlp(GRID, HEADS, prefix_tokens=num_prefix, mode=mode).eval()
    actual = MlpBias(host)(cell_centres(*GRID))
    assert_close(actual, host.get_bias(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grid", [(1, 4), (3, 1), (1, 1)])
@torch.no_grad()
def test_a_grid_may_be_one_cell_across(grid):
    host = RelPosBias(grid, HEADS)
    bias = TableBias(host.relative_position_bias_table, grid, 0)
    assert_close(bias(cell_centres(*grid)), host.get_bias(), rtol=0, atol=1e-6)


def test_gradients_reach_the_points_and_the_table():
    table = torch.randn(HEADS, 5, 7, requires_grad=True)
    points = torch.rand(1, 5, 2, dtype=torch.float64, requires_grad=True)
    bias_between(table, points).square().sum().backward()
    assert (points.grad.abs() > 0).all()
    assert table.grad.abs().sum() > 0
    step = 1e-4
    direction = torch.randn_like(points)
    with torch.no_grad():
        moved = [bias_between(table, points + s * step * direction) for s in (1, -1)]
        slope = (moved[0].square().sum() - moved[1].square().sum()) / (2 * step)
    assert_close(float((points.grad * direction).sum()), float(slope), rtol=0.05, atol=0.05)
