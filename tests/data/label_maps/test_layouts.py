"""Each layout is known by its look, and its numbers become classes from 0 and 255."""

from pathlib import Path

import numpy as np
import pytest

from dartok.data.label_maps import IGNORE, open_label_maps
from dartok.data.label_maps.ade20k_classes import ADE20K_NAMES

CAMVID = Path(__file__).parents[4] / "shared" / "data" / "camvid"


def labels(source, index=0):
    return np.asarray(source.load(index).labels).ravel().tolist()


@pytest.mark.parametrize("below", ["", "ADEChallengeData2016/"])
def test_ade20k_counts_from_1_and_ignores_0(tmp_path, write, picture, stored, below):
    for split, numbers in (("training", (0, 1, 2, 150, 13, 21)), ("validation", (3,) * 6)):
        write(f"{below}images/{split}/a.jpg", picture)
        write(f"{below}annotations/{split}/a.png", stored(*numbers))
    train, val = (open_label_maps(tmp_path, split) for split in ("train", "val"))
    assert labels(train) == [IGNORE, 0, 1, 149, 12, 20]
    assert labels(val) == [2] * 6
    assert [train.class_names[i] for i in (0, 1, 149, 12, 20)] == [
        "wall",
        "building",
        "flag",
        "person",
        "car",
    ]
    assert len(set(ADE20K_NAMES)) == len(set(train.colours)) == 150


def test_cityscapes_ids_become_the_19_training_ids(tmp_path, write, picture, stored):
    write("leftImg8bit/train/bonn/bonn_0_0_leftImg8bit.png", picture)
    write("gtFine/train/bonn/bonn_0_0_gtFine_labelIds.png", stored(0, 7, 8, 33, 29, 23))
    write("gtFine/train/bonn/bonn_0_0_gtFine_color.png", picture)
    source = open_label_maps(tmp_path, "train")
    assert source.name(0) == "leftImg8bit/train/bonn/bonn_0_0_leftImg8bit.png"
    assert labels(source) == [IGNORE, 0, 1, 18, IGNORE, 10]
    assert len(source.class_names) == len(source.colours) == 19


def test_cityscapes_training_ids_are_read_where_the_ids_are_missing(
    tmp_path, write, picture, stored
):
    write("leftImg8bit/val/ulm/ulm_0_0_leftImg8bit.png", picture)
    write("gtFine/val/ulm/ulm_0_0_gtFine_labelTrainIds.png", stored(0, 1, 18, 255, 5, 5))
    assert labels(open_label_maps(tmp_path, "val")) == [0, 1, 18, IGNORE, 5, 5]


@pytest.mark.parametrize("below", ["", "VOC2012/", "VOCdevkit/VOC2012/"])
def test_voc_reads_the_indices_of_the_palette(tmp_path, write, picture, stored, below):
    for name in ("a", "b"):
        write(f"{below}JPEGImages/{name}.jpg", picture)
    write(f"{below}SegmentationClass/b.png", stored(0, 1, 20, 255, 15, 15), palette=True)
    lists = tmp_path / below / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b\n\n")
    source = open_label_maps(tmp_path, "val")
    assert len(source) == 1
    assert labels(source) == [0, 1, 20, IGNORE, 15, 15]
    assert (source.class_names[15], source.colours[15]) == ("person", (192, 128, 128))


def test_voc_takes_the_larger_training_set_from_its_own_folder(tmp_path, write, picture, stored):
    write("JPEGImages/a.jpg", picture)
    write("SegmentationClass/other.png", stored(*[1] * 6))
    write("SegmentationClassAug/a.png", stored(*[7] * 6))
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "trainaug.txt").write_text("/JPEGImages/a.jpg /SegmentationClassAug/a.png\n")
    assert labels(open_label_maps(tmp_path, "trainaug")) == [7] * 6


def test_camvid_ignores_11(tmp_path, write, picture, stored):
    write("train/a.png", picture)
    write("trainannot/a.png", stored(0, 10, 11, 3, 3, 3))
    source = open_label_maps(tmp_path, "train")
    assert labels(source) == [0, 10, IGNORE, 3, 3, 3]
    assert source.class_names[2] == "pole"


@pytest.mark.skipif(not CAMVID.is_dir(), reason="the real pictures are not there")
def test_the_real_camvid_is_read():
    sources = [open_label_maps(CAMVID, split) for split in ("train", "val", "test")]
    assert [len(source) for source in sources] == [367, 101, 233]
    picture = sources[0].load(0)
    assert picture.image.size == picture.labels.size == (480, 360)
    shares = sum(np.bincount(labels(sources[0], i), minlength=256) for i in range(0, 367, 4))
    shares = shares / shares.sum()
    road, void = shares[sources[0].class_names.index("road")], shares[IGNORE]
    assert (road, void) == pytest.approx((0.32, 0.04), abs=0.02)


@pytest.mark.parametrize("place", ["{}/train", "train/{}"])
def test_ones_own_folder_has_its_classes_in_a_file(tmp_path, write, picture, stored, place):
    write(f"{place.format('images')}/deep/a.jpg", picture)
    write(f"{place.format('labels')}/deep/a.png", stored(0, 1, 2, 9, 1, 0))
    (tmp_path / "classes.txt").write_text(
        "cat #ff8000\ntraffic light, #0000FF\n\ndog\nignore = 9\n"
    )
    source = open_label_maps(tmp_path, "train")
    assert source.class_names == ("cat", "traffic light", "dog")
    assert source.colours[:2] == ((255, 128, 0), (0, 0, 255))
    assert labels(source) == [0, 1, 2, IGNORE, 1, 0]


@pytest.mark.parametrize(
    ("line", "numbers", "expected"),
    [
        ("", (0, 1, 255, 0, 0, 0), [0, 1, IGNORE, 0, 0, 0]),
        ("ignore = 0", (0, 1, 2, 1, 1, 1), [IGNORE, 0, 1, 0, 0, 0]),
        ("ignore=1,300", (0, 1, 2, 300, 0, 0), [0, IGNORE, 1, IGNORE, 0, 0]),
    ],
)
def test_ignored_numbers_are_left_out_of_the_counting(
    tmp_path, write, picture, stored, line, numbers, expected
):
    write("images/val/a.jpg", picture)
    write("labels/val/a.png", stored(*numbers, dtype=np.uint16))
    (tmp_path / "classes.txt").write_text(f"cat\ndog\n{line}\n")
    assert labels(open_label_maps(tmp_path, "val")) == expected


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("cat\n", "at least two, one a line, got 1"),
        ("cat\ndog\ncat\n", "each once, got 'cat' 2 times"),
        ("\n".join(f"c{i}" for i in range(256)), "at most 255, got 256"),
    ],
)
def test_classes_that_cannot_be_are_refused(tmp_path, text, match):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match=match):
        open_label_maps(tmp_path, "train")


def test_a_missing_folder_and_an_unknown_layout_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        open_label_maps(tmp_path / "no", "train")
    with pytest.raises(ValueError, match=r"none of .* ADE20K .* Cityscapes .* CamVid"):
        open_label_maps(tmp_path, "train")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        open_label_maps(tmp_path / "file", "train")


def test_a_missing_split_is_refused(tmp_path, write, picture, stored):
    write("train/a.png", picture)
    write("trainannot/a.png", stored(*[0] * 6))
    with pytest.raises(ValueError, match=r"val is missing: CamVid's pictures"):
        open_label_maps(tmp_path, "val")


def test_a_picture_without_labels_is_refused(tmp_path, write, picture, stored):
    for name in ("a", "b"):
        write(f"train/{name}.jpg", picture)
    write("trainannot/a.png", stored(*[0] * 6))
    with pytest.raises(ValueError, match=r"b\.jpg has no label map .*b\.png"):
        open_label_maps(tmp_path, "train")
    write("leftImg8bit/train/ulm/u_0_0_leftImg8bit.png", picture)
    (tmp_path / "gtFine" / "train").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"has no label map .*u_0_0_gtFine_labelIds\.png"):
        open_label_maps(tmp_path, "train")


def test_a_voc_picture_without_labels_is_refused(tmp_path, write, picture, stored):
    write("JPEGImages/a.jpg", picture)
    write("SegmentationClass/b.png", stored(*[0] * 6))
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"a\.jpg has no label map .*a\.png"):
        open_label_maps(tmp_path, "train")
    with pytest.raises(ValueError, match=r"val\.txt cannot be read"):
        open_label_maps(tmp_path, "val")
    (lists / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match="names no picture"):
        open_label_maps(tmp_path, "val")


def test_hidden_files_are_no_pictures(tmp_path, write, picture, stored):
    write("train/a.jpg", picture)
    write("train/.thumbnails/b.jpg", picture)
    write("trainannot/a.png", stored(*[0] * 6))
    assert len(open_label_maps(tmp_path, "train")) == 1
