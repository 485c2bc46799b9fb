"""`dartok export`: a file that was run, or one line that says why there is none."""

import pytest
from packages import write_adapted

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def folder(tmp_path):
    write_adapted(tmp_path / "bees")
    return tmp_path / "bees"


def test_a_folder_becomes_a_file_of_its_name_and_the_difference_is_printed(
    dartok, folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = dartok("export", folder, "--num-tokens", 12)
    assert (code, err) == (0, "")
    assert out.startswith("bees.onnx: ")
    assert "18 runs, largest difference" in out
    assert (tmp_path / "bees.onnx").stat().st_size > 10**5


@pytest.mark.refuses
def test_what_cannot_be_exported_is_refused_in_one_line(refused, folder, tmp_path):
    assert "unknown model 'wasps'" in refused("export", "wasps")
    assert "num-tokens must be >= 1, got 0" in refused("export", folder, "--num-tokens", 0)
    assert "must be named *.onnx for to='onnx', got bees.pt2" in refused(
        "export", folder, "--out", tmp_path / "bees.pt2"
    )
    nowhere = tmp_path / "nowhere" / "bees.onnx"
    assert "does not exist; make it" in refused("export", folder, "--out", nowhere)
