"""Order within a sequence: the class token's place, and reading backwards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from dartok.models.mamba.sequence import (
    class_first,
    place_of,
    reversed_within,
    with_class_token,
)

shapes = st.tuples(st.integers(1, 4), st.integers(1, 9))


def numbered(batch, length):
    """Tokens that tell where they came from."""
    return torch.arange(1.0, batch * length * 2 + 1).reshape(batch, length, 2)


@st.composite
def sequences(draw):
    """Tokens, and a place of the class token among them: one for all, or for each."""
    batch, length = draw(shapes)
    places = st.integers(0, length)
    if draw(st.booleans()):
        return numbered(batch, length), draw(places)
    each = draw(st.lists(places, min_size=batch, max_size=batch))
    return numbered(batch, length), torch.tensor(each)


def each_place(place, batch):
    return place.tolist() if isinstance(place, torch.Tensor) else [place] * batch


@given(sequences())
def test_the_class_token_stands_at_its_place_and_the_others_keep_their_order(case):
    tokens, place = case
    one = torch.full((1, 1, 2), -1.0)
    found = with_class_token(tokens, one, place)
    for row, others, index in zip(found, tokens, each_place(place, len(tokens)), strict=True):
        assert_close(row, torch.cat([others[:index], one[0], others[index:]]), rtol=0, atol=0)


@given(sequences())
def test_class_first_is_the_inverse(case):
    tokens, place = case
    one = torch.randn(len(tokens), 1, 2)
    sequence = with_class_token(tokens, one, place)
    assert torch.equal(class_first(sequence, place), torch.cat([one, tokens], dim=1))


@given(shapes, st.data())
def test_reversing_is_its_own_inverse_and_leaves_the_padding(shape, data):
    batch, length = shape
    each = st.lists(st.integers(1, length), min_size=batch, max_size=batch)
    lengths = data.draw(st.none() | each.map(torch.tensor))
    sequence = numbered(batch, length)
    found = reversed_within(sequence, lengths)
    assert torch.equal(reversed_within(found, lengths), sequence)
    for row, before, end in zip(
        found, sequence, each_place(length if lengths is None else lengths, batch), strict=True
    ):
        assert torch.equal(row[:end], before[:end].flip(0))
        assert torch.equal(row[end:], before[end:])


@pytest.mark.parametrize(("where", "places"), [("middle", [98, 0, 3]), ("first", [0, 0, 0])])
def test_the_place_follows_the_number_of_tokens(where, places):
    counts = [196, 1, 7]
    assert [place_of(where, count) for count in counts] == places
    assert place_of(where, torch.tensor(counts)).tolist() == places


def test_a_sequence_of_more_than_two_dimensions_is_reversed_whole():
    sequence = torch.randn(2, 3, 4, 5)
    found = reversed_within(sequence, torch.tensor([2, 3]))
    assert torch.equal(found[0], sequence[0][[1, 0, 2]])
    assert torch.equal(found[1], sequence[1].flip(0))


def test_gradients_go_back_to_where_the_tokens_came_from():
    tokens = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    one = torch.randn(1, 1, 2, dtype=torch.float64, requires_grad=True)
    place = torch.tensor([1, 3])

    def there_and_back(tokens, one):
        sequence = with_class_token(tokens, one, place)
        return class_first(reversed_within(sequence, torch.tensor([4, 2])), place)

    assert torch.autograd.gradcheck(there_and_back, (tokens, one))
