"""`dartok train`, `eval` and `predict` on label maps, as a user types them."""

import json

import numpy as np
import pytest
from map_folders import write_maps
from PIL import Image

from dartok.cli.app import main


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    return write_maps(tmp_path_factory.mktemp("maps"))


@pytest.fixture(scope="module")
def best(maps, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    words = f"""train --task segmentation --data {maps} --out {out} --model test_vit --num-tokens 20
        --num-rows 4 --size-embedding --image-px 40 --crop-width-px 56 --batch-size 3 --steps 3
        --warmup-steps 1 --workers 0 --device cpu --score-boundary 0.3 --detail 2"""
    main(words.split())
    return out / "best"


def test_eval_prints_the_mean_and_the_iou_of_each_class(maps, best, capsys):
    main(["eval", str(best), str(maps), "--num-tokens", "9,20", "--workers", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "tokens",
        "mIoU",
        "pixels",
        "right",
        "mean",
        "class",
        "loss",
        "pictures",
    ]
    assert [line.split()[0] for line in lines if line.strip()][1:3] == ["9", "20"]
    assert lines[-2].startswith("ground")
    assert lines[-1].startswith("box")


def test_eval_as_json_is_what_the_table_shows(maps, best, capsys):
    main(["eval", str(best), f"{maps}:train", "--json", "--workers", "0", "--windows"])
    (row,) = json.loads(capsys.readouterr().out)
    assert row["images"] == 6
    assert row["miou"] == pytest.approx((row["iou/ground"] + row["iou/box"]) / 2)


def test_predict_paints_masks_of_the_pictures_size(maps, best, tmp_path, capsys):
    picture = maps / "images/val/4.png"
    main(["predict", str(best), str(picture), "--out", str(tmp_path / "masks"), "--top", "2"])
    assert capsys.readouterr().out.startswith(f"{picture}: ")
    with Image.open(tmp_path / "masks/4.mask.png") as mask:
        assert mask.size == (40, 48)
        assert set(np.unique(np.array(mask))) <= {0, 1}
    for kind in ("overlay", "regions"):
        assert (tmp_path / f"masks/4.{kind}.png").is_file()


def test_predict_as_json_gives_shares_that_add_up(maps, best, capsys):
    main(["predict", str(best), str(maps / "images/val"), "--json", "--windows"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 5
    assert all(sum(line["shares"].values()) == pytest.approx(1, abs=1e-5) for line in lines)


def test_a_damaged_picture_is_named_and_the_others_are_painted(maps, best, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(best), str(tmp_path / "broken.png"), str(maps / "images/val/0.png")])
    assert stop.value.code == 1
    shown = capsys.readouterr()
    assert "broken.png" in shown.err
    assert "0.png: " in shown.out


def test_the_audit_takes_the_regions_of_the_trained_model(maps, best, capsys):
    words = ["audit", str(maps), "--split", "val", "--num-tokens", "20", "--model", str(best)]
    main([*words, "--json"])
    kinds = json.dumps(json.loads(capsys.readouterr().out))
    assert '"model"' in kinds


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "{best}", "{maps}/images", "--engine", "ray"], "are for classifiers"),
        (["eval", "{best}", "{maps}", "--paper"], "per-image and paper are for classifiers"),
        (["eval", "{best}", "{maps}:nowhere"], "nowhere"),
        (
            ["train", "--data", "digits", "--out", "x", "--decoder", "mask"],
            "needs --task segmentation",
        ),
        (
            ["train", "--task", "segmentation", "--data", "{maps}/nowhere", "--out", "x"],
            "does not exist; check the path",
        ),
    ],
)
def test_misuse_is_answered_in_one_line(maps, best, capsys, words, message):
    with pytest.raises(SystemExit) as stop:
        main([word.format(maps=maps, best=best) for word in words])
    assert stop.value.code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
