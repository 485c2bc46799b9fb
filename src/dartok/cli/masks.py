"""What `dartok predict` does with a model of segmentation: masks instead of class names."""

import json as json_module
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from dartok.cli.console import error_console, say

if TYPE_CHECKING:
    from dartok.cli.predict import PredictConfig
    from dartok.train.package import Package
    from dartok.train.painting import Painted
    from dartok.train.pictures import Part

__all__ = ["paint_pictures"]

Colours = tuple[tuple[int, int, int], ...]


def paint_pictures(package: "Package", parts: list["Part"], config: "PredictConfig") -> int:
    """Print what pictures show, and write their masks if there is a folder for them.

    Args:
        package: With a `Segmenter`.
        parts: Where the pictures are.
        config: The options of the command.
    Returns:
        How many pictures could not be read; each is named on the error stream.
    Raises:
        ValueError: If an option is for classifiers alone.
    """
    from dartok.data.label_maps.palette import voc_colours
    from dartok.data.samples import BadSample
    from dartok.train.painting import paint
    from dartok.train.pictures import read_pictures
    from dartok.train.world import start_world

    _check(config)
    colours = package.colours or voc_colours(len(package.class_names))
    num_bad, names = 0, Counter[str]()
    with start_world(config.device) as world:
        pictures = read_pictures(parts, column=config.image_column)
        found = paint(
            package,
            pictures,
            image_px=config.image_px,
            windows=config.windows,
            device=world.device,
            looks=config.out is not None,
        )
        for each in found:
            if isinstance(each, BadSample):
                num_bad += 1
                message = f"dartok: warning: {each.reason}"
                error_console.print(message, markup=False, soft_wrap=True)
                continue
            say(_json_line(each) if config.json else _line(each, config.top))
            if config.out is not None:
                stem = Path(each.name).stem
                names[stem] += 1
                copy = names[stem]
                _write(each, config.out, stem if copy == 1 else f"{stem}-{copy}", colours)
    return num_bad


def _check(config: "PredictConfig") -> None:
    if config.engine != "local" or config.out_parquet is not None:
        raise ValueError(
            "engine ray and out-parquet are for classifiers; give --out FOLDER for masks"
        )


def _line(found: "Painted", top: int) -> str:
    shares = list(found.shares.items())[:top]
    return f"{found.name}: " + ", ".join(f"{name} {share:.1%}" for name, share in shares)


def _json_line(found: "Painted") -> str:
    shares = {name: round(share, 6) for name, share in found.shares.items()}
    return json_module.dumps({"image": found.name, "shares": shares})


def _write(found: "Painted", out: Path, stem: str, colours: Colours) -> None:
    """The mask, the picture under it, and the regions."""
    from torchvision.transforms.functional import to_tensor

    from dartok.draw import draw, draw_mask, mask_image, save_image

    out.mkdir(parents=True, exist_ok=True)
    classes = found.classes.numpy()
    save_image(mask_image(classes, colours), out / f"{stem}.mask.png")
    save_image(draw_mask(found.picture, classes, colours), out / f"{stem}.overlay.png")
    assert found.regions is not None
    (cut,) = draw(to_tensor(found.picture)[None], found.regions.select(slice(0, 1)))
    save_image(cut, out / f"{stem}.regions.png")
