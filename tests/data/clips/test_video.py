"""Videos: each frame is the same however it is reached, and damage is refused by name."""

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
import torch
from av.stream import Disposition
from clip_files import KINDS, NUM_FRAMES, decoded, picture, turn, write_sound, write_video
from PIL import Image

from dartok.data.clips import container as container_module
from dartok.data.clips.video import BlankVideo, decode_video, open_video
from dartok.data.samples import DamagedError


def pixels(video, indices):
    return video.frames(indices).permute(0, 2, 3, 1).numpy()


def count_decoded(monkeypatch):
    """List that grows by a number with each frame decoded."""
    passed, frames = [], container_module._frames

    def counted(*args):
        for frame in frames(*args):
            passed.append(frame.pts)
            yield frame

    monkeypatch.setattr(container_module, "_frames", counted)
    return passed


@pytest.mark.parametrize("kind", KINDS)
def test_each_frame_is_that_of_a_full_decoding_however_it_is_reached(files, kind):
    expected, video = decoded(files[kind]), open_video(files[kind])
    assert video.num_frames == len(expected) == NUM_FRAMES
    for index in range(NUM_FRAMES):
        assert np.array_equal(pixels(video, [index])[0], expected[index])
    rng = np.random.default_rng(0)
    for count in (2, 3, 5, 8):
        chosen = rng.integers(NUM_FRAMES, size=count)
        assert np.array_equal(pixels(video, chosen), np.stack([expected[i] for i in chosen]))
    assert np.array_equal(pixels(video, range(NUM_FRAMES)), np.stack(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_frames_come_in_display_order(files, kind):
    corners = pixels(open_video(files[kind]), range(0, NUM_FRAMES, 4))[:, 2:8, 2:12]
    levels = corners.mean((1, 2, 3))
    tolerance = 24 if kind in ("gif", "mpeg2", "wmv", "flv") else 10  # levels, of lossy coding
    assert np.abs(levels - np.arange(0, NUM_FRAMES, 4) * 4).max() < tolerance


def test_the_files_hold_what_makes_it_difficult(files):
    with av.open(str(files["h264"])) as container:
        kinds = {
            av.video.frame.PictureType(frame.pict_type).name for frame in container.decode(video=0)
        }
    assert kinds == {"I", "P", "B"}
    with av.open(str(files["vp9"])) as container:
        assert container.streams.video[0].frames == 0  # it does not say how many there are
    with av.open(str(files["h264-avi"])) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert times == sorted(times)  # made up: they deny that frames are reordered


@pytest.mark.parametrize("kind", ["h264", "h264-open-gop", "h265-open-gop", "vp9", "mjpeg"])
def test_reading_begins_at_the_key_frame_before(files, kind, monkeypatch):
    video, passed = open_video(files[kind]), count_decoded(monkeypatch)
    video.frames([NUM_FRAMES - 1])
    assert 1 <= len(passed) < NUM_FRAMES - 16


def test_a_key_frame_after_the_one_asked_for_is_of_no_use(files, monkeypatch):
    video, passed = open_video(files["h264"]), count_decoded(monkeypatch)
    video.frames([32])
    assert 1 <= len(passed) <= 12


def test_near_frames_are_read_in_one_go_and_far_ones_leapt_to(files, monkeypatch):
    video, passed = open_video(files["h264"]), count_decoded(monkeypatch)
    video.frames([0, 14])
    assert len(passed) == 15
    passed.clear()
    video.frames([0, 44])
    assert len(passed) < 15


def test_what_is_no_key_frame_after_all_is_read_from_the_beginning(files):
    """The frames after that of a file refreshed row by row are not whole before all rows are."""
    video = open_video(files["h264-intra-refresh"])
    assert len(video._index._keys) > 1
    assert np.array_equal(pixels(video, [41])[0], decoded(files["h264-intra-refresh"])[41])


def test_an_error_after_a_leap_is_no_damage_where_reading_from_the_beginning_has_none(
    files, monkeypatch
):
    frames, calls = container_module._frames, []

    def failing(container, stream):
        calls.append(stream)
        if len(calls) == 1:
            raise av.InvalidDataError(1, "a picture that is referred to is missing")
        yield from frames(container, stream)

    monkeypatch.setattr(container_module, "_frames", failing)
    found = pixels(open_video(files["h264"]), [40])[0]
    assert len(calls) == 2
    assert np.array_equal(found, decoded(files["h264"])[40])


@pytest.mark.parametrize("times", [[0, 1, 2, 10, 11, 40, 41, 90], [7, 8, 30, 31, 32, 33, 60, 61]])
def test_frames_shown_at_uneven_times_are_counted_one_by_one(tmp_path, times):
    path = write_video(tmp_path / "uneven", "h264-mkv", num_frames=8, times=times)
    expected, video = decoded(path), open_video(path)
    assert video.num_frames == 8
    for index in (7, 3, 5, 0):
        assert np.array_equal(pixels(video, [index])[0], expected[index])


def test_frames_of_vp8_that_are_only_predicted_from_are_none(files, tmp_path):
    data = bytearray(files["vp8"].read_bytes())
    with av.open(str(files["vp8"])) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    for packet in (packets[5], packets[30]):
        first = data.index(bytes(packet))
        data[first] &= ~0x10  # not shown
    path = tmp_path / "hidden.webm"
    path.write_bytes(data)
    expected, video = decoded(path), open_video(path)
    assert video.num_frames == len(expected) == NUM_FRAMES - 2
    assert np.array_equal(pixels(video, range(43)), np.stack(expected))


def test_what_an_editor_has_cut_away_without_coding_anew_is_not_shown(tmp_path):
    """The first frames of an MP4 file with an edit list are only decoded."""
    path = write_video(tmp_path / "edited", num_frames=20)
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 16  # where in the stream the one edit begins
    begin = int.from_bytes(data[place : place + 4], "big")
    data[place : place + 4] = (begin + 5 * 512).to_bytes(4, "big")
    path.write_bytes(data)
    expected, video = decoded(path), open_video(path)
    assert video.num_frames == len(expected) < 20
    for index in (0, 9, len(expected) - 1):
        assert np.array_equal(pixels(video, [index])[0], expected[index])


def test_a_file_that_does_not_begin_with_a_key_frame_has_the_frames_that_can_be_decoded(
    files, tmp_path
):
    path = tmp_path / "headless.mkv"
    with av.open(str(files["h264-mkv"])) as whole, av.open(str(path), "w") as headless:
        stream = headless.add_stream_from_template(whole.streams.video[0])
        for packet in list(whole.demux(video=0))[6:]:
            if packet.size:
                packet.stream = stream
                headless.mux(packet)
    expected, video = decoded(path), open_video(path)
    assert video.num_frames == len(expected) < NUM_FRAMES - 6
    assert np.array_equal(pixels(video, range(len(expected))), np.stack(expected))


def test_a_title_in_an_unknown_alphabet_does_no_harm(tmp_path):
    path = write_video(tmp_path / "titled.mkv", "h264-mkv", num_frames=2, title="unreadable")
    path.write_bytes(path.read_bytes().replace(b"unreadable", b"\xff\xfe" * 5))
    assert open_video(path).num_frames == 2


def test_the_cover_of_a_file_of_sound_is_no_video(tmp_path):
    path = tmp_path / "a.m4a"
    cover = BytesIO()
    Image.new("RGB", (8, 8)).save(cover, "jpeg")
    with (
        av.open(str(write_sound(tmp_path / "b.m4a"))) as sound,
        av.open(str(path), "w", format="mp4") as file,
    ):
        voice = file.add_stream_from_template(sound.streams.audio[0])
        picture = file.add_stream("mjpeg", rate=1)
        picture.width = picture.height = 8
        picture.pix_fmt = "yuvj420p"
        picture.disposition = Disposition.attached_pic
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts, packet.time_base = picture, 0, 0, Fraction(1, 1)
        file.mux(packet)
        for packet in sound.demux(audio=0):
            if packet.size:
                packet.stream = voice
                file.mux(packet)
    with pytest.raises(DamagedError, match=r"\(it holds no video\)"):
        open_video(path)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_video_of_a_turned_telephone_comes_upright(tmp_path, quarters):
    path = write_video(tmp_path / "turned", num_frames=3)
    stored = decoded(path)
    turn(path, quarters)
    video = open_video(path)
    assert video.size == ((48, 64) if quarters % 2 == 0 else (64, 48))
    upright = np.stack([np.rot90(frame, -quarters) for frame in stored])
    assert np.array_equal(pixels(video, [0, 1, 2]), upright)


@pytest.mark.parametrize(
    ("kind", "size"), [("ffv1", (47, 63)), ("mjpeg", (33, 35)), ("gif", (1, 1))]
)
def test_odd_sizes_keep_every_pixel(tmp_path, kind, size):
    path = write_video(tmp_path / "odd", kind, num_frames=2, size=size)
    video = open_video(path)
    assert video.size == size
    assert np.array_equal(pixels(video, [0, 1]), np.stack(decoded(path)))


@pytest.mark.parametrize("kind", ["h264", "mpeg4-avi", "vp9", "gif"])
def test_a_video_may_have_one_frame(tmp_path, kind):
    video = open_video(write_video(tmp_path / "one", kind, num_frames=1))
    assert video.num_frames == 1
    frames = video.frames([0, 0, 0])
    assert frames.shape == (3, 3, 48, 64)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames[0], frames[2])


def test_frames_come_in_the_order_asked_for_and_again(files):
    video, expected = open_video(files["h264"]), decoded(files["h264"])
    chosen = [30, 2, 2, 17, 30]
    assert np.array_equal(pixels(video, chosen), np.stack([expected[i] for i in chosen]))


def test_bytes_are_read_as_the_file_is(files):
    video = decode_video(files["h264"].read_bytes(), "a.tar/7")
    assert (video.name, video.num_frames, video.fps) == ("a.tar/7", NUM_FRAMES, 25.0)
    assert torch.equal(video.frames([40]), open_video(files["h264"]).frames([40]))


@pytest.mark.parametrize(
    "name", ["a:b.mp4", "100%d.mp4", "pipe:0.mp4", "a b\udcff.mp4", "no suffix"]
)
def test_a_name_is_a_path_whatever_it_looks_like(files, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(files["h264"].read_bytes())
    assert open_video(path).num_frames == NUM_FRAMES


def test_a_black_video_is_as_long_as_asked():
    assert BlankVideo().frames([0] * 5).count_nonzero() == 0


def test_the_textures_differ_from_frame_to_frame():
    assert not np.array_equal(picture(3, 48, 64), picture(4, 48, 64))
