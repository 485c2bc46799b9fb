"""What looks at the images of `dartok show`, and the picture of what it sees."""

import difflib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from dartok.cli.show import ShowConfig
from dartok.core.partition import default_num_rows, partition
from dartok.core.regions import Regions
from dartok.core.steering import Steering, steer_scores
from dartok.core.tokenizer import Tokenizer
from dartok.draw import contact_sheet, draw, draw_scores
from dartok.models.dials import set_strength, tokenizer_of
from dartok.scorers import RegionTokenizer
from dartok.scorers.weights import load_strictly, read_state

__all__ = [
    "Viewer",
    "count",
    "create_viewer",
    "even_regions",
    "many",
    "panel_sheet",
    "panels",
    "seen",
    "shrunk",
]

_NUM_TOKENS = 196
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_MOST_PIXELS = 4096**2
"""Of a panel; larger images are drawn smaller, though looked at as they are."""
_WIDE = 2.0
"""Ratio of width to height above which panels are stacked rather than side by side."""
_SQUARE_ENOUGH = 2.0
"""Ratio of sides up to which the cells of a lattice pass for the cells of the fixed grid."""


class Viewer(NamedTuple):
    """A tokenizer in eval mode, and the images that it expects."""

    tokenizer: Tokenizer
    name: str
    """Of its scorer or model, for the captions."""
    mean: Sequence[float] = _IMAGENET_MEAN
    std: Sequence[float] = _IMAGENET_STD
    side_px: int | None = None
    """It looks at a copy with the area of a square of this side; None for the image itself."""
    steering: Steering | None = None
    """What the user says matters."""


def create_viewer(config: ShowConfig) -> Viewer:
    """The tokenizer that `config` describes: that of a model, or one that only cuts.

    Raises:
        ValueError: If a name is unknown, or an option does not belong to the model.
    """
    viewer = _cutter(config) if config.model is None else _model_viewer(config.model, config)
    if config.box is None:
        return viewer
    weight = {} if config.box_weight is None else {"weight": config.box_weight}
    return viewer._replace(steering=Steering([torch.tensor([config.box])], **weight))


@torch.inference_mode()
def panels(image: Float[Tensor, "3 H W"], viewer: Viewer) -> Image.Image:
    """The fixed grid, the regions and the score map of an image, on one sheet."""
    images = image.unsqueeze(0)
    looked_at = seen(images, viewer)
    tokenizer = viewer.tokenizer
    with tokenizer.steered(viewer.steering):
        regions = tokenizer.regions(looked_at)
    scores = steer_scores(tokenizer.scores(looked_at), viewer.steering)
    images = shrunk(images, _MOST_PIXELS)
    even, even_caption = even_regions(regions.num_tokens, regions.num_rows, images)
    pictures = [*draw(images, even), *draw(images, regions), *draw_scores(images, scores)]
    captions = [
        even_caption,
        f"{viewer.name}: {count(regions)}",
        "scores, from 0 (dark) to 4 times their mean (light)",
    ]
    return panel_sheet(pictures, captions, (image.shape[1], image.shape[2]))


def panel_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], size_px: tuple[int, int]
) -> Image.Image:
    """Panels side by side, those of wide images, by height and width, one below the other."""
    if size_px[1] > _WIDE * size_px[0]:
        return contact_sheet([[p] for p in pictures], [[c] for c in captions])
    return contact_sheet([pictures], [captions])


def _cutter(config: ShowConfig) -> Viewer:
    """A tokenizer that belongs to no model: only its scorer and partition matter."""
    scorer = config.scorer or "edge"
    tokenizer = RegionTokenizer(
        embed_dim=1,
        patch_size=1,  # so that an image of any size will do
        position_grid=None,
        num_tokens=config.tokens or _NUM_TOKENS,
        num_rows=config.rows,
        scorer=scorer,
        scorer_weights=config.scorer_weights,
        partition=config.partition or "flow",
        strength=config.strength,
    )
    return Viewer(tokenizer.eval(), f"scorer {scorer}")


def _model_viewer(name: str, config: ShowConfig) -> Viewer:
    from timm.data.config import resolve_model_data_config

    model = _model(name, config).eval()
    set_strength(model, config.strength)
    expected = resolve_model_data_config(model)  # type: ignore[no-untyped-call]
    height, width = expected["input_size"][-2:]
    side_px = round(math.sqrt(height * width))
    return Viewer(tokenizer_of(model), name, expected["mean"], expected["std"], side_px)


def _model(name: str, config: ShowConfig) -> nn.Module:
    import timm  # takes seconds: only where a model is asked for

    from dartok.models import adapt, list_models

    if name in list_models():
        return _own_model(name, config)
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(near)}?" if near else "see `dartok models`"
        raise ValueError(f"unknown model {name!r}; {hint}")
    model = adapt(
        timm.create_model(name, pretrained=False),
        num_tokens=config.tokens,
        num_rows=config.rows,
        scorer=config.scorer or "conv",
        scorer_weights=config.scorer_weights,
        partition=config.partition or "flow",
    )
    if config.checkpoint is not None:
        load_strictly(model, read_state(config.checkpoint), source=str(config.checkpoint))
    return model


def _own_model(name: str, config: ShowConfig) -> nn.Module:
    from dartok.models import create_model

    for option in ("scorer", "partition"):
        value = getattr(config, option)
        if value is not None:
            raise ValueError(f"{option} of {name} is fixed, got {value!r}; leave out --{option}")
    return create_model(
        name,
        checkpoint=config.checkpoint,
        num_tokens=config.tokens,
        num_rows=config.rows,
        scorer_weights=config.scorer_weights,
    )


def seen(images: Float[Tensor, "B 3 H W"], viewer: Viewer) -> Float[Tensor, "B 3 h w"]:
    """The normalised copies that the tokenizer looks at, of the images' aspect."""
    if viewer.side_px is not None:
        height, width = images.shape[-2:]
        scale = viewer.side_px / math.sqrt(height * width)
        least = viewer.tokenizer.patch_size
        size = (max(least[0], round(height * scale)), max(least[1], round(width * scale)))
        images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
    mean, std = (torch.tensor(value)[:, None, None] for value in (viewer.mean, viewer.std))
    return (images - mean) / std


def shrunk(images: Tensor, most_pixels: int) -> Tensor:
    """The copies that are drawn: smaller only where pictures would be unwieldy."""
    height, width = images.shape[-2:]
    scale = math.sqrt(most_pixels / (height * width))
    if scale >= 1:
        return images
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def even_regions(num_tokens: int, num_rows: int, images: Tensor) -> tuple[Regions, str]:
    """Regions of one image without scores, and their caption: a lattice where the count allows."""
    height, width = images.shape[-2:]
    uniform = torch.ones(1, 1, 1)
    rows = default_num_rows(num_tokens, height, width, kind="grid")
    columns = num_tokens // rows
    aspect = (height / rows) / (width / columns)
    if max(aspect, 1 / aspect) <= _SQUARE_ENOUGH:
        grid = partition(uniform, num_tokens=num_tokens, num_rows=rows, kind="grid")
        return grid, f"fixed grid: {rows} x {columns} = {num_tokens} regions"
    even = partition(uniform, num_tokens=num_tokens, num_rows=num_rows)
    return even, f"fixed size: {count(even)}"


def count(regions: Regions) -> str:
    """Regions and rows in words."""
    return f"{many(regions.num_tokens, 'region')} in {many(regions.num_rows, 'row')}"


def many(number: int, name: str) -> str:
    """A number of things in words.

    Example:
        >>> many(1, "row"), many(2, "row")
        ('1 row', '2 rows')
    """
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
