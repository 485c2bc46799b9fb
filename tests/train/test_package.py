"""The folder of a model: timm and dartok load it, and it answers as the trained model did."""

import json
from pathlib import Path

import pytest
import timm
import torch
from packages import write_adapted

import dartok
from dartok.data.augment import PixelConfig
from dartok.train.model import build_model, recipe_of
from dartok.train.model_config import ModelConfig
from dartok.train.package import load_package, save_package

PIXELS = PixelConfig(
    size_px=64, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), interpolation="bilinear", crop_share=0.9
)
NAMES = ("ant", "bee", "cat")
MODELS = [
    {"model": "test_vit"},
    {"model": "test_vit", "num_tokens": "6..12"},
    {"model": "test_vit", "num_tokens": "9", "partition": "grid", "scorer": "squeezenet_v2"},
    {"model": "darvit_tiny", "num_tokens": "20"},
]


def packed(folder, settings):
    """A model with other weights than it starts with, and its package."""
    config = ModelConfig(**settings)
    recipe = recipe_of(config, num_classes=3, image_px=64)
    model = build_model(config, recipe)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    if "num_tokens" in settings:
        dartok.set_strength(model, 0.75)
    model.train()(torch.randn(4, 3, 64, 64))  # moves the running statistics
    measures = {"top1": 0.5, "step": 3}
    save_package(model, recipe, folder, pixels=PIXELS, class_names=NAMES, measures=measures)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("settings", MODELS)
def test_timm_and_dartok_load_the_folder_and_get_the_same_logits(tmp_path, settings):
    model = packed(tmp_path / "best", settings)
    images = torch.randn(3, 3, 64, 64)
    expected = model(images)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'best'}", pretrained=True)
    assert torch.equal(loaded.eval()(images), expected)
    package = load_package(tmp_path / "best")
    assert torch.equal(package.model(images), expected)
    assert (package.pixels, package.class_names) == (PIXELS, NAMES)
    state = loaded.state_dict()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_timms_transforms_are_those_of_the_training(tmp_path):
    packed(tmp_path, MODELS[1])
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    data = timm.data.resolve_model_data_config(model)
    assert tuple(data["input_size"]) == (3, 64, 64)
    assert (tuple(data["mean"]), tuple(data["std"])) == (PIXELS.mean, PIXELS.std)
    assert (data["interpolation"], data["crop_pct"]) == ("bilinear", 0.9)


def test_a_head_for_other_classes_can_be_asked_for(tmp_path):
    model = packed(tmp_path, MODELS[1])
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=7)
    assert other.head.out_features == 7
    assert torch.equal(other.blocks[0].mlp.fc1.weight, model.blocks[0].mlp.fc1.weight)


def test_the_folder_says_what_the_outputs_mean_and_how_good_they_are(tmp_path):
    packed(tmp_path, MODELS[1])
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == "dart_vit"
    assert config["model_args"]["host"] == "test_vit"
    assert config["pretrained_cfg"]["label_names"] == list(NAMES)
    assert config["measures"] == {"top1": 0.5, "step": 3}
    names = ["README.md", "config.json", "model.safetensors"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    packed(tmp_path, MODELS[0])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def write(path, content):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(OSError, match="No space left"):
        packed(tmp_path, MODELS[0])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_timm_wrote_is_read_with_numbers_for_names(tmp_path):
    model = timm.create_model("test_vit", num_classes=3).eval()
    timm.models.save_for_hf(model, tmp_path)
    package = load_package(tmp_path)
    assert package.class_names == ("0", "1", "2")
    images = torch.randn(1, 3, 160, 160)
    assert torch.equal(package.model(images), model(images))


@pytest.mark.refuses
@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_an_incomplete_folder_is_refused_in_one_line(tmp_path, missing):
    packed(tmp_path, MODELS[0])
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=f"model folder {tmp_path} ") as raised:
        load_package(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.refuses
def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(
        ValueError, match=r"must hold config.json .* \(No such file .*check the path"
    ):
        load_package(tmp_path / "missing")


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_folder_is_refused_in_one_line(tmp_path, name):
    packed(tmp_path, MODELS[0])
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"model folder {tmp_path} cannot be loaded") as raised:
        load_package(tmp_path)
    assert "\n" not in str(raised.value)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("key", "value"), [("architecture", "unheard_of"), ("model_args", {"depth_": 3})]
)
def test_a_folder_of_an_unknown_model_is_refused(tmp_path, key, value):
    packed(tmp_path, MODELS[0])
    config = json.loads((tmp_path / "config.json").read_text()) | {key: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="cannot be loaded .*; was it written by dartok train?"):
        load_package(tmp_path)


def test_dartok_makes_the_model_of_a_folder_at_any_budget(tmp_path):
    model = write_adapted(tmp_path / "best")
    images = torch.rand(2, 3, 160, 160)
    again = dartok.create_model(f"local-dir:{tmp_path / 'best'}")
    assert not again.training
    assert torch.equal(again(images), model(images))
    fewer = dartok.create_model(f"local-dir:{tmp_path / 'best'}", num_tokens=9)
    assert dartok.regions(fewer, images).boxes().shape == (2, 9, 4)


@pytest.mark.refuses
def test_a_folder_without_a_model_and_options_that_do_not_apply_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be loaded .*such as best/ of a run"):
        dartok.create_model(f"local-dir:{tmp_path / 'nothing'}")
    write_adapted(tmp_path / "best")
    with pytest.raises(ValueError, match="takes num_tokens, num_rows and num_classes only"):
        dartok.create_model(f"local-dir:{tmp_path / 'best'}", score_size=64)
