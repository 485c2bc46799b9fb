"""Which way the scan is computed, and what is refused whichever way."""

import pytest
import torch
from scans import scan_inputs
from torch.testing import assert_close

import dartok
from dartok.models.mamba.vim import Vim
from dartok.models.scan import reference_scan, selective_scan

NAMES = ("x", "delta", "a", "b", "c", "skip")


@pytest.mark.parametrize("kind", ["auto", "chunked", "associative"])
def test_each_way_gives_the_same(kind):
    inputs = scan_inputs()
    assert_close(selective_scan(*inputs, kind=kind), reference_scan(*inputs), rtol=0, atol=1e-9)


def test_half_precision_is_scanned_in_float32_and_comes_back_as_it_was():
    inputs = [value.bfloat16() for value in scan_inputs()]
    found = selective_scan(*inputs)
    assert found.dtype == torch.bfloat16
    expected = reference_scan(*(value.float() for value in inputs)).bfloat16()
    assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script. is deprecated:FutureWarning")
def test_forward_derivatives_are_those_of_the_reference():
    inputs = scan_inputs()
    tangents = tuple(torch.randn_like(value) for value in inputs)
    _, found = torch.func.jvp(selective_scan, tuple(inputs), tangents)
    _, expected = torch.func.jvp(reference_scan, tuple(inputs), tangents)
    assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_gradients_by_torch_func_are_those_of_the_reference():
    inputs = scan_inputs()
    found, expected = (
        torch.func.grad(lambda x, scan=scan: scan(x, *inputs[1:]).square().sum())(inputs[0])
        for scan in (selective_scan, reference_scan)
    )
    assert_close(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.refuses
@pytest.mark.parametrize("index", range(1, 6))
@pytest.mark.parametrize("kind", ["chunked", "associative"])
def test_shapes_that_do_not_belong_together_are_refused_by_name(index, kind):
    inputs = list(scan_inputs())
    inputs[index] = inputs[index][:1, :1] if inputs[index].ndim > 2 else inputs[index][:1]
    with pytest.raises(ValueError, match=rf"^{NAMES[index]} must be .*for x of"):
        selective_scan(*inputs, kind=kind)


@pytest.mark.refuses
def test_an_unknown_way_and_a_model_without_scans_are_refused():
    with pytest.raises(ValueError, match="kind must be one of auto, chunked, .*got 'fast'"):
        selective_scan(*scan_inputs(), kind="fast")
    with pytest.raises(ValueError, match="model must be a Vision Mamba, got Linear"):
        dartok.set_scan(torch.nn.Linear(2, 2), "chunked")
    with pytest.raises(ImportError, match="needs mamba-ssm: pip install"):
        dartok.set_scan(Vim(img_size=32, embed_dim=8, depth=1), "mamba_ssm")


@torch.no_grad()
def test_a_model_computes_its_scans_as_it_is_told():
    model = Vim(img_size=32, embed_dim=8, depth=2).eval()
    images = torch.randn(1, 3, 32, 32)
    expected = model(images)
    dartok.set_scan(model, "associative")
    assert {block.mixer.scan for block in model.layers} == {"associative"}
    assert_close(model(images), expected, rtol=0, atol=1e-5)
