"""`dartok predict`: names, shares and pictures of regions; damaged files are named."""

import json

import numpy as np
import pytest
import torch
from packages import CLASSES, write_adapted, write_package
from PIL import Image

from dartok.data.images import open_image
from dartok.data.transforms import eval_transform
from dartok.train.model import pixels_of


@pytest.fixture
def pictures(tmp_path):
    generator = np.random.default_rng(0)
    for name in ("a/one.png", "a/two.jpg", "b/one.png"):
        path = tmp_path / "new" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = generator.integers(256, size=(20, 30, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((190, 170)).save(path)
    return tmp_path / "new"


def shares_by_hand(model, path):
    with torch.no_grad():
        logits = model(eval_transform(pixels_of(model, None))(open_image(path))[None])
    return dict(zip(CLASSES, logits.softmax(-1)[0].tolist(), strict=True))


def test_each_picture_gets_its_classes_and_shares(dartok, tmp_path, pictures):
    model = write_adapted(tmp_path / "best")
    options = ("--json", "--top", "3", "--batch-size", "2")
    code, out, err = dartok("predict", tmp_path / "best", pictures, *options)
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, "")
    expected = ["a/one.png", "a/two.jpg", "b/one.png"]
    assert [line["image"] for line in lines] == [str(pictures / name) for name in expected]
    for line in lines:
        shares = shares_by_hand(model, line["image"])
        assert line["top"] == pytest.approx(shares, abs=1e-5)
        assert line["class"] == max(shares, key=shares.get)
        assert list(line["top"].values()) == sorted(line["top"].values(), reverse=True)


def test_a_pattern_a_file_and_a_folder_name_each_picture_once(dartok, tmp_path, pictures):
    write_adapted(tmp_path / "best")
    names = (pictures / "b" / "one.png", f"{pictures}/**/one.png", pictures / "b")
    code, out, _ = dartok("predict", tmp_path / "best", *names)
    paths = [line.split(": ")[0] for line in out.splitlines()]
    assert code == 0
    assert paths == [str(pictures / "b" / "one.png"), str(pictures / "a" / "one.png")]


def test_the_regions_are_drawn_and_equal_names_do_not_overwrite_each_other(
    dartok, tmp_path, pictures
):
    write_adapted(tmp_path / "best")
    dartok("predict", tmp_path / "best", pictures, "--out", tmp_path / "drawn")
    names = sorted(path.name for path in (tmp_path / "drawn").iterdir())
    assert names == ["one-2.regions.png", "one.regions.png", "two.regions.png"]
    first, second = (np.asarray(Image.open(tmp_path / "drawn" / name)) for name in names[:2])
    assert (first != second).any()


def test_a_damaged_picture_is_named_the_others_are_done_and_the_exit_code_says_so(
    dartok, tmp_path, pictures
):
    write_adapted(tmp_path / "best")
    broken = pictures / "a" / "broken.png"
    broken.write_bytes((pictures / "a" / "one.png").read_bytes()[:200])
    code, out, err = dartok("predict", tmp_path / "best", pictures)
    assert code == 1
    assert len(out.splitlines()) == 3
    assert err.startswith(f"dartok: warning: image {broken} cannot be read")
    assert err.count("\n") == 1


def test_another_budget_changes_the_shares(dartok, tmp_path, pictures):
    write_adapted(tmp_path / "best")
    path = pictures / "a" / "one.png"
    command = ("predict", tmp_path / "best", path, "--json")
    runs = [dartok(*command, "--num-tokens", number) for number in (4, 20)]
    few, own = (json.loads(run.out)["top"] for run in runs)
    assert few != own
    assert own == json.loads(dartok(*command).out)["top"]


@pytest.mark.refuses
def test_pictures_that_are_not_there_are_refused(refused, tmp_path):
    message = refused("predict", tmp_path, tmp_path / "nope.jpg")
    assert message == f"images {tmp_path / 'nope.jpg'} name no picture; check the path"


@pytest.mark.refuses
def test_drawing_regions_of_a_fixed_grid_is_refused(dartok, tmp_path, pictures):
    write_package(tmp_path / "best", name="test_vit")
    code, _, err = dartok("predict", tmp_path / "best", pictures, "--out", tmp_path / "drawn")
    assert code == 2
    assert "out needs a model with regions, got one with a fixed grid; drop --out" in err
    assert not (tmp_path / "drawn").exists()
