"""Small video files of every kind, and a reader of them that shares no code with ours."""

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

NUM_FRAMES = 45
"""Of the videos that tests share."""

QUIET_X265 = "log-level=none"


class Kind(NamedTuple):
    """How a video is coded."""

    suffix: str
    codec: str
    options: dict[str, str] | None = None
    pixels: str = "yuv420p"
    container: dict[str, str] | None = None


KINDS = {
    "h264": Kind(".mp4", "libx264", {"bf": "3", "g": "12"}),
    "h264-faststart": Kind(
        ".mp4", "libx264", {"bf": "2", "g": "12"}, container={"movflags": "faststart"}
    ),
    "h264-fragments": Kind(
        ".mp4", "libx264", {"g": "12"}, container={"movflags": "frag_keyframe+empty_moov"}
    ),
    "h264-open-gop": Kind(
        ".mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1:keyint=20:min-keyint=20"}
    ),
    "h264-intra-refresh": Kind(".mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=20"}),
    "h264-mkv": Kind(".mkv", "libx264", {"bf": "2", "g": "12"}),
    "h264-ts": Kind(".ts", "libx264", {"bf": "2", "g": "12"}),
    "h264-avi": Kind(".avi", "libx264", {"bf": "2", "g": "12"}),
    "h265-open-gop": Kind(
        ".mp4", "libx265", {"x265-params": f"{QUIET_X265}:keyint=20:open-gop=1:bframes=3"}
    ),
    "mpeg4": Kind(".mp4", "mpeg4", {"bf": "2", "g": "12"}),
    "mpeg4-avi": Kind(".avi", "mpeg4", {"bf": "2", "g": "12"}),
    "mpeg2": Kind(".mpg", "mpeg2video", {"bf": "2"}),
    "mjpeg": Kind(".avi", "mjpeg", pixels="yuvj420p"),
    "vp9": Kind(".webm", "libvpx-vp9", {"g": "20", "deadline": "realtime", "cpu-used": "8"}),
    "vp8": Kind(".webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "20"}),
    "wmv": Kind(".wmv", "wmv2"),
    "flv": Kind(".flv", "flv"),
    "ffv1": Kind(".mkv", "ffv1"),
    "gif": Kind(".gif", "gif", pixels="rgb8"),
}


def picture(number: int, height: int, width: int) -> np.ndarray:
    """A texture that moves; its upper left corner tells the number."""
    texture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    left, top = number % 16, 2 * number % 16
    image = Image.fromarray(texture).resize((width, height), box=(left, top, left + 32, top + 32))
    pixels = np.array(image)
    pixels[: height // 4, : width // 4] = number * 4 % 256
    return pixels


def write_video(
    path: Path,
    kind: str = "h264",
    *,
    num_frames: int = 30,
    size: tuple[int, int] = (48, 64),
    times: list[int] | None = None,
    first: int = 0,
    title: str = "",
) -> Path:
    """A video of moving texture, 25 frames a second, or shown at `times`, in 1/25 s."""
    how = KINDS[kind]
    path = path.with_suffix(how.suffix) if not path.suffix else path
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=how.container or {}) as container:
        container.metadata["title"] = title
        stream = container.add_stream(how.codec, rate=25, options=how.options or {})
        stream.height, stream.width = size
        stream.pix_fmt = how.pixels
        stream.thread_count = 1
        for number in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(first + number, *size), format="rgb24")
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path) -> Path:
    """A file of silence."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for place in range(4):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 8000, place * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path: Path, quarters_clockwise: int) -> None:
    """Note in an MP4 file that it is to be shown turned, as telephones do."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[quarters_clockwise]
    fixed = [value << 16 for value in (cos, sin, 0, -sin, cos, 0, 0, 0)] + [1 << 30]
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    data[place : place + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in fixed)
    path.write_bytes(data)


def decoded(path: Path) -> list[np.ndarray]:
    """All frames, one after the other, as they are stored."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
