"""Quantile edges with a number of regions for each density: those that it has alone."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dartok.core.quantiles import cell_of, counted_edges, quantile_edges


def padded(density: torch.Tensor, cells: int) -> torch.Tensor:
    return torch.nn.functional.pad(density, (0, cells - density.shape[-1]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counted_edges_are_those_of_each_density_alone_and_then_its_end(dtype):
    lengths, counts = [9, 4, 13, 1], [5, 1, 12, 3]
    densities = [torch.rand(length, dtype=dtype) + 0.01 for length in lengths]
    batch = torch.stack([padded(density, 13) for density in densities])
    edges = counted_edges(batch, torch.tensor(counts), 12, ends=torch.tensor(lengths))
    assert edges.shape == (4, 13)
    for density, length, count, row in zip(densities, lengths, counts, edges, strict=True):
        assert_close(row[: count + 1], quantile_edges(density, count), rtol=0, atol=2e-6)
        assert (row[count:] == length).all()


def test_counted_edges_match_interpolation_in_numpy():
    density, counts = torch.rand(3, 20, dtype=torch.float64) + 0.1, [7, 20, 13]
    edges = counted_edges(density, torch.tensor(counts), 20, ends=torch.tensor([20] * 3))
    for row, values, count in zip(edges.numpy(), density.numpy(), counts, strict=True):
        mass = np.concatenate([[0.0], np.cumsum(values)])
        expected = np.interp(np.linspace(0, mass[-1], count + 1), mass, np.arange(21))
        np.testing.assert_allclose(row[: count + 1], expected, rtol=0, atol=1e-12)


def test_the_gradient_of_counted_edges_is_exact_and_none_reaches_the_padding():
    density = (torch.rand(2, 6, dtype=torch.float64) + 0.1).requires_grad_()
    counts, ends = torch.tensor([3, 5]), torch.tensor([6, 6])
    assert torch.autograd.gradcheck(lambda d: counted_edges(d, counts, 5, ends=ends), density)
    (gradient,) = torch.autograd.grad(
        counted_edges(density, counts, 5, ends=ends)[0, 3:].sum(), density
    )
    assert gradient.count_nonzero() == 0


@pytest.mark.parametrize("cells", [1, 7, 300])
def test_an_exported_graph_finds_the_same_cells(cells, monkeypatch):
    mass = (torch.rand(2, 5, cells) + 1e-3).cumsum(-1)
    inside = torch.rand(2, 5, 40) * mass[..., -1:]
    target = torch.cat([inside, mass, mass * 1.01], dim=-1)  # within, on an edge, beyond
    expected = cell_of(mass, target)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    assert torch.equal(cell_of(mass, target), expected)
