"""`dartok eval`: every picture once, at each budget."""

import json

import numpy as np
import pytest
import torch
from packages import CLASSES, write_adapted, write_package
from PIL import Image
from pyarrow import parquet
from torchvision import transforms

from dartok.core.tokenizer import Tokenizer
from dartok.data.images import open_image
from dartok.data.transforms import eval_transform
from dartok.models import set_num_tokens
from dartok.scorers.statistics import ScoreStatistics
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


def test_the_rows_of_the_pictures_add_up_to_the_table_at_each_budget(dartok, tmp_path, pictures):
    write_adapted(tmp_path / "best")
    broken = pictures / "ant" / "broken.png"
    broken.write_bytes((pictures / "ant" / "0.png").read_bytes()[:200])
    path = tmp_path / "made" / "rows.parquet"
    options = ("--num-tokens", "6,20", "--json", "--workers", "0", "--per-image", path)
    _, out, _ = dartok("eval", tmp_path / "best", pictures, *options, "--max-bad-share", "0.1")
    rows = parquet.read_table(path).to_pylist()
    assert len(rows) == 2 * 16
    for line in json.loads(out):
        own = [row for row in rows if row["num_tokens"] == line["num_tokens"]]
        read = [row for row in own if row["error"] is None]
        assert np.mean([row["predicted"] == row["label"] for row in read]) == line["top1"]
        assert np.mean([row["loss"] for row in read]) == pytest.approx(line["loss"])
        assert [row["name"].split("/")[0] for row in read] == [row["label"] for row in read]
        (damaged,) = (row for row in own if row["error"] is not None)
        assert damaged["name"] == "ant/broken.png"
        assert damaged["error"].startswith(f"image {broken} cannot be read")


def logits_as_the_authors(model, pictures, batch_size):
    """Their transform, written out, and the statistics of each batch in the order of the files."""
    transform = transforms.Compose(
        [
            transforms.Resize(512, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(448),
            transforms.ToTensor(),
            transforms.Normalize(pixels_of(model, None).mean, pixels_of(model, None).std),
        ]
    )
    paths = sorted(pictures.glob("*/*.png"))
    images = torch.stack([transform(open_image(path)) for path in paths])
    for module in model.modules():
        if isinstance(module, ScoreStatistics):
            module.source = "batch"
    with torch.no_grad():
        return torch.cat([model(part) for part in images.split(batch_size)])


def test_the_papers_protocol_stands_next_to_ours_and_is_the_authors(dartok, tmp_path, pictures):
    for path in pictures.glob("*/[234].png"):
        path.unlink()
    args = {"host": "test_vit", "num_tokens": 20, "scorer": "pixels"}
    model = write_package(tmp_path / "best", **args)
    options = ("--num-tokens", "6,20", "--json", "--workers", "0", "--batch-size", "4", "--paper")
    code, out, err = dartok("eval", tmp_path / "best", pictures, *options)
    rows = json.loads(out)
    assert (code, err) == (0, "")
    kinds = [(row["num_tokens"], row["protocol"], row["batch_size"]) for row in rows]
    assert kinds == [(6, "ours", 4), (6, "paper", 4), (20, "ours", 4), (20, "paper", 4)]
    labels = torch.arange(3).repeat_interleave(2)
    for ours, paper in zip(rows[::2], rows[1::2], strict=True):
        fresh = write_package(tmp_path / "again", **args)
        set_num_tokens(fresh, ours["num_tokens"])
        assert ours["top1"] == pytest.approx(accuracy_by_hand(fresh, pictures))
        logits = logits_as_the_authors(fresh, pictures, 4)
        expected = torch.nn.functional.cross_entropy(logits, labels).item()
        assert paper["loss"] == pytest.approx(expected, abs=1e-4)
        assert ours["loss"] != pytest.approx(paper["loss"], abs=1e-3)
    assert model.patch_embed.num_tokens == 20


@pytest.mark.filterwarnings("default:the score net of:UserWarning")
def test_the_table_names_protocol_and_batch_and_what_the_score_net_lacks(
    dartok, tmp_path, pictures
):
    write_adapted(tmp_path / "best")
    command = ("eval", tmp_path / "best", pictures, "--workers", "0", "--paper")
    code, out, err = dartok(*command, "--batch-size", "7")
    header, *lines = out.rstrip("\n").split("\n")
    assert code == 0
    assert header.split()[:3] == ["protocol", "batch", "tokens"]
    assert [line.split()[:3] for line in lines] == [["ours", "7", "20"], ["paper", "7", "20"]]
    assert err.count("standardises nothing") == 1


@pytest.mark.refuses
def test_the_papers_protocol_needs_regions(dartok, tmp_path, pictures):
    write_package(tmp_path / "best", name="test_vit")
    code, _, err = dartok("eval", tmp_path / "best", pictures, "--paper")
    assert code == 2
    assert "model must hold a dartok tokenizer" in err


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
