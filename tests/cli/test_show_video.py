"""`dartok show` of videos: every frame is shown, clips have their tokens, nothing is half done."""

import sys
from fractions import Fraction
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from dartok.cli import film as film_module
from dartok.cli.film import film
from dartok.cli.show import ShowConfig
from dartok.cli.viewer import create_viewer

av = pytest.importorskip("av")

NOISE = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
GROUND = np.asarray(Image.fromarray(NOISE).resize((96, 72), Image.Resampling.BICUBIC))


def pixels(number, size=(96, 72)):
    """A still, soft ground, and a block of stripes that walks to the right in its lower half."""
    frame = np.array(Image.fromarray(GROUND).resize(size))
    left = 2 + 2 * number % (size[0] // 2)
    frame[40:56, left : left + 16] = np.array([[0], [255]] * 8, dtype=np.uint8)[:, :, None]
    return frame


def write(path, *, count=20, size=(96, 72), rate=Fraction(8), codec="libx264"):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 4
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(pixels(number, size), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path):
    with av.open(str(path)) as container:
        rate = Fraction(container.streams.video[0].average_rate)
        return rate, [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


@pytest.fixture
def video(tmp_path):
    return write(tmp_path / "walk.mp4")


@pytest.fixture
def out(tmp_path):
    return tmp_path / "deep" / "out"


@pytest.fixture
def drawn(monkeypatch):
    """The regions of each clip, as they are drawn."""
    found = []

    def draw(images, regions):
        found.append(regions)
        return real(images, regions)

    real = film_module.draw
    monkeypatch.setattr(film_module, "draw", draw)
    return lambda: found[1::2]  # after those of the fixed grid


class FakeVideo:
    """Frames that are made when asked for, and a list of what was asked for."""

    name, fps, size = "fake", 8.0, (72, 96)

    def __init__(self, num_frames):
        self.num_frames = num_frames
        self.asked = []

    def frames(self, indices):
        self.asked.append(list(indices))
        frames = np.stack([pixels(index) for index in indices])
        return torch.from_numpy(frames).permute(0, 3, 1, 2)


def viewer(**options):
    return create_viewer(ShowConfig(**options).for_videos())


@pytest.mark.parametrize("rate", [Fraction(8), Fraction(30000, 1001)])
def test_a_film_has_the_frames_and_the_rate_of_the_video(dartok, tmp_path, out, rate):
    source = write(tmp_path / "walk.mkv", rate=rate)
    code, printed, err = dartok("show", source, "--out", out)
    target = out / "walk.regions.mp4"
    assert (code, err) == (0, "")
    assert printed == f"{target}: 20 frames, {20 / float(rate):.1f} s\n"
    found_rate, frames = read(target)
    assert (found_rate, len(frames)) == (rate, 20)
    assert [path.name for path in out.iterdir()] == ["walk.regions.mp4"]


def test_each_frame_shows_its_picture_under_the_grid_and_under_the_regions(dartok, video, out):
    assert dartok("show", video, "--out", out).code == 0
    _, sources = read(video)
    _, frames = read(out / "walk.regions.mp4")
    height, width = frames[0].shape[:2]
    assert 3 * 384 < width < 3.3 * 384  # enlarged four times
    assert 288 < height < 1.3 * 288
    margin = (width - 3 * 384) // 4
    large = np.stack(sources).repeat(4, axis=1).repeat(4, axis=2).astype(int)
    for number, frame in enumerate(frames):
        for panel in (0, 1):
            left = margin + panel * (384 + margin)
            error = np.abs(frame[margin : margin + 288, left : left + 384] - large)
            near = error.max(axis=-1) < 40  # of 255; not where there are lines
            assert near[number].mean() > 0.6
            assert error.mean(axis=(1, 2, 3)).argmin() == number
        assert (frame[margin : margin + 288, margin : margin + 384] > 230).all(axis=-1).any()


def test_wide_videos_are_stacked(dartok, tmp_path, out):
    source = write(tmp_path / "wide.mp4", count=3, size=(240, 72))
    assert dartok("show", source, "--out", out).code == 0
    height, width = read(out / "wide.regions.mp4")[1][0].shape[:2]
    assert height > 3 * 144
    assert width < 600


def test_large_frames_are_drawn_smaller(dartok, tmp_path, out, monkeypatch):
    monkeypatch.setattr(film_module, "_MOST_PIXELS", 400 * 300)
    source = write(tmp_path / "large.mp4", count=2, size=(1200, 900))
    assert dartok("show", source, "--out", out).code == 0
    assert 1200 < read(out / "large.regions.mp4")[1][0].shape[1] < 1300


def test_sheets_larger_than_a_film_may_be_are_made_smaller(video, dartok, out, monkeypatch):
    monkeypatch.setattr(film_module, "_LONGEST_PX", 300)
    assert dartok("show", video, "--out", out).code == 0
    assert read(out / "walk.regions.mp4")[1][0].shape[1] == 300


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], [784, 196]),
        (["--frames", "8"], [392, 392, 196]),
        (["--frames", "20", "--tokens", "333"], [333]),
        (["--tokens", "100"], [100, 25]),
        (["--tokens", "3"], [3, 1]),
        (["--frames", "1"], [49] * 20),
        (["--frames", "6", "--tokens", "100"], [100, 100, 100, 33]),
        (["--frames", "6", "--tokens", "24", "--rows", "9"], [24, 24, 24, 8]),
        (["--frames", "20", "--tokens", "140", "--rows", "9"], [140]),
        (
            ["--frames", "9", "--tokens", "108", "--rows", "3", "--partition", "grid"],
            [108, 108, 24],
        ),
    ],
)
def test_every_clip_has_the_tokens_asked_for_and_the_last_its_share(
    dartok, video, out, drawn, options, expected
):
    assert dartok("show", video, "--out", out, *options).code == 0
    assert [regions.num_tokens for regions in drawn()] == expected
    assert len(read(out / "walk.regions.mp4")[1]) == 20


def test_what_stands_still_gets_few_regions(dartok, video, out, drawn):
    first, moving = {}, {}
    for scorer in ("edge", "motion/edge"):
        options = ["--frames", "20", "--scorer", scorer]
        assert dartok("show", video, "--out", out, *options).code == 0
        regions = drawn()[-1]
        here = regions.centre_frames()[0]
        first[scorer] = (here == 0).sum().item()
        x, y = (regions.centres()[0, here > 0] * torch.tensor([96, 72])).T
        moving[scorer] = ((x < 68) & (y > 36) & (y < 60)).double().mean().item()
    assert first["motion/edge"] > 1.25 * first["edge"]
    assert moving["motion/edge"] > 1.15 * moving["edge"]
    assert dartok("show", video, "--out", out, "--frames", "20").code == 0
    assert torch.equal(drawn()[-1].strip_edges, regions.strip_edges)  # it is the default


def test_a_caption_tells_how_many_regions_a_frame_has(video, dartok, out, monkeypatch):
    said = []

    def panel_sheet(pictures, captions, size_px):
        said.append(captions)
        return real(pictures, captions, size_px)

    real = film_module.panel_sheet
    monkeypatch.setattr(film_module, "panel_sheet", panel_sheet)
    assert dartok("show", video, "--out", out, "--frames", "10").code == 0
    widest, *captions = said
    assert widest[1] == "scorer motion/edge: 888 of 490 regions for 10 frames"
    assert {grid for grid, _, _ in captions} == {"fixed grid: 7 x 7 = 49 regions in each frame"}
    heres = [int(regions.split()[2]) for _, regions, _ in captions]
    assert (sum(heres[:10]), sum(heres[10:])) == (490, 490)
    assert heres[0] == max(heres)


@pytest.mark.parametrize(
    "options",
    [
        ["--scorer", "uniform"],
        ["--scorer", "motion/conv", "--strength", "0.5"],
        ["--strength", "0"],
        ["--rows", "3"],
        ["--partition", "grid", "--tokens", "320", "--rows", "4"],
    ],
)
def test_options_change_the_film(dartok, video, out, options):
    assert dartok("show", video, "--out", out).code == 0
    before = read(out / "walk.regions.mp4")[1][10]
    code, _, err = dartok("show", video, "--out", out, *options)
    assert (code, err) == (0, "")
    assert (read(out / "walk.regions.mp4")[1][10] != before).any()


def test_a_model_sees_each_frame_by_itself(dartok, tmp_path, out, drawn):
    source = write(tmp_path / "walk.mp4", count=3)
    picture = tmp_path / "walk.png"
    Image.fromarray(pixels(0)).save(picture)
    code, printed, _ = dartok(
        "show", source, picture, "--out", out, "--model", "test_vit", "--tokens", "30"
    )
    assert (code, len(printed.splitlines())) == (0, 2)
    assert [regions.num_tokens for regions in drawn()] == [30, 30, 30]
    assert [regions.num_frames for regions in drawn()] == [1, 1, 1]


@pytest.mark.filterwarnings("default")
def test_one_of_the_authors_models_can_look(dartok, tmp_path, out, drawn):
    source = write(tmp_path / "walk.mp4", count=2)
    assert dartok("show", source, "--out", out, "--model", "darvit_tiny").code == 0
    assert [regions.num_tokens for regions in drawn()] == [196, 196]


def test_images_and_videos_may_be_mixed(dartok, video, tmp_path, out):
    picture = tmp_path / "walk.png"
    Image.fromarray(GROUND).save(picture)
    alone = tmp_path / "alone"
    assert dartok("show", picture, "--out", alone).code == 0
    code, printed, _ = dartok("show", video, picture, "--out", out)
    assert code == 0
    first, second = printed.splitlines()
    assert first.startswith(f"{out / 'walk.regions.mp4'}: ")
    assert second == str(out / "walk.regions.png")
    expected = (alone / "walk.regions.png").read_bytes()
    assert (out / "walk.regions.png").read_bytes() == expected


def test_a_gif_that_moves_is_a_video_and_one_that_does_not_a_picture(dartok, tmp_path, out):
    frames = [Image.fromarray(pixels(number)) for number in range(4)]
    frames[0].save(tmp_path / "a.GIF", save_all=True, append_images=frames[1:], duration=200)
    frames[0].save(tmp_path / "b.GIF")
    (tmp_path / "c.gif").write_bytes(b"GIF89a")
    code, printed, _ = dartok("show", tmp_path / "a.GIF", tmp_path / "b.GIF", "--out", out)
    assert code == 0
    assert printed.startswith(f"{out / 'a.regions.mp4'}: 4 frames, 0.8 s\n")
    assert printed.endswith(f"{out / 'b.regions.png'}\n")
    assert "image" in dartok("show", tmp_path / "c.gif", "--out", out).err


@pytest.mark.parametrize("size", [(8, 8), (62, 34), (34, 200)])
def test_videos_of_any_size_are_shown(dartok, tmp_path, out, size, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "pixels", lambda _, size: np.zeros(
        (size[1], size[0], 3), dtype=np.uint8
    ))  # fmt: skip
    source = write(tmp_path / "odd.mp4", count=3, size=size)
    assert dartok("show", source, "--out", out).code == 0
    assert len(read(out / "odd.regions.mp4")[1]) == 3


def test_frames_are_read_as_they_are_needed(monkeypatch):
    monkeypatch.setattr(film_module, "_AHEAD_BYTES", 2 * 4 * 3 * 72 * 96)
    video = FakeVideo(30)
    sheets = film(video, viewer(frames=4), 4)
    sizes = {next(sheets).size for _ in range(5)}
    assert video.asked == [list(range(8))]
    sizes |= {sheet.size for sheet in sheets}
    assert [len(asked) for asked in video.asked] == [8, 8, 8, 6]
    assert list(chain(*video.asked)) == list(range(30))
    assert len(sizes) == 1


def test_a_clip_larger_than_what_is_read_ahead_is_read_whole(monkeypatch):
    monkeypatch.setattr(film_module, "_AHEAD_BYTES", 1)
    video = FakeVideo(10)
    assert len(list(film(video, viewer(frames=4), 4))) == 10
    assert [len(asked) for asked in video.asked] == [4, 4, 2]


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--box", "0", "0", "1", "0.5"], "box (0.0, 0.0, 1.0, 0.5) is for images, got a video"),
        (["--frames", "0"], "frames must be from 1 to 128, got 0"),
        (["--frames", "129"], "frames must be from 1 to 128, got 129"),
        (["--frames", "4", "--model", "test_vit"], "model test_vit sees each frame by itself"),
        (["--scorer", "motion/edgy"], "unknown scorer 'motion/edgy'; did you mean motion/edge?"),
        (["--tokens", "100", "--partition", "grid", "--rows", "2"], "must be a multiple of"),
        (["--rows", "785"], "rows must be at most tokens = 784, got 785"),
        (["--model", "resnet18"], "cannot carry over ResNet"),
    ],
)
def test_options_that_cannot_work_are_refused_in_one_line(refused, video, out, arguments, message):
    assert message in refused("show", video, "--out", out, *arguments)
    assert not out.exists()


@pytest.mark.refuses
def test_frames_of_images_are_refused(refused, tmp_path, out):
    picture = tmp_path / "walk.png"
    Image.fromarray(GROUND).save(picture)
    message = "frames 4 is for videos, got images; leave out --frames"
    assert refused("show", picture, "--frames", "4", "--out", out) == message


@pytest.mark.refuses
@pytest.mark.parametrize("content", [b"", b"hello", None])
def test_a_damaged_video_is_refused_before_anything_is_written(
    refused, video, out, tmp_path, content
):
    damaged = tmp_path / "damaged.mp4"
    whole = video.read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2] if content is None else content)
    message = refused("show", damaged, "--out", out)
    assert message.startswith(f"video {damaged} cannot be read (")
    assert not out.exists()


@pytest.mark.refuses
def test_a_video_that_is_damaged_further_on_leaves_no_film(dartok, tmp_path, out, monkeypatch):
    monkeypatch.setattr(film_module, "_AHEAD_BYTES", 1)
    source = write(tmp_path / "walk.mp4", count=40)
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(source.read_bytes())
    for packet in packets[24:32]:
        data[packet.pos + 4 : packet.pos + packet.size] = bytes(packet.size - 4)
    source.write_bytes(data)
    code, printed, err = dartok("show", source, "--out", out)
    assert (code, printed) == (2, "")
    assert err.startswith(f"dartok: error: video {source} cannot be read (")
    assert err.count("\n") == 1
    assert list(out.iterdir()) == []


@pytest.mark.refuses
def test_without_pyav_the_extra_is_named(refused, video, out, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    assert "pip install 'dartok[video]'" in refused("show", video, "--out", out)
    assert not out.exists()


@pytest.mark.refuses
def test_a_pyav_without_the_encoder_is_refused(refused, video, out, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"h264"})
    assert "films need the encoder libx264" in refused("show", video, "--out", out)
    assert not out.exists()


@pytest.mark.refuses
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_that_cannot_be_a_folder_is_refused(refused, video, tmp_path, place):
    (tmp_path / "file").touch()
    assert "choose another --out" in refused("show", video, "--out", tmp_path / place)


@pytest.mark.refuses
def test_videos_of_one_name_are_refused(refused, video, tmp_path, out):
    other = tmp_path / "walk.webm"
    other.touch()
    assert "would both be written to" in refused("show", video, other, "--out", out)
