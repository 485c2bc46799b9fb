"""The scan without a loop over steps: its values, its gradients, and the graphs made of it."""

import pytest
import torch
from hypothesis import given, settings
from scans import NAMES, SHAPES, differences, scan_inputs, value_and_gradients
from torch import nn
from torch.export import Dim
from torch.testing import assert_close

from dartok.models.runtimes import run_onnx, write_onnx
from dartok.models.scan import reference_scan
from dartok.models.scan.associative import associative_scan

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of outputs and gradients, relative to the largest value or to 1."""

LENGTHS = [1, 2, 7, 8, 9, 15, 16, 17, 63, 64, 65, 255, 256, 257, 393, 4096, 4097]
"""With the borders of blocks, of blocks of blocks, and of blocks of those."""

OPEN_LENGTHS = [1, 2, 15, 16, 17, 255, 256, 257, 393, 4096, 4097]


class Scan(nn.Module):
    """The scan as a model."""

    def forward(self, x, delta, a, b, c, skip):
        return associative_scan(x, delta, a, b, c, skip)


class ScanOfCount(nn.Module):
    """The scan of as many steps as an input says: a length that only the graph knows."""

    def forward(self, x, delta, a, b, c, skip, count):
        num_steps = count.item()
        torch._check(num_steps >= 2)
        torch._check(num_steps <= 65536)
        parts = (tensor[:, :1].expand(-1, num_steps, -1, -1) for tensor in (x, delta, b, c))
        x, delta, b, c = (torch.cat([part, part[:, :1]], dim=1) for part in parts)
        return associative_scan(x, delta, a, b, c, skip)


def exported(model=None, extra=(), *, open_length, strict=False):
    batch, length = Dim("batch"), Dim("length", min=2)
    sides = {0: batch, 1: length} if open_length else {0: batch}
    shapes = (sides, sides, {}, sides, sides, {}, *({} for _ in extra))
    inputs = (*scan_inputs(length=393, dtype=torch.float32), *extra)
    model = Scan() if model is None else model
    return torch.export.export(model, inputs, dynamic_shapes=shapes, strict=strict)


@pytest.fixture(scope="module")
def open_graph():
    return exported(open_length=True)


@pytest.fixture(scope="module")
def open_file(open_graph, tmp_path_factory):
    """An ONNX file of any batch and length."""
    return written(open_graph, tmp_path_factory.mktemp("open"))


def written(program, folder):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    write_onnx(program, folder / "scan.onnx")
    return folder / "scan.onnx"


def largest_error(run, batch, length):
    """Relative to the largest output or to 1."""
    inputs = scan_inputs(batch, length, dtype=torch.float32)
    expected = reference_scan(*inputs)
    return float((run(inputs) - expected).abs().max() / expected.abs().max().clamp_min(1))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_outputs_and_gradients_are_those_of_the_reference(length, dtype):
    inputs = scan_inputs(2, length, 2, 3, 2, dtype=dtype)
    assert max(differences(associative_scan, inputs).values()) < TOLERANCES[dtype]


@settings(max_examples=40)
@given(SHAPES)
def test_every_shape_gives_what_the_reference_gives(shape):
    found = differences(associative_scan, scan_inputs(**shape))
    assert max(found.values()) < TOLERANCES[torch.float64]


def test_both_derivatives_are_those_of_finite_differences():
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(1, 18, 2, 1, 2)]
    assert torch.autograd.gradcheck(associative_scan, inputs)
    assert torch.autograd.gradgradcheck(associative_scan, inputs)


def test_inputs_may_lie_in_memory_in_any_order():
    plain = scan_inputs(length=70)
    moved = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in plain]
    assert not any(tensor.is_contiguous() for tensor in moved)
    pairs = zip(
        value_and_gradients(associative_scan, moved),
        value_and_gradients(associative_scan, plain),
        strict=True,
    )
    for actual, expected in pairs:
        assert_close(actual, expected, rtol=0, atol=1e-12)  # absolute, of numbers of some ten


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("step", [0.0, 1e-30, 1e-6, 1.0, 1e4])
def test_extreme_steps_and_inputs_stay_finite(step, dtype):
    x, delta, a, b, c, skip = scan_inputs(length=300, dtype=dtype)
    delta = torch.full_like(delta, step)
    inputs = (1e4 * x, delta, -torch.ones_like(a), b, c, skip)
    assert max(differences(associative_scan, inputs).values()) < TOLERANCES[dtype]


def test_a_batch_gives_what_each_sequence_gives_alone():
    x, delta, a, b, c, skip = scan_inputs(batch=3, length=100, dtype=torch.float32)
    together = value_and_gradients(associative_scan, (x, delta, a, b, c, skip))
    for index in range(3):
        one = slice(index, index + 1)
        inputs = (x[one], delta[one], a, b[one], c[one], skip)
        alone = value_and_gradients(associative_scan, inputs)
        pairs = zip(alone, together, strict=True)  # those of a and skip are sums over the batch
        assert all(own.equal(shared[one]) for own, shared in pairs if shared.ndim == 4)


def test_autocast_around_the_call_changes_nothing():
    inputs = scan_inputs(dtype=torch.float32)

    def scan(*leaves):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return associative_scan(*leaves)

    expected = value_and_gradients(associative_scan, inputs)
    actual = value_and_gradients(scan, inputs)
    for name, one, other in zip(NAMES, actual, expected, strict=True):
        assert one.equal(other), name


def test_autocast_around_the_backward_pass_changes_nothing():
    inputs = scan_inputs(dtype=torch.float32)
    expected = value_and_gradients(associative_scan, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = value_and_gradients(associative_scan, inputs)
    for name, one, other in zip(NAMES, actual, expected, strict=True):
        assert one.equal(other), name


@pytest.mark.parametrize("length", [393, 4096])
def test_a_graph_grows_with_the_logarithm_of_its_length(length):
    inputs = scan_inputs(1, length, 1, 2, 2)
    graph = torch.export.export(Scan(), inputs, strict=False).graph
    assert len(graph.nodes) < 500
    assert not {"while_loop", "scan", "cond"} & {
        getattr(node.target, "__name__", "") for node in graph.nodes
    }


def test_a_graph_of_open_length_serves_every_length(open_graph):
    module = open_graph.module()
    for length in OPEN_LENGTHS[1:]:
        assert largest_error(lambda inputs: module(*inputs), 3, length) < 1e-5


@pytest.mark.parametrize("length", OPEN_LENGTHS)
def test_an_onnx_file_of_open_length_serves_every_length_and_batch(open_file, length):
    run = run_onnx(open_file)
    assert max(largest_error(run, batch, length) for batch in (1, 3)) < 1e-5


def test_an_onnx_file_serves_as_many_steps_as_it_says(open_file):
    x, delta, a, b, c, skip = scan_inputs(1, 131072, dtype=torch.float32)
    inputs = (x, delta / 100, a, b, c, skip)  # so that states last over many blocks
    difference = run_onnx(open_file)(inputs) - associative_scan(*inputs)
    assert difference.abs().max() < 1e-4  # absolute, of outputs of some 10


@pytest.mark.slow
def test_an_onnx_file_of_one_length_serves_every_batch(tmp_path):
    run = run_onnx(written(exported(open_length=False), tmp_path))
    assert max(largest_error(run, batch, 393) for batch in (1, 2, 5)) < 1e-5


def test_an_onnx_file_holds_no_loop(open_file):
    onnx = pytest.importorskip("onnx")
    kinds = {node.op_type for node in onnx.load(open_file).graph.node}
    assert {"Exp", "Mul", "Add"} <= kinds
    assert not kinds & {"Loop", "Scan", "If", "SequenceAt"}


@pytest.mark.slow
def test_a_graph_of_a_number_of_steps_that_is_an_input_serves_every_number(tmp_path):
    model = ScanOfCount()
    program = exported(model, (torch.tensor(50),), open_length=False)
    run = run_onnx(written(program, tmp_path))
    inputs = scan_inputs(length=393, dtype=torch.float32)
    for count in (2, 16, 50, 300):
        arguments = (*inputs, torch.tensor(count))
        assert_close(run(arguments), model(*arguments), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("open_length", [False, True])
def test_a_strict_export_knows_an_open_length_too(open_length):
    module = exported(open_length=open_length, strict=True).module()
    for length in (5, 393, 1000) if open_length else (393,):
        assert largest_error(lambda inputs: module(*inputs), 3, length) < 1e-5


@pytest.mark.slow
def test_one_compiled_graph_serves_every_length():
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(associative_scan, backend=keep, fullgraph=True, dynamic=True)
    for length in (20, 30, 393):
        assert largest_error(lambda inputs: compiled(*inputs), 2, length) < 1e-5
    assert len(graphs) == 1


@pytest.mark.filterwarnings("ignore:.torch.jit.trace.*is deprecated")
def test_a_traced_graph_serves_every_length():
    traced = torch.jit.trace(Scan(), scan_inputs(length=393, dtype=torch.float32))
    for length in (1, 16, 17, 1000):
        assert largest_error(lambda inputs: traced(*inputs), 3, length) < 1e-5
