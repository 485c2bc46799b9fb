"""A folder of class folders: what is found in it, in which order, and what is refused."""

import numpy as np
import pytest
from PIL import Image
from refusals import refused

from dartok.data.folder import FolderSource


def put(path, colour="red"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 3), colour).save(path)


def names(source):
    return [source.name(index) for index in range(len(source))]


def test_classes_are_sorted_and_labels_are_indices_into_them(make_folder):
    source = FolderSource(make_folder(2))
    assert source.class_names == ("ant", "bee", "cat")
    assert [source.label(index) for index in range(len(source))] == [0, 0, 1, 1, 2, 2]
    assert names(source)[:3] == ["ant/000.png", "ant/001.png", "bee/000.png"]


def test_each_picture_is_read_with_its_own_label(make_folder):
    source = FolderSource(str(make_folder(3)))
    for index in range(9):
        colour = np.asarray(source.load(index))[0, 0].tolist()
        assert colour == [80 * source.label(index), index % 3, 7]


def test_pictures_are_found_at_any_depth_and_in_any_case_of_the_suffix(tmp_path):
    for name in ("a/x.PNG", "a/deep/er/y.jpeg", "b/z.webp", "b/v.bmp", "b/w.Tif"):
        put(tmp_path / name)
    expected = ["a/deep/er/y.jpeg", "a/x.PNG", "b/v.bmp", "b/w.Tif", "b/z.webp"]
    assert names(FolderSource(tmp_path)) == expected


def test_what_is_hidden_or_no_picture_is_passed_over(tmp_path):
    for name in ("a/1.png", "b/1.png", "a/._1.png", "a/.ipynb_checkpoints/1-copy.png", ".c/1.png"):
        put(tmp_path / name)
    for name in ("a/notes.txt", "a/Thumbs.db", "labels.csv", "stray.png"):
        (tmp_path / name).write_text("words")
    assert names(FolderSource(tmp_path)) == ["a/1.png", "b/1.png"]


def test_a_name_that_is_no_text_is_found_again(tmp_path):
    put(tmp_path / "a" / "1.png")
    put(tmp_path / "b" / "\udcff é.png")  # a byte that is no UTF-8
    source = FolderSource(tmp_path)
    assert names(source) == ["a/1.png", "b/\udcff é.png"]
    assert source.load(1).size == (4, 3)


def test_a_hidden_folder_above_the_classes_hides_nothing(tmp_path):
    for name in (".cache/a/1.png", ".cache/b/1.png"):
        put(tmp_path / name)
    assert len(FolderSource(tmp_path / ".cache")) == 2


def test_the_order_does_not_depend_on_when_files_were_made(tmp_path):
    for number, name in enumerate(["b/2.png", "a/9.png", "b/10.png", "a/1.png"]):
        put(tmp_path / "first" / name)
        put(tmp_path / "second" / sorted(["b/2.png", "a/9.png", "b/10.png", "a/1.png"])[number])
    expected = ["a/1.png", "a/9.png", "b/10.png", "b/2.png"]
    assert names(FolderSource(tmp_path / "first")) == expected
    assert names(FolderSource(tmp_path / "second")) == expected


def test_expected_classes_give_the_labels_and_may_lack_pictures(tmp_path):
    put(tmp_path / "cat" / "1.png")
    put(tmp_path / "ant" / "1.png")
    source = FolderSource(tmp_path, ("cat", "bee", "ant"))
    assert source.class_names == ("cat", "bee", "ant")
    assert [(source.name(index), source.label(index)) for index in range(2)] == [
        ("cat/1.png", 0),
        ("ant/1.png", 2),
    ]


def test_pictures_come_in_rgb_and_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    put(tmp_path / "b" / "1.png")
    (tmp_path / "a").mkdir()
    Image.new("LA", (4, 2)).save(tmp_path / "a" / "1.png", exif=exif)
    picture = FolderSource(tmp_path).load(0)
    assert (picture.mode, picture.size) == ("RGB", (2, 4))


@pytest.mark.refuses
def test_a_damaged_picture_is_refused_by_its_path(make_folder, damage):
    root = make_folder(2)
    damage(root / "bee" / "001.png")
    source = FolderSource(root)
    assert len(source) == 6
    with pytest.raises(ValueError, match=r"bee/001\.png cannot be read") as error:
        source.load(3)
    assert "\n" not in str(error.value)


@pytest.mark.refuses
def test_a_missing_folder_is_refused(tmp_path):
    root = tmp_path / "missing"
    with refused(f"folder {root} does not exist; check the path"):
        FolderSource(root)


@pytest.mark.refuses
def test_a_file_instead_of_a_folder_is_refused(tmp_path):
    root = tmp_path / "pictures.zip"
    root.write_bytes(b"PK")
    with refused(f"folder {root} is a file; name the folder that holds the class folders"):
        FolderSource(root)


@pytest.mark.refuses
@pytest.mark.parametrize(("folders", "found"), [([], "none"), (["cats"], "only 'cats'")])
def test_fewer_than_two_classes_are_refused(tmp_path, folders, found):
    for folder in folders:
        put(tmp_path / folder / "1.png")
    with refused(
        f"folder {tmp_path} must hold a folder of pictures for each of at least two classes, "
        f"got {found}; see dartok train --help"
    ):
        FolderSource(tmp_path)


@pytest.mark.refuses
def test_an_empty_class_is_refused(make_folder):
    root = make_folder(2)
    (root / "dog").mkdir()
    (root / "dog" / "notes.txt").write_text("words")
    with refused(f"folder {root / 'dog'} holds no picture; remove it or fill its class"):
        FolderSource(root)


@pytest.mark.refuses
def test_a_class_that_was_not_trained_on_is_refused(make_folder):
    root = make_folder(1, name="val")
    with refused(
        f"folder {root} holds the class 'bee', which is none of the 2 expected ones; "
        "rename or remove it"
    ):
        FolderSource(root, ("ant", "cat"))


@pytest.mark.refuses
def test_a_folder_without_any_of_the_expected_classes_is_refused(tmp_path):
    put(tmp_path / "1.png")
    with refused(f"folder {tmp_path} holds no class folder; one folder per class is needed"):
        FolderSource(tmp_path, ("ant", "cat"))
