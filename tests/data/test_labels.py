"""Labels of files: numbers and names, in the order of the file or of a model."""

import pytest
from refusals import refused

from dartok.data.columns import picture_bytes
from dartok.data.labels import Labels, distinct_names, read_class_names


def test_numbers_count_the_files_own_classes_and_names_are_looked_up():
    labels = Labels(("cat", "dog", "eel"), own=("dog", "eel"), where="here")
    assert [labels.index(label, "") for label in (0, 1, "cat", "eel")] == [1, 2, 0, 2]


def test_classes_that_are_numbers_are_looked_up_by_them():
    labels = Labels(distinct_names([10, 2, 5, 2], "here"), where="here")
    assert labels.class_names == ("2", "5", "10")
    assert [labels.index(label, "") for label in (2, 5, 10)] == [0, 1, 2]


def test_class_names_are_the_lines_of_a_file(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("tabby cat\n\n  dog\r\n", encoding="utf-8")
    assert read_class_names(path) == ("tabby cat", "dog")


def test_a_cell_is_bytes_or_names_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"xyz")
    cells = [
        b"xyz",
        {"bytes": b"xyz", "path": "gone"},
        {"bytes": None, "path": str(tmp_path / "a")},
    ]
    assert [picture_bytes(cell) for cell in cells] == [b"xyz"] * 3
    assert picture_bytes({"bytes": None, "path": "gone"}) == picture_bytes(None) == b""


@pytest.mark.refuses
@pytest.mark.parametrize("label", [-1, 2, "eel", None, True, 0.0])
def test_a_label_of_no_class_is_refused(label):
    with refused(
        "label of row 3 must be one of the 2 classes, cat, dog, or the number of one, "
        f"got {label!r}; mend or remove it"
    ):
        Labels(("cat", "dog"), where="here").index(label, "row 3")


@pytest.mark.refuses
@pytest.mark.parametrize("labels", [[0.5, 1.5], [1, "a"], ["a", None]])
def test_labels_that_are_neither_numbers_nor_names_are_refused(labels):
    with pytest.raises(ValueError, match="labels of here must be all whole numbers or all names"):
        distinct_names(labels, "here")


@pytest.mark.refuses
def test_files_that_do_not_name_classes_are_refused(tmp_path):
    path = tmp_path / "classes.txt"
    with pytest.raises(ValueError, match="classes must name a text file with one class a line"):
        read_class_names(path)
    path.write_text("cat\n")
    with refused(f"classes {path} must name at least two, one a line, got 1"):
        read_class_names(path)
    path.write_text("cat\ndog\ncat")
    with refused(f"classes {path} must name each once, got 'cat' 2 times"):
        read_class_names(path)
    with refused(
        "here must hold at least two classes, got 1; name them in a file, one a line, and give it "
        "as --classes"
    ):
        Labels(("cat",), where="here")
