"""Pictures are written whole or not at all."""

import numpy as np
import pytest
from PIL import Image

from dartok.draw import save_image

PICTURE = Image.new("RGB", (20, 10), (10, 200, 30))


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".webp"])
def test_the_suffix_names_the_format(tmp_path, suffix):
    path = tmp_path / f"picture{suffix}"
    save_image(PICTURE, path)
    with Image.open(path) as image:
        assert image.format == {"j": "JPEG", "p": "PNG", "w": "WEBP"}[suffix[1].lower()]
        np.testing.assert_allclose(np.asarray(image.convert("RGB")), np.asarray(PICTURE), atol=4)
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "other").touch()
    save_image(PICTURE, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.refuses
@pytest.mark.parametrize("name", ["a.tiff", "a", "a.png.gz"])
def test_an_unknown_suffix_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"picture must end in .png, .jpg, .jpeg or .webp, got"):
        save_image(PICTURE, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.refuses
@pytest.mark.parametrize("folder", ["missing", "file"])
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write picture .*a.png") as error:
        save_image(PICTURE, tmp_path / folder / "a.png")
    assert "\n" not in str(error.value)


@pytest.mark.refuses
def test_a_failed_write_leaves_the_older_file_whole_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    save_image(PICTURE, path)
    before = path.read_bytes()

    def write_half(image, file, **options):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", write_half)
    with pytest.raises(ValueError, match="No space left on device"):
        save_image(PICTURE, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
