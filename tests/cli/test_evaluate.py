"""`dartok eval`: every picture once, at each budget."""

import json

import numpy as np
import pytest
import torch
from packages import CLASSES, write_adapted, write_package
from PIL import Image

from dartok.core.tokenizer import Tokenizer
from dartok.data.images import open_image
from dartok.data.transforms import eval_transform
from dartok.models import set_num_tokens
from dartok.train.model import pixels_of


@pytest.fixture
def pictures(tmp_path):
    generator = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "val" / name).mkdir(parents=True)
        for number in range(5):
            noise = generator.integers(256, size=(40, 60, 3), dtype=np.uint8)
            path = tmp_path / "val" / name / f"{number}.png"
            Image.fromarray(noise).resize((180, 170)).save(path)
    return tmp_path / "val"


def accuracy_by_hand(model, pictures):
    transform = eval_transform(pixels_of(model, None))
    right = []
    for label, name in enumerate(CLASSES):
        for path in sorted((pictures / name).iterdir()):
            with torch.no_grad():
                right.append(int(model(transform(open_image(path))[None]).argmax()) == label)
    return sum(right) / len(right)


def test_each_budget_gets_a_line_with_its_own_accuracy(dartok, tmp_path, pictures):
    model = write_adapted(tmp_path / "best")
    options = ("--num-tokens", "6,20,49", "--json", "--workers", "0", "--batch-size", "4")
    code, out, _ = dartok("eval", tmp_path / "best", pictures, *options)
    assert code == 0
    rows = json.loads(out)
    assert [row["num_tokens"] for row in rows] == [6, 20, 49]
    for row in rows:
        set_num_tokens(model, row["num_tokens"])
        assert row["images"] == 15
        assert row["top1"] == pytest.approx(accuracy_by_hand(model, pictures))


def test_the_table_shows_the_models_own_budget(dartok, tmp_path, pictures):
    write_adapted(tmp_path / "best")
    code, out, _ = dartok("eval", tmp_path / "best", pictures, "--workers", "0")
    header, line = out.rstrip("\n").split("\n")
    assert code == 0
    assert header.split()[0] == "tokens"
    assert line.split()[0] == "20"
    assert line.split()[-1] == "15"


def test_a_fixed_grid_is_evaluated_too(dartok, tmp_path, pictures):
    model = write_package(tmp_path / "best", name="test_vit")
    assert not any(isinstance(module, Tokenizer) for module in model.modules())
    code, out, _ = dartok("eval", tmp_path / "best", pictures, "--json", "--workers", "0")
    (row,) = json.loads(out)
    assert (code, row["num_tokens"]) == (0, 100)
    assert row["top1"] == pytest.approx(accuracy_by_hand(model, pictures))


@pytest.mark.refuses
@pytest.mark.parametrize("budgets", ["0", "49,", "49,x", "-3", "49..392"])
def test_what_is_no_list_of_budgets_is_refused(refused, tmp_path, budgets):
    message = refused("eval", tmp_path, "digits", f"--num-tokens={budgets}")
    assert "num-tokens must be numbers >= 1 as in 49,100,196, got " in message


@pytest.mark.refuses
def test_a_folder_without_a_model_is_refused(refused, tmp_path):
    message = refused("eval", tmp_path, "digits")
    assert message.startswith(
        f"model folder {tmp_path} must hold config.json and model.safetensors"
    )


@pytest.mark.refuses
def test_damaged_weights_are_refused(refused, tmp_path):
    write_adapted(tmp_path / "best")
    weights = tmp_path / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    message = refused("eval", tmp_path / "best", "digits")
    assert message.startswith(f"model folder {tmp_path / 'best'} cannot be loaded (")


@pytest.mark.refuses
def test_budgets_of_a_fixed_grid_are_refused(refused, tmp_path, pictures):
    write_package(tmp_path / "best", name="test_vit")
    message = refused("eval", tmp_path / "best", pictures, "--num-tokens", "49")
    assert message.startswith("model must hold a dartok tokenizer")
