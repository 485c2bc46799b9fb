"""The block: the authors' numbers, the residual's width, stochastic depth, padding."""

import json
import zlib
from pathlib import Path

import mamba_oracles
import numpy as np
import pytest
import torch
from deterministic import fill
from golden_models import authors_state, largest, numbers
from torch.testing import assert_close

from dartok.models.mamba.block import MambaBlock

GOLDEN = Path(__file__).parents[2] / "golden" / "vim_block.json"
SALT = "public/unit/mamba_block"


@pytest.fixture
def authors_block(shared_golden, filler):
    """A block with the authors' weights, and their numbers, in float64."""
    golden = numbers(shared_golden / "units/mamba_block.npz")
    block = MambaBlock(golden["hidden_in"].shape[2]).double()
    spec = json.loads(str(golden["spec"]))
    block.load_state_dict(authors_state(spec, SALT, filler, torch.float64), strict=True)
    return block, golden


def inputs(golden):
    return [
        torch.from_numpy(golden[name]).double().requires_grad_()
        for name in ("hidden_in", "residual_in")
    ]


def test_hidden_residual_and_every_gradient_are_the_authors(authors_block):
    block, golden = authors_block
    hidden_in, residual_in = inputs(golden)
    hidden, residual = block(hidden_in, residual_in)
    assert largest(hidden, golden["hidden_out"]) < 1e-9
    assert largest(residual, golden["residual_out"]) < 1e-9
    (hidden.square().sum() + residual.sum()).backward()
    assert largest(hidden_in.grad, golden["d_hidden"]) < 1e-9
    assert largest(residual_in.grad, golden["d_residual"]) < 1e-9
    names = {name for name, _ in block.named_parameters()}
    assert names == {key.removeprefix("grad/") for key in golden if key.startswith("grad/")}
    for name in names:
        assert largest(block.get_parameter(name).grad, golden[f"grad/{name}"]) < 1e-9, name


@torch.no_grad()
def test_the_first_block_and_float32_are_the_authors(authors_block):
    block, golden = authors_block
    hidden_in, residual_in = inputs(golden)
    assert largest(block(hidden_in)[0], golden["hidden_out_first"]) < 1e-9
    block.float()
    assert largest(block(hidden_in.float())[0], golden["hidden_out_first"]) < 4e-6
    hidden, residual = block(hidden_in.float(), residual_in.float())
    assert largest(hidden, golden["hidden_out"]) < 4e-6
    assert largest(residual, golden["residual_out"]) < 4e-6


def recorded_weight(name, shape):
    """A weight whose bits are given by its name, as `golden/README.md` says; float32 values."""
    state = np.random.RandomState(zlib.crc32(f"{SALT}|{name}".encode()))
    noise = 2.0 * state.random_sample(shape) - 1.0
    leaf = name.rsplit(".", 1)[-1]
    if leaf in ("A_log", "A_b_log"):
        values = np.log(np.arange(1, shape[1] + 1))[None, :] + 0.2 * noise
    elif ".dt_proj" in name and leaf == "bias":
        values = -3.4 + 1.2 * noise
    elif leaf == "bias":
        values = 0.1 * noise
    elif len(shape) == 1:
        values = 1.0 + 0.2 * noise
    else:
        values = noise * np.sqrt(3.0 / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32)).double()


def test_a_few_numbers_of_the_authors_are_reproduced_without_their_folder():
    golden = {k: np.array(v)[None] for k, v in json.loads(GOLDEN.read_text()).items()}
    block = MambaBlock(32).double()
    shapes = {name: tuple(value.shape) for name, value in block.state_dict().items()}
    block.load_state_dict({name: recorded_weight(name, shape) for name, shape in shapes.items()})
    hidden_in, residual_in = (
        torch.from_numpy(golden[name].astype(np.float32)).double().requires_grad_()
        for name in ("hidden_in", "residual_in")
    )
    hidden, residual = block(hidden_in, residual_in)
    (hidden.square().sum() + residual.sum()).backward()
    assert largest(hidden[:, ::8], golden["hidden_out"]) < 1e-10
    assert largest(hidden_in.grad[:, ::8], golden["d_hidden"]) < 1e-10
    assert largest(block(hidden_in)[0][:, ::8], golden["hidden_out_first"]) < 1e-10


@torch.no_grad()
def test_a_block_is_the_sum_its_norm_and_the_mixer():
    block = fill(MambaBlock(16))
    hidden_in, residual_in = torch.randn(2, 2, 6, 16, dtype=torch.float64)
    weights = mamba_oracles.weights_of(block)
    mixer = {k.removeprefix("mixer."): v for k, v in weights.items()}
    hidden, residual = block(hidden_in, residual_in)
    assert_close(residual, hidden_in + residual_in, rtol=0, atol=0)
    for found, added in zip(hidden, residual.numpy(), strict=True):
        normed = mamba_oracles.rms_norm(added, weights["norm.weight"])
        expected = torch.from_numpy(mamba_oracles.mixer(mixer, normed, halve=True))
        assert_close(found, expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_what_lies_behind_a_sequences_end_changes_nothing_before_it():
    block = fill(MambaBlock(16))
    hidden_in, residual_in = torch.randn(2, 3, 7, 16, dtype=torch.float64)
    lengths = torch.tensor([7, 1, 4])
    behind = (torch.arange(7) >= lengths[:, None]).unsqueeze(-1)
    padded = (part.masked_fill(behind, 1e6) for part in (hidden_in, residual_in))
    hidden, residual = block(*padded, lengths)
    assert hidden.isfinite().all()
    for image, length in enumerate(lengths.tolist()):
        part = slice(image, image + 1), slice(length)
        alone = block(hidden_in[part], residual_in[part])
        assert_close((hidden[part], residual[part]), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_the_residual_stays_in_float32(autocast):
    torch.manual_seed(0)
    block = MambaBlock(32).eval()
    hidden_in = torch.randn(2, 9, 32)
    expected = block(hidden_in)
    if not autocast:
        block, hidden_in = block.bfloat16(), hidden_in.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        first = block(hidden_in)
        second = block(*first)
    for hidden, residual in (first, second):
        assert hidden.dtype == torch.bfloat16
        assert residual.dtype == torch.float32
        assert hidden.isfinite().all()
    assert torch.equal(second[1], first[1] + first[0].float())
    assert float((first[0].float() - expected[0]).norm() / expected[0].norm()) < 1e-2


@torch.no_grad()
def test_stochastic_depth_drops_what_is_added_and_never_the_residual():
    block = fill(MambaBlock(8, drop_path=0.75)).train()
    hidden_in, residual_in = torch.randn(2, 200, 2, 8, dtype=torch.float64)
    _, residual = block(hidden_in, residual_in)
    kept = (residual != residual_in).flatten(1).any(1)
    assert 30 <= int(kept.sum()) <= 70  # of 200, each with probability 1/4
    assert torch.equal(residual[~kept], residual_in[~kept])
    assert_close(residual[kept], residual_in[kept] + hidden_in[kept] * 4)
    assert torch.equal(block(hidden_in)[1], hidden_in)
    assert torch.equal(block.eval()(hidden_in, residual_in)[1], hidden_in + residual_in)
