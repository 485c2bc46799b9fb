"""What is no whole video is refused by name, at once or where it is decoded."""

import sys

import av
import numpy as np
import pytest
from clip_files import NUM_FRAMES, decoded, write_sound
from PIL import Image
from refusals import refused

from dartok.data.clips.video import decode_video, open_video
from dartok.data.samples import DamagedError

HEADER_FIRST = ("h264-faststart", "h264-mkv", "vp9", "mjpeg", "gif")
"""Kinds that FFmpeg reads as far as they go where they are cut off."""


def pixels(video, indices):
    return video.frames(indices).permute(0, 2, 3, 1).numpy()


def damaged(folder, files):
    """Paths of files that are no whole video."""
    whole = files["h264-faststart"].read_bytes()
    contents = {
        "empty": b"",
        "zeros": bytes(4000),
        "text": b"<html><body>not found</body></html>\n" * 40,
        "cut": whole[: len(whole) * 2 // 3],
        "header": whole[:100],
        "no-index": files["h264"].read_bytes()[:4000],
        "picture": None,
        "sound": None,
    }
    for name, content in contents.items():
        path = folder / f"{name}.mp4"
        if name == "sound":
            write_sound(path)
        elif name == "picture":
            Image.new("RGB", (8, 8)).save(path, "png")
        else:
            path.write_bytes(content)
        yield path


@pytest.mark.refuses
def test_what_is_no_whole_video_is_refused_by_its_path_and_nothing_is_printed(
    files, tmp_path, capfd
):
    paths = list(damaged(tmp_path, files))
    assert len(paths) == 8
    for path in paths:
        with pytest.raises(DamagedError) as error:
            open_video(path)
        assert str(error.value).startswith(f"video {path} cannot be read (")
        assert str(error.value).endswith("play it in a viewer and save it again")
        assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.refuses
@pytest.mark.parametrize("kind", HEADER_FIRST)
def test_a_file_that_is_cut_off_anywhere_is_refused(files, kind, tmp_path):
    whole = files[kind].read_bytes()
    for share in (0.05, 0.2, 0.37, 0.5, 0.73, 0.9, 0.99):
        path = tmp_path / "cut"
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(DamagedError, match="cannot be read"):
            open_video(path)
    path.write_bytes(whole)
    assert open_video(path).num_frames == NUM_FRAMES


@pytest.mark.refuses
@pytest.mark.parametrize("share", [0.5, 0.6, 0.7])
def test_a_frame_that_is_cut_off_is_seen_without_decoding(files, share):
    """This kind of file does not say how long it is."""
    data = files["flv"].read_bytes()
    with pytest.raises(DamagedError, match=r"\(it is damaged or cut off\)"):
        decode_video(data[: int(len(data) * share)], "x")


@pytest.mark.refuses
def test_a_file_that_is_cut_off_says_so(files):
    with refused(
        "video x cannot be read (it is cut off); it may be damaged or not a video: play it in a "
        "viewer and save it again"
    ):
        decode_video(files["h264-mkv"].read_bytes()[:-40], "x")


@pytest.mark.refuses
def test_what_ffmpeg_finds_wrong_is_said_in_its_words(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(bytes(4000))
    with refused(
        f"video {path} cannot be read (Invalid data found when processing input); it may be "
        "damaged or not a video: play it in a viewer and save it again"
    ):
        open_video(path)


@pytest.mark.refuses
def test_a_frame_that_does_not_come_is_damage(files, tmp_path):
    """The one that others are predicted from is gone, with them."""
    path = tmp_path / "lossy.mp4"
    with av.open(str(files["mpeg4"])) as whole, av.open(str(path), "w") as lossy:
        stream = lossy.add_stream_from_template(whole.streams.video[0])
        packets = [packet for packet in whole.demux(video=0) if packet.size]
        frames = [index for index, packet in enumerate(packets) if packet.pts - packet.dts > 512]
        for index, packet in enumerate(packets):
            if index != frames[4]:
                packet.stream = stream
                lossy.mux(packet)
    video = open_video(path)
    assert video.num_frames == NUM_FRAMES - 1
    with pytest.raises(DamagedError, match=r"its frame \d+ of 44 does not come\)"):
        video.frames(range(video.num_frames))


@pytest.mark.refuses
def test_a_file_of_sound_says_so(tmp_path):
    path = write_sound(tmp_path / "a.mp4")
    with pytest.raises(DamagedError, match=r"\(it holds no video\)"):
        open_video(path)


def overwritten(path, target, begin=8):
    """A copy in which the frame in the middle is zeros from some byte on."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        places = [(packet.pos, packet.size) for packet in packets]
    data = bytearray(path.read_bytes())
    place, size = places[len(places) // 2]
    data[place + begin : place + size] = bytes(size - begin)
    target.write_bytes(data)
    return target


@pytest.mark.refuses
@pytest.mark.parametrize("kind", ["h264-faststart", "h264-mkv", "mpeg4", "mjpeg", "vp9"])
def test_damage_within_is_found_where_it_is_decoded_and_only_there(files, kind, tmp_path, capfd):
    path = overwritten(files[kind], tmp_path / "spoilt")
    video, expected = open_video(path), decoded(files[kind])
    assert video.num_frames == NUM_FRAMES
    assert np.array_equal(pixels(video, [2])[0], expected[2])
    with pytest.raises(DamagedError, match=r"^video .*spoilt cannot be read \(.+\); ") as error:
        video.frames(range(NUM_FRAMES))
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.refuses
@pytest.mark.parametrize("kind", ["h264-faststart", "mpeg4"])
def test_a_frame_that_is_damaged_in_part_is_not_made_up(files, kind, tmp_path):
    path = overwritten(files[kind], tmp_path / "spoilt", begin=80)
    assert len(decoded(path)) >= NUM_FRAMES - 1  # FFmpeg fills it in from others
    with pytest.raises(DamagedError, match="cannot be read"):
        open_video(path).frames(range(NUM_FRAMES))


@pytest.mark.refuses
@pytest.mark.parametrize("kind", ["mpeg4-avi", "h264-avi"])
def test_damage_of_a_file_that_is_counted_by_decoding_is_found_at_once(files, kind, tmp_path):
    with pytest.raises(DamagedError, match="cannot be read"):
        open_video(overwritten(files[kind], tmp_path / "spoilt"))


@pytest.mark.refuses
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile '{path}'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{path}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    ],
    ids=["concat", "hls", "hls-address"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat"])
def test_a_list_of_other_files_or_addresses_is_no_video(files, tmp_path, text, suffix):
    path = tmp_path / f"list{suffix}"
    path.write_text(text.format(path=files["h264-ts"]))
    with pytest.raises(DamagedError, match="cannot be read"):
        open_video(path)


@pytest.mark.refuses
def test_a_missing_file_is_refused(tmp_path):
    with refused(f"video {tmp_path}/a.mp4 does not exist; check the path"):
        open_video(tmp_path / "a.mp4")
    with pytest.raises(ValueError, match="does not exist"):
        open_video("http://example.org/a.mp4")


@pytest.mark.refuses
@pytest.mark.parametrize("indices", [[-1], [NUM_FRAMES], [0, 99], []])
def test_an_index_of_no_frame_is_the_callers_mistake_and_no_damage(files, indices):
    video = open_video(files["mjpeg"])
    with pytest.raises(ValueError, match="must be some from 0 to 44, got") as error:
        video.frames(indices)
    assert not isinstance(error.value, DamagedError)


@pytest.mark.refuses
def test_without_pyav_the_extra_is_named(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ImportError, match=r"^videos need PyAV: pip install 'dartok\[video\]'$"):
        open_video(files["h264"])
