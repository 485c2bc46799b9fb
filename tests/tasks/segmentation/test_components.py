"""Connected pieces against a flood fill."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dartok.tasks.segmentation.components import connected_components


def flood_fill(labels):
    """Numbers from 0 in order of first pixels, by the definition."""
    height, width = len(labels), len(labels[0])
    numbers = [[-1] * width for _ in range(height)]
    count = 0
    for y, x in ((y, x) for y in range(height) for x in range(width)):
        if numbers[y][x] >= 0:
            continue
        todo = [(y, x)]
        numbers[y][x] = count
        while todo:
            row, column = todo.pop()
            for r in range(max(0, row - 1), min(height, row + 2)):
                for c in range(max(0, column - 1), min(width, column + 2)):
                    if numbers[r][c] < 0 and labels[r][c] == labels[y][x]:
                        numbers[r][c] = count
                        todo.append((r, c))
        count += 1
    return numbers


@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(min_value=0, max_value=10**6),
)
@settings(max_examples=150, deadline=None)
def test_pieces_are_those_of_a_flood_fill(height, width, num_labels, seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_labels, (height, width), generator=generator)
    assert connected_components(labels).tolist() == flood_fill(labels.tolist())


@pytest.mark.parametrize("turned", [False, True])
def test_a_spiral_is_one_piece(turned):
    size = 41
    labels = torch.zeros(size, size, dtype=torch.long)
    for ring in range(0, size // 2, 2):
        labels[ring, ring : size - ring] = 1
        labels[ring : size - ring, size - ring - 1] = 1
        labels[size - ring - 1, ring : size - ring] = 1
        labels[ring + 2 : size - ring, ring] = 1
        labels[ring + 2, ring : ring + 3] = 1
    labels = labels.T.contiguous() if turned else labels
    assert connected_components(labels).tolist() == flood_fill(labels.tolist())
