"""A saved folder holds all that a model is: what loads it answers as the one that was saved."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from saved_models import SIZE, adapted, authors, of_torchvision, of_transformers, used

import dartok
from dartok.models.cards import Card
from dartok.models.dials import tokenizer_of
from dartok.models.preprocessing import data_config
from dartok.models.recipes import Recipe
from dartok.scorers import create_scorer

CUT_OFF = """
import os, socket, sys
os.environ["HF_HUB_OFFLINE"] = "1"

class NoSocket(socket.socket):
    def __init__(self, *args, **kwargs):
        raise AssertionError("the network was asked")

socket.socket = NoSocket
import torch
import dartok, timm

*folders, images, answers = sys.argv[1:]
images, logits = torch.load(images), {}
with torch.no_grad():
    for folder in folders:
        by_timm = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        logits[folder] = [dartok.from_pretrained(folder)(images), by_timm(images)]
torch.save(logits, answers)
"""


MODELS = {
    "plain": lambda: adapted(),
    "every option": lambda: adapted(
        num_tokens=12,
        num_rows=3,
        scorer="squeezenet_v2",
        partition="grid",
        sampling="corner",
        oversample=2,
    ),
    "means within bounds": lambda: adapted(
        num_tokens=30, antialias=True, min_region=0.1, max_region=0.3
    ),
    "size": lambda: adapted(host_args={"img_size": (64, 96)}, scorer="edge"),
    "grey": lambda: adapted(host_args={"in_chans": 1}, num_tokens=9),
    "deeper": lambda: adapted(host_args={"depth": 3, "global_pool": "avg"}),
    "distilled": lambda: adapted("deit_tiny_distilled_patch16_224", num_tokens=16),
    "scorer module": lambda: adapted(scorer=create_scorer("pixels", side_px=None), num_tokens=10),
    "batch statistics": lambda: adapted(scorer=create_scorer("pixels", statistics="batch")),
    "rotary": lambda: adapted(
        "eva02_tiny_patch14_224", host_args={"img_size": 56, "depth": 2}, num_tokens=12
    ),
    "torchvision": of_torchvision,
    "features": lambda: adapted(num_classes=0),
    "vision mamba": lambda: adapted("vim_tiny", host_args={"depth": 2}, num_tokens=12),
    "videomamba": lambda: adapted(
        "videomamba_tiny", host_args={"depth": 2, "img_size": (64, 96)}, scorer="edge"
    ),
    "vision mamba of timm's registry": lambda: used(
        timm.create_model("dart_vit", host="vim_tiny", host_args={"depth": 2}, num_tokens=9)
    ),
    "vision mamba by its name": lambda: used(dartok.adapt(dartok.create_model("vim_tiny"))),
    "authors": lambda: authors(num_tokens=20, num_rows=4),
    "authors' vision mamba": lambda: authors("darvim_tiny", num_tokens=20),
    "authors at another score size": lambda: authors("darvit_tiny_v2", score_size=224),
}


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]()


@torch.no_grad()
def test_what_is_loaded_gives_the_same_logits_bit_for_bit(tmp_path, model):
    dartok.save_pretrained(model, tmp_path / "saved")
    images = torch.randn(2, tokenizer_of(model).proj.in_channels, 84, 112)
    loaded = dartok.from_pretrained(tmp_path / "saved")
    assert type(loaded) is type(model)
    assert not loaded.training
    assert torch.equal(loaded(images), model(images))
    assert tokenizer_of(loaded).extra_repr() == tokenizer_of(model).extra_repr()
    assert data_config(loaded) == data_config(model)
    by_timm = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True).eval()
    assert torch.equal(by_timm(images), model(images))


@torch.no_grad()
def test_a_fresh_process_without_a_network_gives_the_same_logits(tmp_path):
    models = [adapted(num_tokens=11), authors(num_tokens=11)]
    folders = [str(tmp_path / name) for name in ("adapted", "authors")]
    for model, folder in zip(models, folders, strict=True):
        dartok.save_pretrained(model, folder)
    images = torch.randn(2, 3, *SIZE)
    torch.save(images, tmp_path / "images.pt")
    files = [str(tmp_path / name) for name in ("images.pt", "logits.pt")]
    command = [sys.executable, "-c", CUT_OFF, *folders, *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logits = torch.load(files[1])
    for model, folder in zip(models, folders, strict=True):
        assert [torch.equal(found, model(images)) for found in logits[folder]] == [True, True]


@torch.no_grad()
def test_what_was_loaded_can_be_saved_again_and_is_the_same_folder(tmp_path):
    model = adapted(host_args={"img_size": 64}, num_tokens=12, sampling="corner")
    for name in ("first", "second"):
        dartok.save_pretrained(model, tmp_path / name / "model", class_names=["a", "b", "c"])
        model = dartok.from_pretrained(tmp_path / name / "model")
    for file in ("config.json", "model.safetensors", "README.md"):
        first, second = ((tmp_path / name / "model" / file) for name in ("first", "second"))
        assert first.read_bytes() == second.read_bytes(), file


@torch.no_grad()
@pytest.mark.parametrize("cls", ["ViTForImageClassification", "ViTModel"])
def test_a_model_of_transformers_is_kept_in_its_own_layout(tmp_path, cls):
    model, images = of_transformers(cls), torch.randn(2, 3, *SIZE)
    from transformers import AutoModel

    dartok.save_pretrained(model, tmp_path / "saved", measures={"top1": 0.5}, license="mit")
    loaded = dartok.from_pretrained(tmp_path / "saved")
    assert not loaded.training
    for other in (loaded, AutoModel.from_pretrained(tmp_path / "saved").eval()):
        assert torch.equal(other(images)[0], model(images)[0])
    assert str(dartok.transform(loaded)) == str(dartok.transform(model))
    assert tokenizer_of(dartok.from_pretrained(tmp_path / "saved", num_tokens=4)).num_tokens == 4
    card = (tmp_path / "saved" / "README.md").read_text()
    assert f"transformers' `{cls}`" in card
    assert 'license: "mit"' in card
    assert ("image-classification" in card) == ("Classification" in cls)


def test_the_image_processor_prepares_pictures_as_the_transform(tmp_path):
    model = of_transformers()
    from PIL import Image
    from transformers import AutoImageProcessor

    dartok.save_pretrained(model, tmp_path)
    picture = Image.fromarray(torch.randint(0, 255, (100, 150, 3), dtype=torch.uint8).numpy())
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(picture, return_tensors="pt")
    ours = dartok.transform(model)(picture)
    level = 1 / 255 / 0.5  # the two round a resized pixel in their own way
    torch.testing.assert_close(theirs["pixel_values"][0], ours, rtol=0, atol=1.01 * level)


def test_a_saved_model_of_training_is_saved_again(tmp_path):
    model = timm.create_model("dart_vit", host="test_vit", num_tokens=20, num_classes=3)
    dartok.save_pretrained(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["model_args"]["host"] == "test_vit"


def test_saving_changes_neither_the_model_nor_what_is_random(tmp_path):
    model = adapted(scorer="pixels").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    dartok.save_pretrained(model, tmp_path)
    assert torch.equal(torch.rand(1), expected)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_budget_of_each_image_is_kept(tmp_path):
    model = adapted(num_tokens=20)
    dartok.set_num_tokens(model, "auto", mean=18, least=5, most=40)
    model.patch_embed.budget.mass_per_token.fill_(0.07)
    dartok.save_pretrained(model, tmp_path)
    loaded = dartok.from_pretrained(tmp_path)
    assert repr(loaded.patch_embed.budget) == repr(model.patch_embed.budget)
    images = torch.randn(3, 3, *SIZE)
    assert torch.equal(loaded(images), model(images))


def test_another_budget_or_head_can_be_asked_for(tmp_path):
    dartok.save_pretrained(adapted(num_tokens=20, num_rows=4), tmp_path)
    model = dartok.from_pretrained(f"local-dir:{tmp_path}", num_tokens=9, num_classes=7)
    assert (model.patch_embed.num_tokens, model.patch_embed.num_rows) == (9, None)
    assert model(torch.randn(1, 3, *SIZE)).shape == (1, 7)
    rows = dartok.create_model(f"local-dir:{tmp_path}", num_rows=2).patch_embed
    assert (rows.num_tokens, rows.num_rows) == (20, 2)


def test_the_folder_says_how_pictures_are_prepared(tmp_path):
    model = adapted(host_args={"img_size": 96})
    model.pretrained_cfg |= {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.8}
    dartok.save_pretrained(model, tmp_path, class_names=("ant", "bee", "cat"))
    loaded = dartok.from_pretrained(tmp_path)
    assert str(dartok.transform(loaded)) == str(dartok.transform(model))
    data = timm.data.resolve_model_data_config(loaded)
    assert (tuple(data["input_size"]), data["crop_pct"]) == ((3, 96, 96), 0.8)
    assert tuple(data["mean"]) == (0.1, 0.2, 0.3)
    assert loaded.pretrained_cfg["label_names"] == ["ant", "bee", "cat"]
    assert loaded.patch_embed.pixel_range == (-0.5, pytest.approx(2.25))


def test_the_card_says_what_the_model_is_and_how_good(tmp_path):
    rows = [
        {"protocol": "ours", "num_tokens": 12, "top1": 0.51234, "loss": 1.5, "images": 100},
        {"protocol": "ours", "num_tokens": 20, "top1": 0.6, "loss": 1.25, "images": 100},
    ]
    model = adapted(num_tokens=12, scorer="edge")
    dartok.save_pretrained(model, tmp_path / "ants", measures=rows, license="mit")
    text = (tmp_path / "ants" / "README.md").read_text()
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert "library_name: dartok" in head
    assert 'license: "mit"' in head
    assert "metrics:\n- accuracy" in head
    assert "- adaptive-tokens" in head
    for words in (
        "`test_vit`",
        "12 regions",
        "`edge`",
        '`"hf-hub:NAME"`',
        "| ours | 12 | 100 | 51.23% | 1.5 |",
        "| size | 160 x 160 px |",
        "arXiv:2506.10390",
        "dartok.transform(model)",
    ):
        assert words in body
    assert json.loads((tmp_path / "ants" / "config.json").read_text())["measures"] == rows


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: adapted("vim_tiny", host_args={"depth": 1}),
            "The Vision Mamba `vim_tiny` (Vim-Ti) on adaptive",
        ),
        (lambda: adapted(), "timm's `test_vit` on adaptive"),
        (of_torchvision, "torchvision's `VisionTransformer` on adaptive"),
        (lambda: authors("darvim_tiny"), "The model `darvim_tiny` of DART's authors, after"),
    ],
)
def test_the_card_says_whose_the_host_is(tmp_path, build, words):
    dartok.save_pretrained(build(), tmp_path)
    assert f"\n\n{words}" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("videomamba_tiny", "The Vision Mamba `videomamba_tiny` (VideoMamba-Ti) on its fixed grid"),
        ("vit_tiny_patch16_224", "timm's `vit_tiny_patch16_224` on its fixed grid of patches."),
    ],
)
def test_the_card_of_a_fixed_grid_says_so(name, words):
    data = data_config(timm.create_model("test_vit"))
    card = Card("a", Recipe(name, {}), data, num_classes=3, measures=(), license=None)
    assert f"\n\n{words}" in card.text()
    assert "adaptive-tokens" not in card.text()


def test_the_front_matter_is_yaml(tmp_path):
    yaml = pytest.importorskip("yaml")
    dartok.save_pretrained(adapted(), tmp_path, license="cc-by-4.0", measures={"top1": 0.5})
    head = yaml.safe_load((tmp_path / "README.md").read_text().split("---\n")[1])
    assert head["license"] == "cc-by-4.0"
    assert head["metrics"] == ["accuracy"]
    assert set(head["tags"]) == {"timm", "vision", "dartok", "adaptive-tokens"}


def test_the_cards_own_lines_load_the_model(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    dartok.save_pretrained(adapted(), "saved")
    code = Path("saved/README.md").read_text().split("```python\n")[1].split("```")[0]
    names = {"picture": Image.new("RGB", (100, 80))}
    exec(code, names)
    assert names["logits"].shape == (1, 3)
