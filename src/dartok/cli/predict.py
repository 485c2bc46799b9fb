"""`dartok predict`: the classes of pictures, and the regions that the model looked at."""

import json as json_module
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from dartok.cli.console import error_console, say

if TYPE_CHECKING:
    from dartok.data.augment import PixelConfig
    from dartok.train.prediction import Prediction

__all__ = ["PredictConfig", "predict"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """What `dartok predict` prints and draws."""

    out: Path | None = None
    """Folder for pictures of the regions, NAME.regions.png, with a number where names repeat; none
    are drawn without it."""
    top: int = 1
    """Classes named for each picture."""
    json: bool = False
    """Print one JSON object per picture."""
    num_tokens: int | None = None
    """Regions per picture; by default the model's own."""
    image_px: int | None = None
    """Side that pictures are resized and cropped to; by default the model's own."""
    batch_size: int = 16
    """Pictures per forward pass."""
    device: str = "auto"
    """Such as cpu or cuda; auto takes a GPU if there is one."""

    def __post_init__(self) -> None:
        for name in ("top", "num_tokens", "image_px", "batch_size"):
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
    """Name the classes of pictures, one line for each.

    A damaged picture is named on the error stream and skipped; the exit code is then 1.

    Args:
        model: Folder of the model, such as best/ of a run.
        images: Picture files, folders, or patterns such as 'pets/**/*.jpg'.
        config: The options.
    """
    from dartok.data.samples import BadSample
    from dartok.models.dials import set_num_tokens
    from dartok.train.package import load_package
    from dartok.train.prediction import find_pictures
    from dartok.train.prediction import predict as predictions
    from dartok.train.world import start_world

    paths = find_pictures(images)
    package = load_package(model)
    if config.num_tokens is not None:
        set_num_tokens(package.model, config.num_tokens)
    names: Counter[str] = Counter()
    num_bad = 0
    with start_world(config.device) as world:
        for found in predictions(
            package,
            paths,
            top=config.top,
            batch_size=config.batch_size,
            image_px=config.image_px,
            device=world.device,
        ):
            if isinstance(found, BadSample):
                num_bad += 1
                message = f"dartok: warning: {found.reason}"
                error_console.print(message, markup=False, soft_wrap=True)
                continue
            say(_json_line(found) if config.json else _line(found))
            if config.out is not None:
                names[found.path.stem] += 1
                _draw(found, config.out, package.pixels, names[found.path.stem])
    if num_bad:
        raise SystemExit(1)


def _line(found: "Prediction") -> str:
    classes = zip(found.classes, found.shares, strict=True)
    return f"{found.path}: " + ", ".join(f"{name} {share:.1%}" for name, share in classes)


def _json_line(found: "Prediction") -> str:
    shares = dict(zip(found.classes, (round(share, 6) for share in found.shares), strict=True))
    return json_module.dumps({"image": str(found.path), "class": found.classes[0], "top": shares})


def _draw(found: "Prediction", out: Path, pixels: "PixelConfig", copy: int) -> None:
    from dartok.draw import draw, save_image

    if found.regions is None:
        raise ValueError("out needs a model with regions, got one with a fixed grid; drop --out")
    out.mkdir(parents=True, exist_ok=True)
    (picture,) = draw(found.image[None], found.regions, mean=pixels.mean, std=pixels.std)
    name = found.path.stem if copy == 1 else f"{found.path.stem}-{copy}"
    save_image(picture, out / f"{name}.regions.png")
