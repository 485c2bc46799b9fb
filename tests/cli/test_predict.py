"""`dartok predict`: names, shares and pictures of regions; damaged files are named."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow
import pytest
import torch
from packages import CLASSES, write_adapted, write_package
from PIL import Image
from pyarrow import parquet

from dartok.data.images import open_image
from dartok.data.transforms import eval_transform
from dartok.train.model import pixels_of

WAIT_S = 500


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


@pytest.fixture
def table(tmp_path, pictures):
    """The pictures, and a damaged one, as rows: as bytes and as Hugging Face has them."""
    contents = [path.read_bytes() for path in sorted(pictures.glob("*/*"))]
    contents.insert(2, contents[0][:200])
    rows = {"image": [{"bytes": each, "path": None} for each in contents], "raw": contents}
    parquet.write_table(pyarrow.table(rows), tmp_path / "new.parquet", row_group_size=2)
    return tmp_path / "new.parquet"


@pytest.mark.parametrize("column", ["image", "raw"])
def test_rows_of_a_table_get_the_answers_of_their_files(dartok, tmp_path, pictures, table, column):
    write_adapted(tmp_path / "best")
    command = ("predict", tmp_path / "best", "--json", "--top", "3", "--image-column", column)
    files = [json.loads(line) for line in dartok(*command, pictures).out.splitlines()]
    code, out, err = dartok(*command, table)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert err.startswith(f"dartok: warning: image {table} row 2 cannot be read")
    assert [row.pop("image") for row in rows] == [f"{table} row {number}" for number in (0, 1, 3)]
    for row, file in zip(rows, files, strict=True):
        assert row["top"] == pytest.approx(file["top"], abs=1e-5)


def test_results_are_written_as_parquet(dartok, tmp_path, pictures, table):
    write_adapted(tmp_path / "best")
    command = ("predict", tmp_path / "best", table, "--top", "3")
    lines = [json.loads(line) for line in dartok(*command, "--json").out.splitlines()]
    code, out, err = dartok(*command, "--out-parquet", tmp_path / "found")
    assert (code, out, err.count("\n")) == (1, "", 1)
    rows = parquet.read_table(tmp_path / "found" / "part-00000.parquet").to_pylist()
    assert [row["image"] for row in rows] == [f"{table} row {number}" for number in range(4)]
    damaged = rows.pop(2)
    assert damaged["error"] == err.removeprefix("dartok: warning: ").rstrip("\n")
    assert damaged["class"] is None
    for row, line in zip(rows, lines, strict=True):
        assert (row["class"], row["error"]) == (line["class"], None)
        assert dict(zip(row["top"], row["shares"], strict=True)) == pytest.approx(
            line["top"], abs=1e-6
        )


def ours_in(text):
    """Without the one line that Ray's core prints of an actor with arguments."""
    return [line for line in text.splitlines() if line.startswith("dartok: ")]


@pytest.mark.slow
def test_ray_answers_as_this_process_does(tmp_path, pictures, table):
    """Files and row groups; a program of its own, as Ray starts many and warns of its own."""
    write_adapted(tmp_path / "best")
    (pictures / "b" / "broken.png").write_bytes(b"not a picture")

    def run(*options):
        command = (sys.executable, "-m", "dartok", "predict", "best", "new", "new.parquet")
        return subprocess.run(
            [*command, "--json", "--top", "3", "--batch-size", "2", *options],
            cwd=tmp_path,
            env=os.environ | {"OMP_NUM_THREADS": "1", "TMPDIR": "/tmp"},
            capture_output=True,
            text=True,
            check=False,
            timeout=WAIT_S,
        )

    here, ray = run(), run("--engine", "ray", "--device", "cpu")
    assert (here.returncode, ray.returncode) == (1, 1), ray.stderr
    expected, found = (
        [json.loads(line) for line in each.stdout.splitlines()] for each in (here, ray)
    )
    assert len(expected) == 6
    for one, other in zip(expected, found, strict=True):
        assert other["image"] == one["image"]
        assert other["top"] == pytest.approx(one["top"], abs=1e-5)
    assert ours_in(ray.stderr) == ours_in(here.stderr)
    assert len(ours_in(here.stderr)) == 2


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--engine", "ray", "--out", "drawn"), "out needs --engine local, got ray and drawn; "),
        (("--actors", "2"), "actors must be 1 with --engine local, got 2; "),
        (("--engine", "ray", "--actors", "0"), "actors must be >= 1, got 0"),
    ],
)
def test_options_that_an_engine_lacks_are_refused(refused, tmp_path, options, message):
    assert message in refused("predict", tmp_path, tmp_path, *options)


@pytest.mark.refuses
def test_a_table_without_the_column_or_that_is_none_is_refused(refused, tmp_path, table):
    message = refused("predict", tmp_path, table, "--image-column", "img")
    expected = f"image-column must be a column of {table}, got 'img'; there are image, raw"
    assert message == expected
    table.write_bytes(b"PAR1")
    message = refused("predict", tmp_path, table)
    assert message.startswith(f"{table} cannot be read as a Parquet file (")


@pytest.mark.refuses
def test_a_folder_that_holds_results_is_refused(refused, tmp_path, pictures):
    write_adapted(tmp_path / "best")
    old = tmp_path / "found" / "part-00000.parquet"
    old.parent.mkdir()
    old.touch()
    message = refused("predict", tmp_path / "best", pictures, "--out-parquet", old.parent)
    assert message == f"out-parquet {old.parent} must be a new or empty folder; choose another"


@pytest.mark.refuses
def test_missing_ray_is_answered_by_its_extra(dartok, tmp_path, pictures, monkeypatch):
    write_adapted(tmp_path / "best")
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = dartok("predict", tmp_path / "best", pictures, "--engine", "ray")
    assert code == 2
    assert "engine ray needs Ray: pip install 'dartok[ray]'" in err


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
