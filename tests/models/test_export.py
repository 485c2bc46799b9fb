"""Exported graphs say what the model says, hold no operator of ours, and else are not kept."""

import copy

import pytest
import timm
import torch
from deterministic import spread
from torch import nn
from torch.testing import assert_close

import dartok
from dartok.models.export import check_graph, export
from dartok.models.graphs import Shapes
from dartok.models.runtimes import run_onnx, run_torch

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def adapted(name="test_vit", **options):
    host = spread(timm.create_model(name, depth=2, img_size=96, **options))
    return dartok.adapt(host, num_tokens=40, strength=1.0).eval()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return adapted()


@pytest.fixture(scope="module")
def graph(model, tmp_path_factory):
    """An ONNX file of any batch, size and number of tokens."""
    file = tmp_path_factory.mktemp("graphs") / "model.onnx"
    export(model, file, any_num_tokens=True)
    return file


@torch.no_grad()
def largest_difference(run, model, sizes, num_tokens=None):
    differences = []
    for batch_size in (1, 2, 5):
        for size in sizes:
            images = torch.randn(batch_size, 3, *size)
            count = () if num_tokens is None else (torch.tensor(num_tokens),)
            differences.append((run((images, *count)) - model(images)).abs().max())
    return float(max(differences))


SIZES = [(96, 96), (64, 150), (200, 120), (300, 60)]


@pytest.mark.parametrize("num_tokens", [1, 17, 40, 90, 300])
def test_one_file_serves_every_batch_size_and_budget(graph, model, num_tokens):
    other = copy.deepcopy(model)
    dartok.set_num_tokens(other, num_tokens)
    room = [size for size in SIZES if num_tokens * size[0] <= 16 * 40 * size[1]]
    assert len(room) >= 3
    assert largest_difference(run_onnx(graph), other, room, num_tokens) < 1e-4


def test_the_file_holds_standard_operators_of_opset_18(graph):
    file = onnx.load(graph)
    assert {node.domain for node in file.graph.node} <= {"", "ai.onnx"}
    assert [(opset.domain, opset.version) for opset in file.opset_import] == [("", 18)]
    assert len(file.functions) == 0
    assert [value.name for value in file.graph.input] == ["images", "num_tokens"]
    assert [value.name for value in file.graph.output] == ["output"]
    axes = [
        dim.dim_param or dim.dim_value for dim in file.graph.input[0].type.tensor_type.shape.dim
    ]
    assert axes == ["batch", 3, "height", "width"]


@pytest.fixture(scope="module")
def clip_model():
    torch.manual_seed(0)
    host = spread(timm.create_model("test_vit", depth=2, img_size=48))
    model = dartok.adapt(host, num_frames=3, num_tokens=30, scorer="motion/conv", strength=1.0)
    nn.init.normal_(model.patch_embed.time_embed)
    return model.eval()


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_a_model_of_clips_is_exported_for_clips_of_its_frames(clip_model, tmp_path, to):
    file = tmp_path / {"onnx": "model.onnx", "torch": "model.pt2"}[to]
    checks = export(clip_model, file, to=to)
    assert {str(check.inputs) for check in checks} == {f"{n} x 3 x 48 x 48 px" for n in (1, 2, 3)}
    run = {"onnx": run_onnx, "torch": run_torch}[to](file)
    clips = torch.randn(4, 3, 3, 48, 48)
    with torch.no_grad():
        expected = clip_model(clips)
        assert_close(run((clips,)), expected, rtol=0, atol=1e-5)
        assert (run((clips.flip(1),)) - expected).abs().max() > 1e-3
    if to == "onnx":
        (shape,) = (value.type.tensor_type.shape.dim for value in onnx.load(file).graph.input)
        assert [dim.dim_param or dim.dim_value for dim in shape] == ["batch", 3, 3, 48, 48]


def test_gathers_stand_in_for_grid_sample_and_float32_for_float64(model, tmp_path):
    file = tmp_path / "model.onnx"
    export(model, file, bilinear="gather", geometry=torch.float32)
    loaded = onnx.load(file)
    assert "GridSample" not in {node.op_type for node in loaded.graph.node}
    kinds = {value.type.tensor_type.elem_type for value in loaded.graph.value_info}
    assert onnx.TensorProto.DOUBLE not in kinds
    assert largest_difference(run_onnx(file), model, SIZES) < 1e-3
    assert model.patch_embed.bilinear == "grid_sample"


@pytest.mark.parametrize(
    "bilinear", ["grid_sample", pytest.param("gather", marks=pytest.mark.slow)]
)
def test_means_of_areas_are_exported_for_every_size(bilinear, tmp_path):
    host = spread(timm.create_model("test_vit", depth=2, img_size=96))
    model = dartok.adapt(host, num_tokens=10, strength=1.0, antialias=True).eval()
    export(model, tmp_path / "model.onnx", bilinear=bilinear)
    run, sizes = run_onnx(tmp_path / "model.onnx"), [(96, 96), (300, 420)]
    assert largest_difference(run, model, sizes) < 1e-4
    model.patch_embed.antialias = False
    assert largest_difference(run, model, sizes) > 1e-3


@pytest.mark.slow
def test_bounds_are_exported_for_the_models_own_size(tmp_path):
    host = spread(timm.create_model("test_vit", depth=2, img_size=96))
    options = {"min_region": 0.14, "max_region": 0.2, "num_rows": 6}
    model = dartok.adapt(host, num_tokens=40, strength=1.0, **options).eval()
    checks = export(model, tmp_path / "model.onnx")
    assert {check.inputs.image_px for check in checks} == {(96, 96)}
    assert max(check.difference for check in checks) < 1e-4
    for option in ("any_size", "any_num_tokens"):
        with pytest.raises(ValueError, match=f"{option} needs no min_region or max_region: not"):
            export(model, tmp_path / "other.onnx", **{option: True})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_vit_and_deit_of_full_depth_agree_at_their_own_size(name, tmp_path):
    host = spread(timm.create_model(name))
    model = dartok.adapt(host, num_tokens=98, strength=1.0).eval()
    export(model, tmp_path / "model.onnx")
    sizes = [(224, 224), (160, 320), (448, 448)]
    assert largest_difference(run_onnx(tmp_path / "model.onnx"), model, sizes) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_small_patch16_dinov3"])
def test_rotary_hosts_agree(name, tmp_path):
    host = spread(timm.create_model(name, depth=2))
    model = dartok.adapt(host, num_tokens=60, strength=1.0).eval()
    checks = export(model, tmp_path / "model.onnx")
    assert max(check.difference for check in checks) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("to", ["torch", "aot"])
def test_pytorchs_own_formats_agree(to, model, tmp_path):
    checks = export(model, tmp_path / "model.pt2", to=to, any_num_tokens=True)
    assert {check.inputs.num_tokens for check in checks} == {20, 40, 80}
    assert max(check.difference for check in checks) < 1e-4


@pytest.mark.slow
def test_the_authors_partition_is_exported_for_its_own_size(tmp_path):
    host = spread(timm.create_model("test_vit", depth=2, img_size=96))
    options = {"partition": "authors", "sampling": "corner", "scorer": "pixels"}
    model = dartok.adapt(host, num_tokens=30, strength=1.0, **options).eval()
    checks = export(model, tmp_path / "model.onnx")
    assert {check.inputs.image_px for check in checks} == {(96, 96)}
    with pytest.raises(ValueError, match="any_size needs partition='flow', got 'authors'"):
        export(model, tmp_path / "other.onnx", any_size=True)


def corrupted(graph, change):
    file = graph.parent / "corrupted.onnx"
    loaded = onnx.load(graph)
    change(loaded.graph)
    onnx.save(loaded, file)
    return file


def nearest(graph):
    (node,) = [node for node in graph.node if node.op_type == "GridSample"]
    (mode,) = [value for value in node.attribute if value.name == "mode"]
    mode.s = b"nearest"


def another_weight(graph):
    weight = max(graph.initializer, key=lambda one: len(one.raw_data))
    values = onnx.numpy_helper.to_array(weight).copy()
    values[0] += 0.5
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))


def no_input(graph):
    del graph.node[3]


@pytest.mark.parametrize("change", [nearest, another_weight])
def test_a_corrupted_graph_is_caught(graph, model, change):
    shapes = Shapes(any_size=True, any_num_tokens=True, image_px=(96, 96), patch_px=(16, 16))
    assert check_graph(run_onnx(graph), model, shapes, at_most=1e-4)
    with pytest.raises(ValueError, match="the exported graph differs from the model by"):
        check_graph(run_onnx(corrupted(graph, change)), model, shapes, at_most=1e-3)


def test_a_graph_that_differs_is_not_kept_and_the_last_good_one_stays(model, tmp_path, monkeypatch):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"the last good one")
    write = dartok.models.export._TARGETS["onnx"].write

    def write_corrupted(program, path):
        write(program, path)
        loaded = onnx.load(path)
        nearest(loaded.graph)
        onnx.save(loaded, path)

    target = dartok.models.export._TARGETS["onnx"]._replace(write=write_corrupted)
    monkeypatch.setitem(dartok.models.export._TARGETS, "onnx", target)
    with pytest.raises(ValueError, match="differs from the model by .* nothing was kept"):
        export(model, file)
    assert file.read_bytes() == b"the last good one"
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.refuses
def test_what_cannot_be_exported_says_why(model, clip_model, tmp_path):
    file = tmp_path / "model.onnx"
    auto = copy.deepcopy(model)
    dartok.set_num_tokens(auto, "auto")
    grid = dartok.adapt(timm.create_model("test_vit"), partition="grid").eval()
    for one, where, options, message in [
        (copy.deepcopy(model).train(), file, {}, "must be in eval mode"),
        (copy.deepcopy(model).half(), file, {}, "must be float32 on the CPU .*, got torch.float16"),
        (auto, file, {}, "num_tokens='auto' cannot be exported"),
        (grid, file, {"any_num_tokens": True}, "any_num_tokens needs partition='flow', got 'grid'"),
        (clip_model, file, {"any_size": True}, "any_size is for models of images, got one of clip"),
        (clip_model, file, {"any_num_tokens": True}, "any_num_tokens is for models of images, got"),
        (nn.Linear(2, 2), file, {}, "model must hold a dartok tokenizer"),
        (model, tmp_path / "model.pt2", {}, r"must be named \*.onnx for to='onnx', got model.pt2"),
        (model, tmp_path / "no" / "model.onnx", {}, "does not exist; make it"),
        (model, file, {"to": "tensorrt"}, "to must be one of onnx, torch, aot, got 'tensorrt'"),
        (model, tmp_path, {}, "is a folder; name a file in it"),
        (
            model,
            file,
            {"geometry": torch.float16},
            "geometry must be torch.float32 or torch.float64",
        ),
        (model, file, {"bilinear": "near"}, "bilinear must be one of grid_sample, gather"),
    ]:
        with pytest.raises(ValueError, match=message):
            export(one, where, **options)
    assert list(tmp_path.iterdir()) == []
