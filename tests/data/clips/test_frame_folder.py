"""Folders of numbered pictures as videos."""

import pytest
from PIL import Image
from refusals import refused

from dartok.data.clips.video import open_video
from dartok.data.samples import DamagedError


def put_frames(folder, names, size=(6, 4)):
    folder.mkdir(parents=True)
    for name in names:
        number = int("".join(filter(str.isdigit, name)))
        Image.new("RGB", size, (number, 0, 0)).save(folder / name)
    return folder


def test_a_folder_of_numbered_pictures_is_a_video(tmp_path):
    names = ["img_10.png", "img_2.png", "img_1.PNG"]
    folder = put_frames(tmp_path / "17", names)
    (folder / "notes.txt").write_text("words")
    (folder / "._img_3.png").write_bytes(b"")
    video = open_video(folder)
    assert (video.name, video.num_frames, video.size) == (str(folder), 3, (4, 6))
    assert video.frames([2, 0, 1, 1])[:, 0, 0, 0].tolist() == [10, 1, 2, 2]


@pytest.mark.refuses
def test_damaged_pictures_of_a_folder_are_found_where_they_are_read(tmp_path):
    folder = put_frames(tmp_path / "17", ["1.png", "2.png", "3.png"])
    (folder / "2.png").write_bytes(b"<html>")
    video = open_video(folder)
    assert video.frames([0, 2]).shape == (2, 3, 4, 6)
    with pytest.raises(DamagedError, match=r"17/2\.png cannot be read"):
        video.frames([1])
    with pytest.raises(ValueError, match="must be some from 0 to 2, got"):
        video.frames([3])


@pytest.mark.refuses
def test_pictures_of_unequal_size_are_no_video(tmp_path):
    folder = put_frames(tmp_path / "17", ["1.png"])
    Image.new("RGB", (5, 4)).save(folder / "2.png")
    with refused(
        f"frames of {folder} must be of one size, got 6 x 4 and 5 x 4 (2.png); mend or remove the "
        "folder"
    ):
        open_video(folder).frames([0, 1])
    (tmp_path / "none").mkdir()
    with refused(
        f"folder {tmp_path}/none holds no picture; name a video file, or a folder of its frames"
    ):
        open_video(tmp_path / "none")
