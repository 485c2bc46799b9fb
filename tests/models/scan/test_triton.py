"""The Triton kernels: in Triton's interpreter, compiled but not run, and on a GPU if there is one.

Whether a kernel is interpreted is decided when it is decorated, so the functions that start with
`interpreted_` run in a process of their own, in which pytest takes them for its tests.
"""

import importlib
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from refusals import refused
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from dartok.models.scan.chunked import MULTIPLY_ADDS_PER_STATE
from dartok.models.scan.reference import reference_scan

ROOT = Path(__file__).resolve().parents[3]
MODULE = "dartok.models.scan.triton_scan"
REMEDY = "scan kind='triton' needs triton: it comes with PyTorch for CUDA; use kind='associative'"
ON_CPU = "scan kind='triton' needs CUDA tensors, got cpu: use kind='associative'"
FLOAT64 = "scan kind='triton' computes in float32, got float64: use kind='associative'"
ULP = {torch.float32: 0.0, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}
"""Relative step of a dtype: what is stored is off by less, as the interpreter cuts, not rounds."""

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")


@pytest.fixture
def triton_scan():
    return importlib.import_module(MODULE).triton_scan


def random_inputs(shape, *, dtype=torch.float32, device="cpu"):
    """For `(B, L, G, E, N)`; delta up to 0.5, so that 20 steps or so are remembered."""
    batch, length, groups, width, num_states = shape
    inputs = (
        torch.randn(batch, length, groups, width),
        torch.rand(batch, length, groups, width) / 2 + 0.01,
        -2 * torch.rand(groups, width, num_states) - 0.1,
        torch.randn(batch, length, groups, num_states),
        torch.randn(batch, length, groups, num_states),
        torch.randn(groups, width),
    )
    return [tensor.to(device, dtype).requires_grad_() for tensor in inputs]


def assert_matches_the_reference(scan, inputs, weights, *, share=0.0):
    """Outputs and gradients, beside their dtype to 1e-4 or to a share of the largest number."""
    y = scan(*inputs)
    wide = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = reference_scan(*wide)
    found = (y, *torch.autograd.grad(y, inputs, weights))
    wanted = (expected, *torch.autograd.grad(expected, wide, weights.double()))
    for like, one, other in zip((inputs[0], *inputs), found, wanted, strict=True):
        assert one.dtype == like.dtype
        atol = max(1e-4, share * other.abs().max().item())
        assert_close(one.double(), other, rtol=ULP[like.dtype], atol=atol)


def check(scan, shape, *, share=0.0, **options):
    inputs = random_inputs(shape, **options)
    assert_matches_the_reference(scan, inputs, torch.randn_like(inputs[0]), share=share)


@pytest.mark.parametrize("length", [1, 2, 63, 64, 65, 200])
def interpreted_lengths_match_the_reference(triton_scan, length):
    check(triton_scan, (1, length, 1, 5, 4))


@pytest.mark.parametrize("shape", [(1, 9, 2, 70, 16), (1, 17, 2, 5, 1), (1, 9, 3, 32, 3)])
def interpreted_shapes_match_the_reference(triton_scan, shape):
    check(triton_scan, shape)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def interpreted_half_precision_is_rounded_once(triton_scan, dtype):
    check(triton_scan, (1, 33, 1, 5, 3), dtype=dtype)


def interpreted_inputs_may_differ_in_dtype(triton_scan):
    inputs = random_inputs((2, 9, 2, 5, 4))
    for index in (0, 3):
        inputs[index] = inputs[index].detach().bfloat16().requires_grad_()
    weights = torch.randn(2, 9, 2, 5, dtype=torch.bfloat16)
    assert_matches_the_reference(triton_scan, inputs, weights)


def interpreted_inputs_need_not_be_contiguous(triton_scan):
    strided = [
        tensor.detach().transpose(0, -1).contiguous().transpose(0, -1).requires_grad_()
        for tensor in random_inputs((2, 9, 2, 5, 4))
    ]
    assert not any(tensor.is_contiguous() for tensor in strided)
    weights = torch.randn(2, 1, 2, 1).expand(2, 9, 2, 5)
    assert_matches_the_reference(triton_scan, strided, weights)


def interpreted_states_that_are_forgotten_leave_no_trace(triton_scan):
    inputs = random_inputs((1, 9, 1, 5, 4))
    inputs[1] = (inputs[1].detach() * 1e4).requires_grad_()
    for tensor in torch.autograd.grad(triton_scan(*inputs).sum(), inputs):
        assert tensor.isfinite().all()


def interpreted_outputs_without_a_gradient_are_the_same(triton_scan):
    inputs = random_inputs((2, 9, 2, 5, 4))
    with torch.no_grad():
        alone = triton_scan(*inputs)
    assert_close(alone, triton_scan(*inputs), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # which opcheck reads
def interpreted_scan_is_one_operator_to_pytorch(triton_scan):
    inputs, operators = random_inputs((2, 3, 2, 5, 4)), torch.ops.dartok
    torch.library.opcheck(operators.selective_scan_triton.default, (*inputs, True))
    inputs = [tensor.detach() for tensor in inputs]
    y, kept = operators.selective_scan_triton(*inputs, True)
    backward = operators.selective_scan_triton_backward.default
    arguments, what = (torch.randn_like(y), *inputs, kept), ("test_schema", "test_faketensor")
    torch.library.opcheck(backward, arguments, test_utils=what)


@pytest.mark.slow
def interpreted_scan_compiles_into_one_graph(triton_scan):
    inputs = random_inputs((2, 3, 2, 5, 4))
    compiled = torch.compile(triton_scan, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*inputs), triton_scan(*inputs)
    assert_close(y, expected, rtol=0, atol=0)
    actual = torch.autograd.grad(y.sum(), inputs)
    assert_close(actual, torch.autograd.grad(expected.sum(), inputs), rtol=0, atol=0)


def interpreted_operations_are_counted(triton_scan):
    with FlopCounterMode(display=False) as counter:
        triton_scan(*random_inputs((2, 4, 3, 5, 6)))
    assert counter.get_total_flops() == 2 * MULTIPLY_ADDS_PER_STATE * 2 * 4 * 3 * 5 * 6


def interpreted_float64_is_refused(triton_scan):
    with refused(FLOAT64):
        triton_scan(*random_inputs((1, 2, 1, 3, 4), dtype=torch.float64))


def interpreted_too_many_states_are_refused(triton_scan):
    with refused("scan kind='triton' needs N <= 256 states, got 257"):
        triton_scan(*random_inputs((1, 2, 1, 3, 257)))


@pytest.mark.slow
@pytest.mark.parametrize("length", [63, 64, 65, 257, 1030])
@pytest.mark.parametrize("rest", [(1, 70, 16), (2, 5, 1), (1, 3, 256)])
def interpreted_sweep_matches_the_reference(triton_scan, length, rest):
    check(triton_scan, (1, length, *rest), share=1e-5)


def run_interpreted(marks):
    """In a new process: the functions above that start with `interpreted_`."""
    names = ("-o", "python_functions=interpreted_*")
    options = ("-q", "-p", "no:cacheprovider", "-m", marks)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *names, __file__],
        cwd=ROOT,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " skipped" not in done.stdout


@needs_triton
def test_the_interpreted_kernels_match_the_reference():
    run_interpreted("not slow and not gpu")


@needs_triton
@pytest.mark.slow
def test_the_interpreted_kernels_match_the_reference_for_many_shapes():
    run_interpreted("slow")


def machine_code(kernel, pointer, num_states, architecture):
    """The machine code of a kernel, by Triton's own compiler, which needs no GPU."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(MODULE), kernel)
    constants = {"block_n": triton.next_power_of_2(num_states), "keep": True}
    types = {name: pointer if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
    signature = {name: "constexpr" if name in constants else types[name] for name in types}
    constants = {name: value for name, value in constants.items() if name in types}
    options = {"num_warps": max(1, num_states // 16), "enable_fp_fusion": True}
    source = ASTSource(kernel, signature, constants)
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options=options).asm["cubin"]


KERNELS = pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel"])


@needs_triton
@KERNELS
def test_a_kernel_compiles_for_cuda(kernel, monkeypatch, tmp_path):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert machine_code(kernel, "*fp32", 16, 90)


@needs_triton
@pytest.mark.slow
@KERNELS
@pytest.mark.parametrize("pointer", ["*fp32", "*bf16", "*fp16"])
@pytest.mark.parametrize("num_states", [1, 16, 256])
@pytest.mark.parametrize("architecture", [80, 90, 100])
def test_a_kernel_compiles_for_every_type_and_size(
    kernel, pointer, num_states, architecture, monkeypatch, tmp_path
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert machine_code(kernel, pointer, num_states, architecture)


@needs_triton
@pytest.mark.refuses
def test_cpu_tensors_are_refused(triton_scan):
    with refused(ON_CPU):
        triton_scan(*random_inputs((1, 2, 1, 3, 4)))


@pytest.mark.refuses
def test_without_triton_the_error_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ImportError) as error:
        importlib.import_module(MODULE)
    assert str(error.value) == REMEDY


@needs_triton
@pytest.mark.parametrize(("device", "available"), [("cuda", True), ("cpu", False), ("mps", False)])
def test_the_kernel_is_for_cuda_devices(device, available):
    is_available = importlib.import_module(MODULE).triton_is_available
    assert is_available(torch.device(device)) is available


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1, 1, 5, 4),
        (2, 65, 2, 70, 16),
        (1, 200, 1, 33, 1),
        (1, 300, 1, 40, 256),
        (2, 4096, 2, 70, 16),
    ],
)
def test_a_gpu_matches_the_reference(triton_scan, shape, dtype):
    check(triton_scan, shape, dtype=dtype, device="cuda", share=1e-5)


@pytest.mark.gpu
def test_a_gpu_gives_the_same_gradients_twice(triton_scan):
    inputs = random_inputs((2, 200, 2, 70, 16), device="cuda")
    first, second = (torch.autograd.grad(triton_scan(*inputs).sum(), inputs) for _ in range(2))
    assert_close(first, second, rtol=0, atol=0)


@pytest.mark.gpu
def test_a_gpu_compiles_the_scan_into_one_graph(triton_scan):
    inputs = random_inputs((2, 65, 2, 70, 16), device="cuda")
    compiled = torch.compile(triton_scan, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*inputs), triton_scan(*inputs)
    assert_close(y, expected, rtol=0, atol=0)
