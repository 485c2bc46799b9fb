"""`dartok show`: a picture for any image, or one line that says why not."""

import numpy as np
import pytest
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 256, (330, 400, 3), dtype=np.uint8)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photograph.png"
    Image.fromarray(NOISE).save(path)
    return path


@pytest.fixture
def out(tmp_path):
    return tmp_path / "deep" / "out"


def size(path):
    with Image.open(path) as image:
        image.load()
        return image.size


def test_the_picture_holds_three_panels_at_the_images_own_size(dartok, photograph, out):
    code, printed, err = dartok("show", photograph, "--out", out, "--tokens", 16)
    target = out / "photograph.regions.png"
    assert (code, printed, err) == (0, f"{target}\n", "")
    width, height = size(target)
    assert 3 * 400 < width < 3.3 * 400
    assert 330 < height < 1.3 * 330
    pixels = np.asarray(Image.open(target))
    assert (pixels[:330, :400] == NOISE[0, 0]).all(axis=-1).any()


@pytest.mark.parametrize(
    "options",
    [
        ["--scorer", "uniform"],
        ["--scorer", "conv", "--strength", "0.5"],
        ["--partition", "grid", "--tokens", "24", "--rows", "4"],
        ["--tokens", "1"],
        ["--tokens", "97"],
        ["--model", "test_vit", "--tokens", "30"],
        ["--model", "test_vit", "--scorer", "edge", "--partition", "grid"],
    ],
)
def test_options_change_the_regions(dartok, photograph, out, options):
    assert dartok("show", photograph, "--out", out).code == 0
    target = out / "photograph.regions.png"
    before = target.read_bytes()
    code, _, err = dartok("show", photograph, "--out", out, *options)
    assert (code, err) == (0, "")
    assert target.read_bytes() != before


@pytest.mark.filterwarnings("default")
def test_one_of_our_models_can_look(dartok, photograph, out):
    code, printed, _ = dartok("show", photograph, "--out", out, "--model", "darvit_tiny")
    assert (code, printed) == (0, f"{out / 'photograph.regions.png'}\n")


@pytest.mark.parametrize("model", [[], ["--model", "test_vit"]])
@pytest.mark.parametrize("size_px", [(1, 1), (3000, 6), (5, 900)])
def test_images_of_any_size_and_aspect_are_shown(dartok, tmp_path, out, size_px, model):
    path = tmp_path / "odd.png"
    Image.new("RGB", size_px, "teal").save(path)
    assert dartok("show", path, "--out", out, *model).code == 0
    width, height = size(out / "odd.regions.png")
    assert width >= size_px[0]
    assert height >= size_px[1]


def test_images_too_large_for_a_picture_are_drawn_smaller(dartok, tmp_path, out, monkeypatch):
    monkeypatch.setattr("dartok.cli.viewer._MOST_PIXELS", 400 * 300)
    path = tmp_path / "large.png"
    Image.new("RGB", (1200, 900), "teal").save(path)
    assert dartok("show", path, "--out", out).code == 0
    assert 1200 < size(out / "large.regions.png")[0] < 1300


def test_wide_images_are_stacked(dartok, tmp_path, out):
    path = tmp_path / "wide.png"
    Image.new("RGB", (900, 300), "teal").save(path)
    assert dartok("show", path, "--out", out).code == 0
    width, height = size(out / "wide.regions.png")
    assert width < 1000
    assert height > 900


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "0"], "tokens must be from 1 to 65536, got 0"),
        (["--tokens", "10", "--rows", "11"], "rows must be at most tokens = 10, got 11"),
        (["--rows", "0"], "rows must be >= 1, got 0"),
        (["--rows", "300"], "from 1 to num_tokens = 196, got 300"),
        (["--strength", "1.5"], "strength must be from 0 (fixed grid) to 1 (full method), got 1.5"),
        (["--scorer", "edgy"], "unknown scorer 'edgy'; did you mean edge?"),
        (["--scorer-weights", "imagenet"], "needs a pretrained backbone"),
        (["--tokens", "97", "--rows", "3", "--partition", "grid"], "num_tokens must be a multiple"),
        (["--model", "darvit_tinny"], "unknown model 'darvit_tinny'; did you mean darvit_tiny"),
        (["--model", "qqqqqqqq"], "unknown model 'qqqqqqqq'; see `dartok models`"),
        (["--model", "resnet18"], "cannot carry over ResNet"),
        (["--model", "darvit_tiny", "--scorer", "edge"], "leave out --scorer"),
        (["--checkpoint", "a.pth"], "checkpoint a.pth needs a model; name it with --model"),
        (["--model", "test_vit", "--checkpoint", "a.pth"], "checkpoint a.pth is not a file"),
    ],
)
def test_options_that_cannot_work_are_refused_in_one_line(
    refused, photograph, out, arguments, message
):
    assert message in refused("show", photograph, "--out", out, *arguments)
    assert not out.exists()


@pytest.mark.refuses
def test_a_missing_image_is_refused_before_anything_is_written(refused, photograph, out, tmp_path):
    missing = tmp_path / "missing.png"
    assert f"image {missing} does not exist" in refused("show", photograph, missing, "--out", out)
    assert not out.exists()


@pytest.mark.refuses
def test_a_folder_is_refused(refused, tmp_path, out):
    assert "is a folder; name the files in it" in refused("show", tmp_path, "--out", out)


@pytest.mark.refuses
def test_images_of_one_name_are_refused(refused, photograph, tmp_path, out):
    other = tmp_path / "photograph.jpg"
    other.touch()
    assert "would both be written to" in refused("show", photograph, other, "--out", out)


@pytest.mark.refuses
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_that_cannot_be_a_folder_is_refused(refused, photograph, tmp_path, place):
    (tmp_path / "file").touch()
    assert "choose another --out" in refused("show", photograph, "--out", tmp_path / place)


def test_a_damaged_image_stops_the_run_and_leaves_whole_pictures(dartok, photograph, out, tmp_path):
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(photograph.read_bytes()[:5000])
    last = tmp_path / "last.png"
    Image.fromarray(NOISE).save(last)
    code, printed, err = dartok("show", photograph, damaged, last, "--out", out)
    assert code == 2
    assert printed == f"{out / 'photograph.regions.png'}\n"
    assert err.startswith(f"dartok: error: image {damaged} cannot be read (")
    assert err.count("\n") == 1
    assert [path.name for path in out.iterdir()] == ["photograph.regions.png"]
    assert size(out / "photograph.regions.png")[0] > 1200


def test_a_box_draws_regions_to_it(dartok, photograph, out):
    arguments = ["show", photograph, "--tokens", 64, "--scorer", "uniform"]
    assert dartok(*arguments, "--out", out / "plain").code == 0
    assert dartok(*arguments, "--out", out / "zero", "--box", 0, 0, 0.5, 0.5, "--box-weight", 0)
    assert dartok(*arguments, "--out", out / "box", "--box", 0, 0, 0.5, 0.5).code == 0
    plain, zero, box = (
        np.asarray(Image.open(out / name / "photograph.regions.png")).astype(int)
        for name in ("plain", "zero", "box")
    )
    assert (plain == zero).all()
    assert box.shape == plain.shape
    assert (box != plain).any()


@pytest.mark.refuses
@pytest.mark.parametrize("box", [(0.5, 0, 0.2, 1), (0, 0, 1, 1.5), (-0.1, 0, 1, 1)])
def test_a_box_must_lie_in_the_picture(refused, photograph, box):
    assert "box must be left, top, right, bottom from 0 to 1" in refused(
        "show", photograph, "--box", *box
    )
