"""Files appear whole, or not at all."""

import errno

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


def test_a_full_disk_says_how_much_is_left_and_what_to_do(tmp_path):
    def full(path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    target = tmp_path / "a.bin"
    target.write_bytes(b"good")
    with pytest.raises(OSError, match=r"cannot be written .* MB left there; free space, or choose"):
        write_beside(target, full)
    assert target.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [target]


def test_another_error_of_the_system_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_beside(tmp_path / "nowhere" / "a.bin", lambda path: path.write_bytes(b""))
