"""The scan as one operator: values, gradients, memory, and what compilers see of it."""

import threading

import pytest
import torch
from hypothesis import given, settings
from scans import NAMES, SHAPES, differences, scan_inputs, value_and_gradients
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from dartok.models.scan.chunked import MULTIPLY_ADDS_PER_STATE, chunked_scan

FORWARD = torch.ops.dartok.selective_scan.default
BACKWARD = torch.ops.dartok.selective_scan_backward.default

TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Of outputs and gradients, relative to the largest value or to 1."""

LENGTHS = [1, 2, 7, 8, 9, 63, 64, 65, 393, 4096]
"""With the borders of chunks, of 64 steps for states as small as here."""

WIDE = {"batch": 2, "groups": 1, "width": 256, "num_states": 128}
"""States of 2^16 numbers, for which a chunk is 8 steps."""


class Kept(TorchDispatchMode):
    """Records how many chunks' states the operator keeps."""

    def __init__(self):
        super().__init__()
        self.num_chunks = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func is FORWARD:
            self.num_chunks.append(len(output[1]))
        return output


def require_gradients(inputs):
    return [tensor.detach().requires_grad_() for tensor in inputs]


def recording(graphs):
    """A backend that runs a graph as it is, and keeps it."""

    def backend(graph, _):
        graphs.append(graph)
        return graph

    return backend


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_outputs_and_gradients_are_those_of_the_reference(length, dtype):
    inputs = scan_inputs(2, length, 2, 3, 2, dtype=dtype)
    assert max(differences(chunked_scan, inputs).values()) < TOLERANCES[dtype]


@pytest.mark.parametrize("length", [7, 8, 9, 16, 17])
@pytest.mark.parametrize("dtype", TOLERANCES)
def test_short_chunks_of_large_states_give_what_the_reference_gives(length, dtype):
    found = differences(chunked_scan, scan_inputs(length=length, dtype=dtype, **WIDE))
    assert max(found.values()) < TOLERANCES[dtype]


@settings(max_examples=60)
@given(SHAPES)
def test_every_shape_gives_what_the_reference_gives(shape):
    found = differences(chunked_scan, scan_inputs(**shape))
    assert max(found.values()) < TOLERANCES[torch.float64]


def test_gradients_are_those_of_finite_differences():
    inputs = require_gradients(scan_inputs(1, 10, 2, 2, 2))
    assert torch.autograd.gradcheck(chunked_scan, inputs)


def test_a_gradient_across_chunks_is_that_of_finite_differences():
    x, *others = scan_inputs(1, 70, 1, 1, 2)
    assert torch.autograd.gradcheck(lambda x: chunked_scan(x, *others), [x.requires_grad_()])


def test_gradients_of_a_gradient_are_refused():
    inputs = require_gradients(scan_inputs())
    y = chunked_scan(*inputs)
    (once,) = torch.autograd.grad(y.square().sum(), inputs[1], create_graph=True)
    with pytest.raises((RuntimeError, NotImplementedError), match="selective_scan_backward"):
        torch.autograd.grad(once.sum(), inputs[1])


def test_inputs_may_lie_in_memory_in_any_order():
    plain = scan_inputs(length=70)
    moved = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in plain]
    assert not any(tensor.is_contiguous() for tensor in moved)
    pairs = zip(
        value_and_gradients(chunked_scan, moved),
        value_and_gradients(chunked_scan, plain),
        strict=True,
    )
    for actual, expected in pairs:
        assert_close(actual, expected, rtol=0, atol=1e-12)  # absolute, of numbers of some ten


def test_an_expanded_gradient_and_expanded_inputs_are_read_as_what_they_say():
    first = scan_inputs(batch=1, length=1)
    narrow = [
        tensor.expand(2, 70, -1, -1) if tensor.ndim == 4 else tensor.expand(tensor.shape)
        for tensor in first
    ]
    full = [tensor.contiguous() for tensor in narrow]
    gradients = []
    for inputs in (narrow, full):
        leaves = require_gradients(inputs)
        gradients.append(torch.autograd.grad(chunked_scan(*leaves).sum(), leaves))
    for actual, expected in zip(*gradients, strict=True):
        assert_close(actual, expected, rtol=0, atol=1e-11)  # absolute, of numbers of some hundred


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("step", [0.0, 1e-30, 1e-6, 1.0, 1e4])
def test_extreme_steps_and_inputs_stay_finite(step, dtype):
    x, delta, a, b, c, skip = scan_inputs(length=300, dtype=dtype)
    delta = torch.full_like(delta, step)
    inputs = (1e4 * x, delta, -torch.ones_like(a), b, c, skip)
    assert max(differences(chunked_scan, inputs).values()) < TOLERANCES[dtype]


def test_a_batch_gives_what_each_sequence_gives_alone():
    x, delta, a, b, c, skip = scan_inputs(length=100, **WIDE | {"num_states": 16})
    together = value_and_gradients(chunked_scan, (x, delta, a, b, c, skip))
    for index in range(2):
        one = slice(index, index + 1)
        alone = value_and_gradients(chunked_scan, (x[one], delta[one], a, b[one], c[one], skip))
        assert alone[0].equal(together[0][one])
        for actual, expected in zip(alone[1:], together[1:], strict=True):
            if expected.ndim == 4:  # those of a and skip are sums over the batch
                assert_close(actual, expected[one], rtol=0, atol=1e-12)  # absolute, of some ten


def test_only_the_gradients_that_are_asked_for_are_given():
    inputs = scan_inputs()
    for index in range(len(inputs)):
        leaves = [tensor.detach().requires_grad_(i == index) for i, tensor in enumerate(inputs)]
        chunked_scan(*leaves).sum().backward()
        assert [i for i, leaf in enumerate(leaves) if leaf.grad is not None] == [index]


def test_autocast_around_the_call_changes_nothing():
    inputs = scan_inputs(length=70, dtype=torch.float32)

    def scan(*leaves):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return chunked_scan(*leaves)

    expected = value_and_gradients(chunked_scan, inputs)
    actual = value_and_gradients(scan, inputs)
    for name, one, other in zip(NAMES, actual, expected, strict=True):
        assert one.equal(other), name


def test_autocast_around_the_backward_pass_changes_nothing():
    inputs = scan_inputs(length=70, dtype=torch.float32)
    expected = value_and_gradients(chunked_scan, inputs)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = value_and_gradients(chunked_scan, inputs)
    for name, one, other in zip(NAMES, actual, expected, strict=True):
        assert one.equal(other), name


def test_states_are_kept_only_for_a_backward_pass():
    inputs = scan_inputs(length=130)
    with Kept() as plain:
        chunked_scan(*inputs)
        with torch.no_grad():
            chunked_scan(*require_gradients(inputs))
    with torch.inference_mode(), Kept() as inference:
        chunked_scan(*inputs)
    with Kept() as training:
        chunked_scan(*require_gradients(inputs))
    assert plain.num_chunks == [0, 0]
    assert inference.num_chunks == [0]
    assert training.num_chunks == [3]


def test_inputs_are_left_as_they_are():
    inputs = scan_inputs(length=70)
    before = [tensor.clone() for tensor in inputs]
    value_and_gradients(chunked_scan, inputs)
    assert all(one.equal(other) for one, other in zip(inputs, before, strict=True))


def test_a_compiled_graph_holds_one_operator():
    inputs = scan_inputs(length=70)
    graphs = []
    compiled = torch.compile(chunked_scan, backend=recording(graphs), fullgraph=True)
    actual = value_and_gradients(compiled, inputs)
    for one, other in zip(actual, value_and_gradients(chunked_scan, inputs), strict=True):
        assert one.equal(other)
    (graph,) = graphs
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert [str(target) for target in targets].count(str(FORWARD)) == 1


@pytest.mark.slow
def test_a_compiled_backward_pass_gives_the_same():
    inputs = scan_inputs(length=70)
    compiled = torch.compile(chunked_scan, backend="aot_eager", fullgraph=True)
    actual = value_and_gradients(compiled, inputs)
    for one, other in zip(actual, value_and_gradients(chunked_scan, inputs), strict=True):
        assert_close(one, other, rtol=0, atol=1e-12)  # absolute, of numbers of some ten


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("length", [1, 9, 130])
def test_the_operators_keep_what_pytorch_asks_of_them(length):
    inputs = require_gradients(scan_inputs(length=length))
    torch.library.opcheck(FORWARD, (*inputs, True))
    plain = scan_inputs(length=length)
    torch.library.opcheck(FORWARD, (*plain, False))
    y, kept = FORWARD(*plain, True)
    torch.library.opcheck(BACKWARD, (torch.ones_like(y), *plain[:5], kept))


def test_each_state_and_step_counts_the_same_in_a_cost_table():
    with FlopCounterMode(display=False) as counter:
        chunked_scan(*scan_inputs(2, 37, 2, 5, 3))
    assert counter.get_total_flops() == 2 * MULTIPLY_ADDS_PER_STATE * 2 * 37 * 2 * 5 * 3


def test_memory_that_is_kept_serves_every_mode_size_and_thread():
    """In inference mode, then smaller with gradients, then larger; several threads at once."""

    def work(seed, found):
        with torch.inference_mode():
            chunked_scan(*scan_inputs(batch=2, length=90, seed=seed))
        each = [
            differences(chunked_scan, scan_inputs(batch=batch, length=length, seed=seed))
            for batch, length in [(1, 9), (3, 150)]
        ]
        found[seed] = max(max(one.values()) for one in each)

    found = {}
    threads = [threading.Thread(target=work, args=(seed, found)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, 1, 2, 3]
    assert max(found.values()) < 1e-9
