"""What `dartok show` makes of a video: a film of its regions."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from dartok.cli.console import say
from dartok.cli.show import make_folder
from dartok.cli.viewer import Viewer, count, even_regions, many, panel_sheet, seen, shrunk
from dartok.core.regions import Regions
from dartok.data.clips.video import Video, open_video
from dartok.draw import draw, draw_scores, save_film
from dartok.draw.film import check_encoder

__all__ = ["film", "write_film"]

_MOST_PIXELS = 640 * 480
"""Of a panel; larger frames are drawn smaller, and looked at so."""
_LONGEST_PX = 4096
"""Of the film: see `save_film`."""
_AHEAD_BYTES = 128 * 1024**2
"""Of frames that are read in one go: each go begins at a key frame again."""
_FPS = 25.0
"""Of a video that does not tell."""
_PAPER = (255, 255, 255)


def write_film(source: Path, target: Path, viewer: Viewer, num_frames: int) -> None:
    """Write the film of a video, and say where and how long it is.

    Args:
        source: The video.
        target: The film, an MP4 file.
        viewer: What looks at it.
        num_frames: Frames of a clip.
    Raises:
        ImportError: Without PyAV, the extra `video`.
        ValueError: If the video cannot be read or the film cannot be written.
    """
    check_encoder()
    video = open_video(source)
    sheets = film(video, viewer, num_frames)
    first = next(sheets)
    make_folder(target.parent)  # not before there is something to put into it
    fps = video.fps or _FPS
    written = save_film(itertools.chain([first], sheets), target, fps=fps)
    say(f"{target}: {many(written, 'frame')}, {written / fps:.1f} s")


def film(video: Video, viewer: Viewer, num_frames: int) -> Iterator[Image.Image]:
    """The sheets of a video, one for each frame, all of one size.

    Each clip of `num_frames` has the tokens that the viewer's tokenizer is set to; a shorter last
    one has `floor(tokens * frames / num_frames)`.
    """
    room: tuple[int, int] | None = None
    for clip in _clips(video, num_frames):
        look = _Look(shrunk(clip, _MOST_PIXELS), viewer, num_frames)
        room = room or look.room()
        for frame in range(len(clip)):
            yield _on_paper(look.sheet(frame), room)


def _clips(video: Video, num_frames: int) -> Iterator[UInt8[Tensor, "T 3 H W"]]:
    height, width = video.size
    clips = max(1, _AHEAD_BYTES // (3 * height * width * num_frames))
    for start in range(0, video.num_frames, clips * num_frames):
        stop = min(start + clips * num_frames, video.num_frames)
        yield from video.frames(range(start, stop)).split(num_frames)


class _Look:
    """The panels of each frame of a clip: the fixed grid, the regions, the score map."""

    @torch.inference_mode()
    def __init__(self, frames: UInt8[Tensor, "T 3 H W"], viewer: Viewer, num_frames: int) -> None:
        self._size_px = (frames.shape[-2], frames.shape[-1])
        images = frames.float() / 255
        clip, looked_at = _as_clip(images), _as_clip(seen(images, viewer))
        tokenizer = viewer.tokenizer
        num_tokens = max(1, tokenizer.num_tokens * len(frames) // num_frames)
        rows = None if tokenizer.num_rows is None else min(tokenizer.num_rows, num_tokens)
        with tokenizer.at_num_tokens(num_tokens, rows):
            regions = tokenizer.regions(looked_at)
        even, self._even_caption = _even(regions, images)
        self._panels = list(
            zip(
                draw(images, even),
                draw(clip, regions),
                draw_scores(clip, tokenizer.scores(looked_at)),
                strict=True,
            )
        )
        self._name, self._alone = viewer.name, count(regions)
        self._share = f"{many(num_tokens, 'region')} for {many(len(frames), 'frame')}"
        self._is_clip = num_frames > 1
        self._here = regions.centre_frames()[0].bincount(minlength=len(frames)).tolist()

    def sheet(self, frame: int) -> Image.Image:
        """The panels of a frame, and how many regions have their centre in it."""
        return self._sheet(frame, str(self._here[frame]))

    def room(self) -> tuple[int, int]:
        """Width and height of a sheet with the widest caption that there may be."""
        return self._sheet(0, "8" * len(str(sum(self._here)))).size

    def _sheet(self, frame: int, here: str) -> Image.Image:
        even, regions = self._even_caption, self._alone
        if self._is_clip:
            even, regions = f"{even} in each frame", f"{here} of {self._share}"
        scores = "scores, from 0 (dark) to 4 times their mean (light)"
        captions = [even, f"{self._name}: {regions}", scores]
        return panel_sheet(self._panels[frame], captions, self._size_px)


def _as_clip(images: Tensor) -> Tensor:
    """`(T, C, H, W)` as a clip `(1, T, C, H, W)`; a frame alone as an image."""
    return images if len(images) == 1 else images.unsqueeze(0)


def _even(regions: Regions, images: Tensor) -> tuple[Regions, str]:
    """The regions of each frame without scores, and their caption."""
    share = max(1, regions.num_tokens // len(images))
    even, caption = even_regions(share, min(regions.num_rows, share), images)
    rows = even.row_edges.expand(len(images), -1, -1)
    return Regions(rows, even.strip_edges.expand(len(images), -1)), caption


def _on_paper(sheet: Image.Image, room: tuple[int, int]) -> Image.Image:
    """The sheet in the room for the largest, as large as a film may be."""
    paper = Image.new("RGB", room, _PAPER)
    paper.paste(sheet)
    paper.thumbnail((_LONGEST_PX, _LONGEST_PX))
    return paper
