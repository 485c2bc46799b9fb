"""Files appear whole, or not at all."""

import pytest

from dartok.core.files import write_beside


def test_a_file_is_never_seen_half_written(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("old")

    def write(target):
        target.write_text("new, ")
        assert path.read_text() == "old"
        assert target.parent == path.parent, "on another disk it could not be renamed into place"

    write_beside(path, write)
    assert path.read_text() == "new, "
    assert [left.name for left in tmp_path.iterdir()] == ["config.toml"]


@pytest.mark.refuses
@pytest.mark.parametrize("error", [OSError(28, "No space left"), RuntimeError("file write failed")])
def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "config.toml"
    path.write_text("old")

    def write(target):
        target.write_text("half")
        raise error

    with pytest.raises(OSError, match=r"No space left|cannot be written \(file write failed\)"):
        write_beside(path, write)
    assert path.read_text() == "old"
    assert [left.name for left in tmp_path.iterdir()] == ["config.toml"]
