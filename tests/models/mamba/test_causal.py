"""The mixer that reads forwards: as it is written down, and in parts."""

import mamba_oracles
import numpy as np
import pytest
import torch
from deterministic import fill
from refusals import refused
from torch.testing import assert_close

from dartok.models.mamba.block import MambaBlock
from dartok.models.mamba.causal import CausalMixer
from dartok.models.mamba.mixer import BidirectionalMixer

WIDTH = 24


def filled():
    return fill(CausalMixer(WIDTH))


def tokens_of(length, dtype=torch.float64):
    return torch.randn(2, length, WIDTH, dtype=dtype)


def oracle(mixer, tokens):
    """The reading direction forwards, alone."""
    w = mamba_oracles.weights_of(mixer)
    projected = tokens @ w["in_proj.weight"].T
    x, z = np.split(projected, 2, axis=1)
    return mamba_oracles.one_direction(w, "", x, z) @ w["out_proj.weight"].T


def in_parts(mixer, tokens, sizes):
    state, outputs = None, []
    for part in tokens.split(sizes, dim=1):
        mixed, state = mixer.resume(part, state)
        outputs.append(mixed)
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-13), (torch.float32, 5e-6)])
@torch.no_grad()
def test_the_mixer_is_the_one_of_the_oracle(dtype, atol):
    mixer, tokens = filled(), tokens_of(9)
    expected = np.stack([oracle(mixer, one) for one in tokens.numpy()])
    actual = mixer.to(dtype)(tokens.to(dtype)).double()
    assert_close(actual, torch.from_numpy(expected), rtol=0, atol=atol)


def test_its_parameters_are_those_of_both_directions_without_the_second():
    both = BidirectionalMixer(WIDTH).state_dict()
    forward = {name: value.shape for name, value in both.items() if "_b" not in name}
    found = {name: value.shape for name, value in CausalMixer(WIDTH).state_dict().items()}
    assert found == forward
    assert len(found) == 9


@torch.no_grad()
def test_a_token_changes_itself_and_those_behind_it_alone():
    mixer, tokens = filled(), tokens_of(7)
    for changed in range(7):
        other = tokens.clone()
        other[:, changed] += 1
        moved = (mixer(other) - mixer(tokens)).abs().amax((0, 2)) > 1e-9
        assert moved.tolist() == [place >= changed for place in range(7)]


@pytest.mark.parametrize("sizes", [[1] * 23, [23], [2, 1, 20], [20, 2, 1], [11, 12]])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@torch.no_grad()
def test_parts_of_any_size_give_what_the_whole_gives(sizes, dtype, atol):
    mixer, tokens = filled().to(dtype), tokens_of(23, dtype)
    assert_close(in_parts(mixer, tokens, sizes), mixer(tokens), rtol=0, atol=atol)


@torch.no_grad()
def test_a_state_has_one_size_and_can_be_used_twice():
    mixer, tokens = filled(), tokens_of(12)
    _, early = mixer.resume(tokens[:, :2])
    _, state = mixer.resume(tokens[:, 2:9], early)
    assert [tuple(part.shape) for part in state] == [(2, 3, 2 * WIDTH), (2, 2 * WIDTH, 16)]
    assert [part.shape for part in state] == [part.shape for part in early]
    kept = [part.clone() for part in state]
    first, second = (mixer.resume(tokens[:, 9:], state)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(*pair) for pair in zip(kept, state, strict=True))


def test_gradients_reach_the_parts_before():
    mixer, tokens = filled(), tokens_of(8).requires_grad_()
    in_parts(mixer, tokens, [3, 5])[:, -1].sum().backward()
    found = tokens.grad.clone()
    tokens.grad = None
    mixer(tokens)[:, -1].sum().backward()
    assert_close(found, tokens.grad, rtol=0, atol=1e-12)
    assert (found[:, :3].abs().amax(-1) > 0).all()


@torch.no_grad()
def test_what_lies_behind_a_sequences_end_changes_nothing_before_it():
    mixer, tokens = filled(), tokens_of(9)
    padded = tokens.clone()
    padded[0, 4:] = 1e6
    found = mixer(padded, torch.tensor([4, 9]))
    assert_close(found[0, :4], mixer(tokens)[0, :4], rtol=0, atol=1e-12)


@torch.no_grad()
def test_half_precision_is_close_in_parts_too():
    """Relative error 2e-2: bfloat16 rounds to 4e-3, and each part's state is rounded once more."""
    mixer = CausalMixer(WIDTH).eval()
    tokens = tokens_of(20, torch.float32)
    expected = mixer(tokens)
    found = in_parts(mixer.bfloat16(), tokens.bfloat16(), [5] * 4)
    assert found.dtype == torch.bfloat16
    assert float((found.float() - expected).norm() / expected.norm()) < 2e-2


@torch.no_grad()
def test_a_block_in_parts_is_the_block():
    block = fill(MambaBlock(WIDTH, directions="forward"))
    hidden, residual = torch.randn(2, 2, 9, WIDTH, dtype=torch.float64)
    expected = block(hidden, residual)
    first, before, state = block.resume(hidden[:, :4], residual[:, :4])
    second, behind, _ = block.resume(hidden[:, 4:], residual[:, 4:], state)
    found = torch.cat([first, second], dim=1), torch.cat([before, behind], dim=1)
    assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.refuses
def test_states_and_directions_that_do_not_fit_are_refused():
    mixer = filled()
    _, state = mixer.resume(tokens_of(2))
    with refused(
        "state must be of the batch and width of tokens, with inputs (1, 3, 48), got (2, 3, 48); "
        "keep one for each stream"
    ):
        mixer.resume(tokens_of(2)[:1], state)
    with refused(
        "parts of a sequence need directions='forward', got a block that reads in both; build the "
        "model with it"
    ):
        MambaBlock(WIDTH).resume(tokens_of(2, torch.float32))
    with refused("directions must be one of both, forward, got 'backward'"):
        MambaBlock(WIDTH, directions="backward")
