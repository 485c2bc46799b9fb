"""Vision Mamba as a graph: no loop over steps, and the model's own answers."""

import pytest
import torch
from deterministic import spread

import dartok
from dartok.models.export import export
from dartok.models.mamba.vim import Vim
from dartok.models.runtimes import run_onnx

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ATOL = 1e-4  # of logits of deviation 1


def host(**options):
    small = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_classes": 5}
    return spread(Vim(**(small | options)))


def operators(file):
    return {(node.domain, node.op_type) for node in onnx.load(file).graph.node}


def check_plain(file):
    """ONNX's own operators, and none that runs a part of the graph again."""
    found = operators(file)
    assert {domain for domain, _ in found} <= {"", "ai.onnx"}
    assert not {name for _, name in found} & {"Loop", "Scan", "If", "SequenceMap"}


@torch.no_grad()
def largest_difference(run, model, sizes, num_tokens=None):
    count = () if num_tokens is None else (torch.tensor(num_tokens),)
    pictures = (torch.randn(batch, 3, *size) for batch in (1, 2, 5) for size in sizes)
    return max(float((run((x, *count)) - model(x)).abs().max()) for x in pictures)


@pytest.mark.parametrize(
    ("class_token", "merge"),
    [("middle", "mean"), pytest.param("first", "sum", marks=pytest.mark.slow)],
)
def test_regions_on_vim_export_for_any_batch_and_size(class_token, merge, tmp_path):
    model = dartok.adapt(
        host(class_token=class_token, merge=merge), num_tokens=20, strength=1.0
    ).eval()
    file = tmp_path / "vim.onnx"
    export(model, file)
    check_plain(file)
    sizes = [(64, 64), (48, 100), (130, 64)]
    assert largest_difference(run_onnx(file), model, sizes) < ATOL


def test_the_fixed_grid_exports_through_torch_for_any_batch(tmp_path):
    model, file = host().eval(), tmp_path / "grid.onnx"
    torch.onnx.export(
        model,
        (torch.zeros(2, 3, 64, 64),),
        file,
        dynamo=True,
        opset_version=18,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["images"],
        verbose=False,
    )
    check_plain(file)
    assert largest_difference(run_onnx(file), model, [(64, 64)]) < ATOL


@pytest.mark.slow
def test_one_file_serves_every_budget(tmp_path):
    model = dartok.adapt(host(), num_tokens=20, strength=1.0).eval()
    file = tmp_path / "vim.onnx"
    export(model, file, any_num_tokens=True)
    check_plain(file)
    for num_tokens in (2, 9, 20, 40, 300):
        dartok.set_num_tokens(model, num_tokens)
        assert largest_difference(run_onnx(file), model, [(64, 64), (64, 130)], num_tokens) < ATOL


@pytest.mark.slow
def test_vim_tiny_exports_at_full_depth(tmp_path):
    model = dartok.adapt(spread(dartok.create_model("vim_tiny")), strength=1.0).eval()
    file = tmp_path / "vim_tiny.onnx"
    export(model, file)
    check_plain(file)
    assert largest_difference(run_onnx(file), model, [(224, 224), (160, 320)]) < ATOL
