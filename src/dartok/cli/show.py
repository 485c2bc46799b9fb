"""`dartok show`: pictures of the regions of image files, and films of those of videos."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from dartok.cli.console import say

__all__ = ["ShowConfig", "make_folder", "show"]

_MOST_TOKENS = 65536
"""More could not be told apart in a picture."""
_MOST_FRAMES = 128
"""Of a clip, which is held in memory."""
_FRAMES = 16
_FILM = ".mp4"
_TOKENS_PER_FRAME = 49


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ShowConfig:
    """What `dartok show` draws, and where it puts the pictures."""

    out: Path = Path()
    """Folder for the pictures; made if missing."""
    tokens: int | None = None
    """Regions per image, by default 196, or as many as the model uses; or per clip of a video, by
    default 49 for each of its frames."""
    frames: int | None = None
    """Frames of a clip, 16 by default: a video is cut into clips, each with regions of its own."""
    rows: int | None = None
    """Rows of regions, in each frame; by default such that regions are about square."""
    partition: Literal["flow", "grid"] | None = None
    """How the scores are cut: `flow`, the default, or `grid` for a lattice."""
    strength: float = 1.0
    """From 0, the fixed grid, to 1, the full method."""
    scorer: str | None = None
    """Scorer by name: edge (the default), conv, uniform, mobilenetv3_small, timm/resnet18, ...; for
    videos motion/edge by default, or motion/ before any other, spares what stands still."""
    scorer_weights: str | None = None
    """Weights of the scorer: a file, or `imagenet`."""
    model: str | None = None
    """Show what this model looks at: a name from `dartok models`, or any ViT of timm. It sees each
    frame of a video by itself."""
    checkpoint: Path | None = None
    """Weights of the model, .pth or .safetensors; random without."""
    box: tuple[float, float, float, float] | None = None
    """What matters, as left, top, right and bottom in [0, 1]: more regions go there."""
    box_weight: float | None = None
    """By how much the box matters: added to the logarithm of the score; 2 by default, 0 for not."""

    def __post_init__(self) -> None:
        if self.tokens is not None and not 1 <= self.tokens <= _MOST_TOKENS:
            raise ValueError(f"tokens must be from 1 to {_MOST_TOKENS}, got {self.tokens}")
        if self.frames is not None and not 1 <= self.frames <= _MOST_FRAMES:
            raise ValueError(f"frames must be from 1 to {_MOST_FRAMES}, got {self.frames}")
        if self.rows is not None and self.rows < 1:
            raise ValueError(f"rows must be >= 1, got {self.rows}")
        if self.rows is not None and self.tokens is not None and self.rows > self.tokens:
            raise ValueError(f"rows must be at most tokens = {self.tokens}, got {self.rows}")
        if not 0 <= self.strength <= 1:
            raise ValueError(
                f"strength must be from 0 (fixed grid) to 1 (full method), got {self.strength}"
            )
        if self.box is not None and not _is_box(*self.box):
            raise ValueError(
                f"box must be left, top, right, bottom from 0 to 1 and in order, got {self.box}"
            )
        if self.box is None and self.box_weight is not None:
            raise ValueError(f"box-weight {self.box_weight} needs a box; give --box")
        if self.checkpoint is not None and self.model is None:
            raise ValueError(f"checkpoint {self.checkpoint} needs a model; name it with --model")
        if self.frames is not None and self.model is not None:
            raise ValueError(
                f"frames {self.frames} is for scorers, but model {self.model} sees each frame by "
                "itself; leave out --frames"
            )

    def for_videos(self) -> "ShowConfig":
        """The same with the defaults of videos.

        Raises:
            ValueError: If an option is for images alone.
        """
        if self.box is not None:
            raise ValueError(f"box {self.box} is for images, got a video too; leave out --box")
        if self.model is not None:
            return replace(self, frames=None)
        frames = self.frames or _FRAMES
        tokens = self.tokens or frames * _TOKENS_PER_FRAME
        return replace(self, frames=frames, tokens=tokens, scorer=self.scorer or "motion/edge")


def _is_box(left: float, top: float, right: float, bottom: float) -> bool:
    return 0 <= left < right <= 1 and 0 <= top < bottom <= 1


def show(
    files: Annotated[list[Path], Parameter(negative=())],
    /,
    *,
    config: ShowConfig = ShowConfig(),
) -> None:
    """Draw the regions of image and video files.

    Writes NAME.regions.png for each image, at the image's own size: the fixed grid, the regions
    that follow the picture, and the score map. Small images are enlarged, and those of more than 16
    million pixels drawn smaller.

    Writes NAME.regions.mp4 for each video, which browsers play: the same three, as they move. The
    video is cut into clips of --frames frames with --tokens regions each, a shorter last one with
    its share, so one of any length fits into memory. Frames of more than 0.3 million pixels are
    scored and drawn smaller.

    Args:
        files: Images of any size and format, and videos that FFmpeg reads; an animated GIF is one.
        config: The options.
    """
    targets = _targets(files, config.out)
    videos = [target.suffix == _FILM for target in targets]
    if config.frames is not None and not any(videos):
        raise ValueError(f"frames {config.frames} is for videos, got images; leave out --frames")
    from dartok.cli.film import write_film
    from dartok.cli.viewer import create_viewer, panels
    from dartok.data.images import load_image
    from dartok.draw import save_image

    configs = [config.for_videos() if video else config for video in videos]
    viewers = {each: create_viewer(each) for each in dict.fromkeys(configs)}
    for source, target, each in zip(files, targets, configs, strict=True):
        if target.suffix == _FILM:
            write_film(source, target, viewers[each], each.frames or 1)
            continue
        picture = panels(load_image(source), viewers[each])
        make_folder(config.out)  # not before there is something to put into it
        save_image(picture, target)
        say(str(target))


def _targets(files: Sequence[Path], out: Path) -> list[Path]:
    """Where the pictures and films go. Refuses before anything is computed or written."""
    sources: dict[Path, Path] = {}
    for file in files:
        if file.is_dir():
            raise ValueError(f"image {file} is a folder; name the files in it, as {file}/*.jpg")
        if not file.exists():
            raise ValueError(f"image {file} does not exist; check the path")
    for file in files:
        target = out / f"{file.stem}.regions{_FILM if _is_video(file) else '.png'}"
        if target in sources:
            raise ValueError(
                f"images {sources[target]} and {file} would both be written to {target}; "
                "show them one at a time, with different --out"
            )
        sources[target] = file
    return list(sources)


def _is_video(file: Path) -> bool:
    from dartok.data.clips.video import VIDEO_SUFFIXES

    if file.suffix.lower() != ".gif":
        return file.suffix.lower() in VIDEO_SUFFIXES
    from PIL import Image

    try:
        with Image.open(file) as image:
            return getattr(image, "is_animated", False)
    except OSError:
        return False  # what is wrong with it is said when it is read


def make_folder(out: Path) -> None:
    """Make the folder for pictures, if it is missing."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot make folder {out} ({error.strerror}); choose another --out"
        ) from error
