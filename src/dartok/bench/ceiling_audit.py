"""What a data set's label maps allow at each number of tokens: the fixed grid beside regions."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dartok.core.partition import default_num_rows, partition
from dartok.core.regions import Regions
from dartok.data.augment import PixelConfig
from dartok.data.label_maps import IGNORE, LabelledPicture, MapSource
from dartok.data.label_maps.transforms import eval_map_transform
from dartok.models import regions
from dartok.models.dials import tokenizer_of
from dartok.tasks.segmentation.boundaries import boundary_scores, boundary_weights
from dartok.tasks.segmentation.ceiling import (
    Ceiling,
    RegionCounts,
    ceiling,
    count_regions,
    join_counts,
)
from dartok.tasks.segmentation.components import connected_components
from dartok.tasks.segmentation.resolution import (
    Objects,
    join_objects,
    objects_in,
    resolved_by_class,
    smallest_resolved_px,
)

__all__ = ["FIXED", "ORACLE", "Audit", "Row", "audit_ceilings", "model_regions", "spread"]

FIXED = "fixed grid"
ORACLE = "oracle"

_NUM_TRIED = 16
"""Pictures on which the settings of a kind of regions are compared, to take the best for all."""
_STRENGTHS = (0.25, 0.5, 0.75, 1.0)
_EXPONENTS = (1 / 2, 2 / 3)
_RARITIES = (1 / 2, 1.0)
"""An oracle's boundaries count `share of the class ** -rarity`. Of 0 to 1 with 1/2 to 1 these were
the best on CamVid at 49, 196 and 392 tokens, with the exponents above and no blur."""
_NUM_CELLS = 3072
_CELLS_PER_TOKEN = 8
"""Cells of an oracle's score map, at least: regions need several each."""
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet: what scorers by name expect."""

Cut = Callable[["Picture", int], Regions]
"""A picture's regions at a number of tokens."""


class Picture(NamedTuple):
    """A picture with what is cut by."""

    loaded: LabelledPicture
    labels: Int[Tensor, "H W"]
    scores: Float[Tensor, "1 h w"]
    """Of the scorer."""


class _Way(NamedTuple):
    """One way to cut a picture."""

    kind: str
    setting: str
    cut: Cut


class Row(NamedTuple):
    """What one kind of regions allows at a number of tokens."""

    num_tokens: int
    kind: str
    """`FIXED`, the scorer's name, `ORACLE` or "model"."""
    setting: str
    """Of several tried, the one with the highest ceiling; empty where there is nothing to set."""
    ceiling: Ceiling
    objects: Objects

    @property
    def resolved_share(self) -> float:
        """Share of all objects that is resolved; NaN where there are none."""
        return float(self.objects.resolved.double().mean())

    @property
    def resolved_by_class(self) -> Float[Tensor, "classes"]:
        """The same for the objects of each class."""
        return resolved_by_class(self.objects, len(self.ceiling.highest))

    def smallest_px(self, share: float) -> float | None:
        """Side in pixels from which on that share of the objects is resolved."""
        return smallest_resolved_px(self.objects, share)


class Audit(NamedTuple):
    """The rows of an audit, by number of tokens, and what they were computed on."""

    rows: list[Row]
    class_names: tuple[str, ...]
    num_pictures: int


@torch.inference_mode()
def audit_ceilings(
    source: MapSource,
    *,
    budgets: Sequence[int],
    scorer: nn.Module,
    scorer_name: str,
    limit: int,
    model_cut: Cut | None = None,
) -> Audit:
    """Bounds of the mIoU, and the objects told apart, of the fixed grid and of adaptive regions.

    Three kinds of regions are compared, four with a model: the fixed grid; the scorer's, at the
    best of four strengths; and an oracle's, whose scores are the density of the true boundaries
    between classes, at the best of some exponents and weights of rare classes. The oracle says
    about how much a trained scorer could give; it is a good one, not the best that there is.

    Args:
        source: The pictures.
        budgets: Numbers of tokens.
        scorer: Maps images, normalised by ImageNet's mean and deviation, to scores `(B, h, w)`.
        scorer_name: What to call it.
        limit: The most pictures that are looked at; they are spread evenly over the source.
        model_cut: Regions of a trained model, as `model_regions` gives them.
    Raises:
        ValueError: If the source is empty, a picture cannot be read, or none has a labelled pixel.
    """
    indices = spread(len(source), limit)
    tried = [_read(source, indices[i], scorer) for i in spread(len(indices), _NUM_TRIED)]
    kinds = [[_fixed()], _scored(scorer_name), _oracles(_shares(tried, len(source.class_names)))]
    if model_cut is not None:
        kinds.append([_Way("model", "", model_cut)])
    num_classes = len(source.class_names)
    ways = [(n, _best(kind, tried, n, num_classes)) for n in budgets for kind in kinds]
    counts: list[list[RegionCounts]] = [[] for _ in ways]
    objects: list[list[Objects]] = [[] for _ in ways]
    for index in indices:
        picture = _read(source, index, scorer)
        for place, seen in enumerate(_looks(picture, ways)):
            counts[place].append(seen[0])
            objects[place].append(seen[1])
    rows = [
        Row(n, way.kind, way.setting, ceiling(join_counts(c), num_classes), join_objects(o))
        for (n, way), c, o in zip(ways, counts, objects, strict=True)
    ]
    return Audit(rows, source.class_names, len(indices))


def spread(count: int, limit: int) -> list[int]:
    """At most `limit` of `count` indices, evenly spread, the first among them.

    Example:
        >>> spread(10, 4), spread(3, 4)
        ([0, 2, 5, 7], [0, 1, 2])
    """
    taken = min(count, limit)
    return [place * count // taken for place in range(taken)]


def model_regions(model: nn.Module, pixels: PixelConfig) -> Cut:
    """The regions of a trained model, which looks at pictures as when it is evaluated.

    Args:
        model: An adapted model in eval mode.
        pixels: What it expects.
    """
    transform = eval_map_transform(pixels)

    def cut(picture: Picture, num_tokens: int) -> Regions:
        with tokenizer_of(model).at_num_tokens(num_tokens):
            return regions(model, transform(picture.loaded).image[None])

    return cut


def _read(source: MapSource, index: int, scorer: nn.Module) -> Picture:
    loaded = source.load(index)
    pixels = torch.from_numpy(np.array(loaded.image))
    image = pixels.permute(2, 0, 1)[None].float() / 255
    labels = torch.from_numpy(np.array(loaded.labels)).long()
    mean, std = (torch.tensor(value)[:, None, None] for value in (_MEAN, _STD))
    return Picture(loaded, labels, scorer((image - mean) / std))


def _shares(pictures: Sequence[Picture], num_classes: int) -> Float[Tensor, "classes"]:
    """Share of each class in the labelled pixels; that of one pixel for a class without any."""
    pixels = torch.stack([torch.bincount(p.labels.flatten(), minlength=256) for p in pictures])
    known = pixels.sum(0)[:num_classes].float()
    if known.sum() == 0:
        raise ValueError(
            f"none of the {len(pictures)} pictures looked at first has a labelled pixel; "
            "check the label maps, or name another split"
        )
    return known.clamp_min(1) / known.sum()


def _cut(scores: Tensor, num_tokens: int, picture: Picture) -> Regions:
    rows = default_num_rows(num_tokens, *picture.labels.shape)
    return partition(scores, num_tokens=num_tokens, num_rows=rows)


def _fixed() -> _Way:
    return _Way(FIXED, "", lambda picture, n: _cut(torch.ones(1, 1, 1), n, picture))


def _scored(name: str) -> list[_Way]:
    def way(strength: float) -> _Way:
        return _Way(
            name,
            f"strength {strength:g}",
            lambda picture, n: _cut(picture.scores**strength, n, picture),
        )

    return [way(strength) for strength in _STRENGTHS]


def _oracles(shares: Float[Tensor, "classes"]) -> list[_Way]:
    def way(rarity: float, exponent: float) -> _Way:
        def cut(picture: Picture, num_tokens: int) -> Regions:
            weights = boundary_weights(picture.labels, shares**-rarity)
            num_cells = max(_NUM_CELLS, _CELLS_PER_TOKEN * num_tokens)
            scores = boundary_scores(weights, num_cells=num_cells, exponent=exponent)
            return _cut(scores, num_tokens, picture)

        return _Way(ORACLE, f"rarity {rarity:.2g}, exponent {exponent:.2g}", cut)

    return [way(rarity, exponent) for rarity in _RARITIES for exponent in _EXPONENTS]


def _best(
    kind: Sequence[_Way], pictures: Sequence[Picture], num_tokens: int, num_classes: int
) -> _Way:
    """The way of the highest ceiling on some pictures."""
    if len(kind) == 1:
        return kind[0]

    def reached(way: _Way) -> float:
        parts = [_count(picture, way.cut, num_tokens)[0] for picture in pictures]
        return ceiling(join_counts(parts), num_classes).miou

    return max(kind, key=reached)


def _count(picture: Picture, cut: Cut, num_tokens: int) -> tuple[RegionCounts, Tensor]:
    """Classes in each region, and the region of each pixel."""
    size = (picture.labels.shape[0], picture.labels.shape[1])
    region_map = cut(picture, num_tokens).label_map(size)[0, 0]
    return count_regions(picture.labels, region_map, num_tokens, ignore=IGNORE), region_map


def _looks(
    picture: Picture, ways: Sequence[tuple[int, _Way]]
) -> Iterator[tuple[RegionCounts, Objects]]:
    components = connected_components(picture.labels)
    for num_tokens, way in ways:
        counts, region_map = _count(picture, way.cut, num_tokens)
        yield counts, objects_in(picture.labels, components, region_map, counts, ignore=IGNORE)
