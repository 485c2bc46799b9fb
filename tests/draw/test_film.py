"""Films: what is written is what PyAV alone reads back, and nothing is left of a failure."""

import gc
import resource
import signal
import sys
import weakref
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from dartok.draw import save_film

av = pytest.importorskip("av")


def pictures(count, size=(96, 64)):
    """Soft colours that move from one to the next."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    for number in range(count):
        red, green = np.sin((x + 3 * number) / 17), np.cos((y - 2 * number) / 13)
        planes = [128 + 100 * red, 128 + 100 * green, np.full_like(red, 4 * number % 256)]
        yield Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def read(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        times = Fraction(stream.duration) * stream.time_base
        return stream.codec_context, Fraction(stream.average_rate), times, frames


@pytest.mark.parametrize("size", [(96, 64), (97, 64), (96, 63), (61, 33), (1, 1)])
def test_a_film_holds_the_pictures_to_even_sides(tmp_path, size):
    path = tmp_path / "film.mp4"
    given = [np.asarray(picture).astype(int) for picture in pictures(20, size)]
    assert save_film(pictures(20, size), path, fps=8) == 20
    _, _, seconds, frames = read(path)
    assert (len(frames), seconds) == (20, Fraction(20, 8))
    width, height = size
    for expected, frame in zip(given, frames, strict=True):
        assert frame.shape == (height + height % 2, width + width % 2, 3)
        error = np.abs(frame[:height, :width] - expected).mean()
        assert error < 6  # of 255: colours are stored at half the resolution
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_the_last_column_and_row_stand_twice_at_odd_sides_and_nothing_is_scaled(tmp_path):
    path = tmp_path / "film.mp4"
    grey = np.random.default_rng(0).integers(0, 2, (33, 35, 1)).repeat(3, axis=2) * 255
    save_film([Image.fromarray(grey.astype(np.uint8))], path, fps=8)
    _, _, _, (frame,) = read(path)
    expected = grey[[*range(33), 32]][:, [*range(35), 34]]
    np.testing.assert_allclose(frame, expected, rtol=0, atol=60)  # of 255, between black and white


def test_browsers_know_the_codec_and_need_not_wait_for_the_end_of_the_file(tmp_path):
    path = tmp_path / "film.mp4"
    save_film(pictures(5), path, fps=8)
    coder, _, _, _ = read(path)
    assert (coder.name, coder.profile, coder.pix_fmt) == ("h264", "High", "yuv420p")
    data = path.read_bytes()
    assert data[4:8] == b"ftyp"
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("colour", [(220, 30, 30), (20, 200, 40), (30, 40, 230), (255, 255, 255)])
def test_colours_are_stored_as_the_file_says(tmp_path, colour):
    path = tmp_path / "film.mp4"
    save_film([Image.new("RGB", (64, 64), colour)] * 3, path, fps=8)
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        tags = frame.colorspace, frame.color_range
        luma, blue, red = (plane.mean() for plane in np.split(frame.to_ndarray(), [64, 80]))
    assert tags == (1, 1)  # BT.709, limited range
    r, g, b = (channel / 255 for channel in colour)
    expected = 0.2126 * r + 0.7152 * g + 0.0722 * b
    np.testing.assert_allclose(luma, 16 + 219 * expected, rtol=0, atol=2)
    np.testing.assert_allclose(blue, 128 + 224 * (b - expected) / 1.8556, rtol=0, atol=2)
    np.testing.assert_allclose(red, 128 + 224 * (r - expected) / 1.5748, rtol=0, atol=2)


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (8, Fraction(8)),
        (30000 / 1001, Fraction(30000, 1001)),
        (12.5, Fraction(25, 2)),
        (1 / 3, Fraction(1, 3)),
        (1000, Fraction(1000)),
    ],
)
def test_the_rate_is_kept(tmp_path, fps, rate):
    path = tmp_path / "film.mp4"
    save_film(pictures(7), path, fps=fps)
    _, found, seconds, frames = read(path)
    assert found == rate
    assert float(seconds) == pytest.approx(7 / rate, abs=1e-3)  # seconds
    assert len(frames) == 7


def test_playing_can_begin_every_two_seconds(tmp_path):
    path = tmp_path / "film.mp4"
    save_film(pictures(50), path, fps=8)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    keys = [float(packet.pts * packet.time_base) for packet in packets if packet.is_keyframe]
    assert np.diff(keys).max() <= 2


def test_a_long_film_holds_few_pictures_in_memory(tmp_path):
    given, alive = [], []

    def counted():
        for picture in pictures(60):
            given.append(weakref.ref(picture))
            gc.collect()
            alive.append(sum(each() is not None for each in given))
            yield picture

    save_film(counted(), tmp_path / "film.mp4", fps=8)
    assert len(alive) == 60
    assert max(alive) <= 4  # the first, whose size the others must have, the last and this one


def test_other_modes_become_colours(tmp_path):
    path = tmp_path / "film.mp4"
    save_film([Image.new("L", (32, 32), 77), Image.new("RGBA", (32, 32), (9, 9, 9))], path, fps=8)
    _, _, _, frames = read(path)
    np.testing.assert_allclose(frames[0], 77, rtol=0, atol=3)  # of 255


def test_a_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "other").touch()
    save_film(pictures(2), tmp_path / "film.mp4", fps=8)
    assert (tmp_path / "film.mp4").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("given", "name", "fps", "message"),
    [
        (pictures(2), "film.avi", 8, r"film must end in .mp4, got .*film.avi"),
        (pictures(2), "film", 8, r"film must end in .mp4, got"),
        (pictures(2), "film.mp4", 0, "fps must be from 1/1001 to 1000, got 0"),
        (pictures(2), "film.mp4", -3.5, "fps must be from 1/1001 to 1000, got -3.5"),
        (pictures(2), "film.mp4", 1001, "got 1001"),
        (pictures(2), "film.mp4", 1e-6, "got 1e-06"),
        (pictures(2), "film.mp4", float("nan"), "got nan"),
        ([], "film.mp4", 8, "pictures must be at least one, got none"),
        (pictures(2, (4098, 2)), "film.mp4", 8, "at most 4096 px a side, got 4098 x 2 px"),
        ([*pictures(1), *pictures(1, (9, 9))], "film.mp4", 8, "96 x 64 px and then 9 x 9 px"),
    ],
)
def test_films_that_cannot_be_are_refused_in_one_line(tmp_path, given, name, fps, message):
    with pytest.raises(ValueError, match=message) as error:
        save_film(given, tmp_path / name, fps=fps)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.refuses
@pytest.mark.parametrize("place", ["missing/film.mp4", "file/film.mp4", "folder.mp4"])
def test_a_place_that_cannot_be_written_is_refused_in_one_line(tmp_path, place):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match=r"cannot write film .* \(.*\); choose a folder") as error:
        save_film(pictures(2), tmp_path / place, fps=8)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


@pytest.mark.refuses
@pytest.mark.parametrize("error", [OSError("disk on fire"), KeyboardInterrupt(), RuntimeError("x")])
def test_pictures_that_fail_leave_the_older_film_whole_and_tell_it_themselves(tmp_path, error):
    path = tmp_path / "film.mp4"
    save_film(pictures(3), path, fps=8)
    before = path.read_bytes()

    def failing():
        yield from pictures(60)
        raise error

    with pytest.raises(type(error)) as raised:
        save_film(failing(), path, fps=8)
    assert raised.value is error
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.refuses
@pytest.mark.parametrize("count", [3, 60])
def test_a_full_disk_leaves_the_older_film_whole(tmp_path, count):
    path = tmp_path / "film.mp4"
    path.write_bytes(b"older")
    noise = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype=np.uint8)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(ValueError, match=r"cannot write film .*film.mp4 \(File too large\)"):
            save_film(map(Image.fromarray, noise), path, fps=8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.refuses
def test_without_pyav_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"films need PyAV: pip install 'dartok\[video\]'"):
        save_film(pictures(2), tmp_path / "film.mp4", fps=8)


@pytest.mark.refuses
def test_a_pyav_without_the_encoder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"h264", "mpeg4"})
    with pytest.raises(ImportError, match="films need the encoder libx264"):
        save_film(pictures(2), tmp_path / "film.mp4", fps=8)
    assert not list(tmp_path.iterdir())
