"""The mixer: as it is written down, in both directions, at any length."""

import math

import mamba_oracles
import numpy as np
import pytest
import torch
from deterministic import fill
from refusals import refused
from torch.nn import functional as F
from torch.testing import assert_close

from dartok.models.mamba.mixer import BidirectionalMixer
from dartok.models.scan import selective_scan

GARBAGE = 1e6


def filled(width=24, **options):
    """Every number its own, both directions unlike each other, in float64."""
    return fill(BidirectionalMixer(width, **options))


@pytest.mark.parametrize("merge", ["mean", "sum"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-13), (torch.float32, 5e-6)])
@torch.no_grad()
def test_the_mixer_is_the_one_of_the_oracle(merge, dtype, atol):
    mixer = filled(merge=merge, state_size=5)
    tokens = torch.randn(2, 9, 24, dtype=torch.float64)
    weights = mamba_oracles.weights_of(mixer)
    expected = [mamba_oracles.mixer(weights, t, halve=merge == "mean") for t in tokens.numpy()]
    actual = mixer.to(dtype)(tokens.to(dtype)).double()
    assert_close(actual, torch.from_numpy(np.stack(expected)), rtol=0, atol=atol)


@torch.no_grad()
def test_reading_backwards_is_reading_forwards_with_the_weights_exchanged():
    mixer, exchanged = filled(), filled()
    state = mixer.state_dict()
    exchanged.load_state_dict({other_direction(name): value for name, value in state.items()})
    tokens = torch.randn(2, 9, 24, dtype=torch.float64)
    assert_close(exchanged(tokens.flip(1)).flip(1), mixer(tokens), rtol=0, atol=1e-13)


def other_direction(name):
    head, *rest = name.split(".")
    if head in ("in_proj", "out_proj"):
        return name
    pairs = {"A_log": "A_b_log", "A_b_log": "A_log"}
    other = pairs.get(head) or (head.removesuffix("_b") if head.endswith("_b") else f"{head}_b")
    return ".".join([other, *rest])


@torch.no_grad()
def test_a_step_depends_on_those_before_it_and_on_those_behind_it():
    mixer = filled()
    tokens = torch.randn(1, 7, 24, dtype=torch.float64)
    for changed in range(7):
        other = tokens.clone()
        other[:, changed] += 1
        assert ((mixer(other) - mixer(tokens)).abs().amax(-1) > 1e-6).all()


LENGTHS = torch.tensor([1, 4, 5, 9])


def padded(tokens):
    """Garbage behind each sequence's end."""
    behind = torch.arange(tokens.shape[1]) >= LENGTHS[:, None]
    return tokens.masked_fill(behind.unsqueeze(-1), GARBAGE)


@torch.no_grad()
def test_what_lies_behind_a_sequences_end_changes_nothing_before_it():
    mixer = filled()
    tokens = torch.randn(4, 9, 24, dtype=torch.float64)
    found = mixer(padded(tokens), LENGTHS)
    assert found.isfinite().all()
    for row, one, length in zip(found, tokens, LENGTHS.tolist(), strict=True):
        assert_close(row[:length], mixer(one[None, :length])[0], rtol=0, atol=1e-12)


def gradients(mixer, tokens, lengths, weights):
    """Of a sum over the sequences' own tokens: with respect to these and to all parameters."""
    mixer.zero_grad()
    tokens = tokens.clone().requires_grad_()
    inside = torch.arange(tokens.shape[1]) < lengths[:, None]
    (mixer(tokens, lengths) * weights * inside.unsqueeze(-1)).sum().backward()
    return [tokens.grad, *(parameter.grad.clone() for parameter in mixer.parameters())]


def test_nor_does_it_change_a_gradient():
    mixer = filled()
    tokens, weights = torch.randn(2, 4, 9, 24, dtype=torch.float64)
    of_tokens, *of_weights = gradients(mixer, padded(tokens), LENGTHS, weights)
    alone = []
    for row, length in enumerate(LENGTHS.tolist()):
        part = slice(row, row + 1), slice(length)
        whole = torch.tensor([length])
        of_these, *rest = gradients(mixer, tokens[part], whole, weights[part])
        alone.append(rest)
        assert_close(of_tokens[part], of_these, rtol=0, atol=1e-12)
        assert of_tokens[row, length:].count_nonzero() == 0
    for together, parts in zip(of_weights, zip(*alone, strict=True), strict=True):
        assert_close(together, sum(parts), rtol=0, atol=1e-11)


def test_gradients_are_those_of_finite_differences():
    mixer = filled(width=3, state_size=2)
    names, values = zip(*mixer.named_parameters(), strict=True)

    def run(tokens, *values):
        parameters = dict(zip(names, values, strict=True))
        return torch.func.functional_call(mixer, parameters, (tokens, torch.tensor([3, 4])))

    tokens = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (tokens, *values))


def test_weights_start_as_mambas_in_both_directions():
    torch.manual_seed(0)
    mixer = BidirectionalMixer(64, num_layers=9)
    for suffix in ("", "_b"):
        steps = F.softplus(mixer.get_parameter(f"dt_proj{suffix}.bias"))
        assert 1e-3 * 0.999 < steps.min() < 3e-3
        assert 0.03 < steps.max() < 0.1 * 1.001
        rates = mixer.get_parameter("A_log" if suffix == "" else "A_b_log").exp()
        assert_close(rates, torch.arange(1.0, 17).expand(128, 16))
        assert torch.equal(mixer.get_parameter(f"D{suffix}"), torch.ones(128))
        assert mixer.get_parameter(f"dt_proj{suffix}.weight").abs().max() <= 0.5  # rank 4
    largest = math.sqrt(1 / 128) / 3  # PyTorch's bound over the root of the number of layers
    assert 0.99 * largest < mixer.out_proj.weight.abs().max() <= largest
    assert mixer.A_log is not mixer.A_b_log


@pytest.mark.parametrize("autocast", [False, True])
@torch.no_grad()
def test_steps_and_rates_are_wide_also_in_half_precision(autocast, monkeypatch):
    """Where bfloat16 would round a step of 1e-3 beside a bias of -7 to nothing."""
    seen = []

    def watched(x, delta, a, b, c, skip, *, kind):
        seen.append((x.dtype, delta.dtype, a.dtype))
        return selective_scan(x, delta, a, b, c, skip, kind=kind)

    monkeypatch.setattr("dartok.models.mamba.mixer.selective_scan", watched)
    mixer, tokens = BidirectionalMixer(8), torch.randn(1, 5, 8)
    if not autocast:
        mixer, tokens = mixer.bfloat16(), tokens.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        mixer(tokens)
    assert seen == [(torch.bfloat16, torch.float32, torch.float32)]


@torch.no_grad()
def test_half_precision_is_close():
    """Relative error 1e-2: bfloat16 rounds to 4e-3."""
    torch.manual_seed(0)
    mixer = BidirectionalMixer(32).eval()
    tokens = torch.randn(2, 20, 32)
    expected = mixer(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        cast = mixer(tokens)
    half = mixer.bfloat16()(tokens.bfloat16())
    for found in (cast, half):
        assert found.dtype == torch.bfloat16
        assert float((found.float() - expected).norm() / expected.norm()) < 1e-2


@pytest.mark.refuses
def test_an_unknown_merge_is_refused():
    with refused("merge must be one of mean, sum, got 'half'"):
        BidirectionalMixer(8, merge="half")
