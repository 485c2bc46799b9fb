"""`dartok predict`: the classes of pictures, and the regions that the model looked at."""

import json as json_module
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from dartok.cli.console import error_console, say

if TYPE_CHECKING:
    from dartok.data.augment import PixelConfig
    from dartok.data.samples import BadSample
    from dartok.train.package import Package
    from dartok.train.pictures import Part
    from dartok.train.prediction import Prediction, PredictJob

__all__ = ["PredictConfig", "predict"]

_SHOWN_FPS = 4.0
"""Frames that a model sees of a video lie far apart: slow enough to look at each."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What `dartok predict` prints and draws."""

    out: Path | None = None
    """Folder for pictures of the regions, NAME.regions.png, with a number where names repeat; none
    are drawn without it. Of a video a film of the frames that the model sees, NAME.regions.mp4. A
    model of segmentation also writes NAME.mask.png, whose numbers are the classes, and
    NAME.overlay.png, the mask over the picture."""
    top: int = 1
    """Classes named for each picture; of segmentation, with their share of the pixels."""
    json: bool = False
    """Print one JSON object per picture."""
    num_tokens: int | None = None
    """Regions per picture; by default the model's own."""
    image_px: int | None = None
    """Side that pictures are resized and cropped to; by default the model's own."""
    windows: bool = False
    """With a model of segmentation: look through overlapping windows, not at the whole picture."""
    batch_size: int = 16
    """Pictures per forward pass; videos are seen one at a time."""
    image_column: str = "image"
    """Column of Parquet files with the pictures: bytes of files, or as Hugging Face has them."""
    out_parquet: Path | None = None
    """New folder for the results as Parquet files, part-00000.parquet and so on, instead of
    printing them; damaged pictures are rows with an error."""
    engine: Literal["local", "ray"] = "local"
    """Where the model runs: in this process, or in actors of Ray: on this machine, or on the
    cluster that RAY_ADDRESS names, where model and pictures must be at the same paths."""
    actors: int = 1
    """Copies of the model that work at the same time, with --engine ray."""
    device: str = "auto"
    """Such as cpu or cuda; auto takes a GPU if there is one. With Ray each actor takes one."""

    def __post_init__(self) -> None:
        if self.engine == "ray" and self.out is not None:
            raise ValueError(f"out needs --engine local, got ray and {self.out}; drop one of them")
        if self.engine == "local" and self.actors != 1:
            raise ValueError(f"actors must be 1 with --engine local, got {self.actors}; use ray")
        for name in ("top", "num_tokens", "image_px", "batch_size", "actors"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name.replace('_', '-')} must be >= 1, got {value}")


def predict(
    model: Path,
    images: Annotated[list[str], Parameter(negative=())],
    /,
    *,
    config: PredictConfig = PredictConfig(),
) -> None:
    """Name the classes of pictures or videos, one line for each; or paint those of the pixels.

    A damaged picture is named on the error stream and skipped; the exit code is then 1.

    Args:
        model: Folder of the model, such as best/ of a run.
        images: Picture files, folders, or patterns such as 'pets/**/*.jpg'; also Parquet files. For
            a model of videos, video files.
        config: The options.
    """
    from dartok.tasks.segmentation.segmenter import Segmenter
    from dartok.train.package import is_of_videos
    from dartok.train.pictures import find_pictures, find_videos, list_parts
    from dartok.train.prediction import PredictJob, load_model

    job = PredictJob(
        model.absolute(),
        top=config.top,
        batch_size=config.batch_size,
        num_tokens=config.num_tokens,
        image_px=config.image_px,
        column=config.image_column,
    )
    if is_of_videos(job.model):
        _check_videos(config)
        package, paths = load_model(job), find_videos(images)
        _say_all(_videos(job, paths, package, config), package, config)
        return
    parts = list_parts(find_pictures(images), column=job.column)
    package = load_model(job)  # also with Ray: what is wrong with it is better said here
    if isinstance(package.model, Segmenter):
        from dartok.cli.masks import paint_pictures

        if paint_pictures(package, parts, config):
            raise SystemExit(1)
        return
    if config.windows:
        raise ValueError("windows needs a model of segmentation, got a classifier; drop --windows")
    found = (
        _by_ray(job, parts, config)
        if config.engine == "ray"
        else _here(job, parts, package, config)
    )
    _say_all(found, package, config)


def _say_all(
    found: "Iterator[Prediction | BadSample]", package: "Package", config: PredictConfig
) -> None:
    """Print, draw or write all results. Raises SystemExit if there were damaged pictures."""
    from dartok.data.samples import BadSample

    num_bad = 0
    show = _Output(config, package.pixels)
    for each in found:
        if isinstance(each, BadSample):
            num_bad += 1
            message = f"dartok: warning: {each.reason}"
            error_console.print(message, markup=False, soft_wrap=True)
        show(each)
    show.close()
    if num_bad:
        raise SystemExit(1)


def _check_videos(config: PredictConfig) -> None:
    """Refuse what is for pictures alone."""
    usual = PredictConfig()
    for name in ("windows", "image_column", "engine"):
        value = getattr(config, name)
        if value != getattr(usual, name):
            flag = name.replace("_", "-")
            raise ValueError(f"{flag} is for pictures, got {value} for videos; drop --{flag}")


def _videos(
    job: "PredictJob", paths: list[Path], package: "Package", config: PredictConfig
) -> "Iterator[Prediction | BadSample]":
    from dartok.train.clip_prediction import predict_clips
    from dartok.train.world import start_world

    with start_world(config.device) as world:
        looks = config.out is not None
        yield from predict_clips(package, paths, job, device=world.device, looks=looks)


def _here(
    job: "PredictJob", parts: list["Part"], package: "Package", config: PredictConfig
) -> "Iterator[Prediction | BadSample]":
    from dartok.train.pictures import read_pictures
    from dartok.train.prediction import predict
    from dartok.train.world import start_world

    with start_world(config.device) as world:
        pictures = read_pictures(parts, column=job.column)
        looks = config.out is not None
        yield from predict(package, pictures, job, device=world.device, looks=looks)


def _by_ray(
    job: "PredictJob", parts: list["Part"], config: PredictConfig
) -> "Iterator[Prediction | BadSample]":
    import torch

    from dartok.train.ray_prediction import predict_with_ray

    gpu = config.device.startswith("cuda") or (
        config.device == "auto" and torch.cuda.is_available()
    )
    return predict_with_ray(job, parts, actors=config.actors, gpu=gpu)


class _Output:
    """Prints, draws or writes each result as the options say."""

    def __init__(self, config: PredictConfig, pixels: "PixelConfig") -> None:
        from dartok.train.prediction_parts import PredictionParts

        self._config, self._pixels = config, pixels
        self._names: Counter[str] = Counter()
        self._parts = None if config.out_parquet is None else PredictionParts(config.out_parquet)

    def __call__(self, found: "Prediction | BadSample") -> None:
        from dartok.train.prediction import Prediction

        if self._parts is not None:
            self._parts.add(found)
        if not isinstance(found, Prediction):
            return
        if self._parts is None:
            say(_json_line(found) if self._config.json else _line(found))
        if self._config.out is not None:
            stem = Path(found.name).stem
            self._names[stem] += 1
            _draw(found, self._config.out, self._pixels, self._names[stem])

    def close(self) -> None:
        if self._parts is not None:
            self._parts.close()


def _line(found: "Prediction") -> str:
    classes = zip(found.classes, found.shares, strict=True)
    return f"{found.name}: " + ", ".join(f"{name} {share:.1%}" for name, share in classes)


def _json_line(found: "Prediction") -> str:
    shares = dict(zip(found.classes, (round(share, 6) for share in found.shares), strict=True))
    return json_module.dumps({"image": found.name, "class": found.classes[0], "top": shares})


def _draw(found: "Prediction", out: Path, pixels: "PixelConfig", copy: int) -> None:
    from dartok.draw import draw, save_film, save_image

    assert found.look is not None
    if found.look.regions is None:
        raise ValueError("out needs a model with regions, got one with a fixed grid; drop --out")
    out.mkdir(parents=True, exist_ok=True)
    image, regions = found.look.image[None], found.look.regions
    pictures = draw(image, regions, mean=pixels.mean, std=pixels.std)
    stem = Path(found.name).stem
    name = stem if copy == 1 else f"{stem}-{copy}"
    if image.ndim == 4:
        save_image(pictures[0], out / f"{name}.regions.png")
    else:
        save_film(pictures, out / f"{name}.regions.mp4", fps=_SHOWN_FPS)
