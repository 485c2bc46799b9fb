"""The two pictures of `dartok demo`."""

import math

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dartok.cli.digits_job import Contestant, normalise
from dartok.core.partition import partition
from dartok.core.regions import Regions
from dartok.data.digits import Canvases
from dartok.draw import contact_sheet, draw, draw_scores
from dartok.models.dials import tokenizer_of
from dartok.scorers import RegionTokenizer

__all__ = ["canvases_sheet", "photograph_sheet"]

_BUDGETS = (54, 96, 384)
"""Each divides a picture of 3 : 2 into squares, so that the fixed grid of it is a lattice."""
_EVEN_BUDGET = 216

_MAGNIFICATION = 3
"""Of the canvases, so that thin outlines leave the small digits in sight."""
_AMBER = (255, 176, 32)
"""Of the outlines: canvases are grey and digits white."""


@torch.inference_mode()
def photograph_sheet(photograph: Float[Tensor, "3 H W"]) -> Image.Image:
    """The fixed grid, the regions of as many tokens, the score map; below, other budgets."""
    images = photograph.unsqueeze(0)
    tokenizer = RegionTokenizer(
        embed_dim=1,  # nothing is projected here
        patch_size=1,  # so that any picture will do
        position_grid=None,
        num_tokens=_EVEN_BUDGET,
        scorer="edge",
    ).eval()
    tokenizer.set_strength(0)
    even = draw(images, tokenizer.regions(images))
    tokenizer.set_strength(1)
    adaptive = draw(images, tokenizer.regions(images))
    scores = draw_scores(images, tokenizer.scorer(images))
    budgets: list[Image.Image] = []
    for num_tokens in _BUDGETS:
        tokenizer.set_num_tokens(num_tokens)
        budgets += draw(images, tokenizer.regions(images))
    return contact_sheet(
        [[*even, *adaptive, *scores], budgets],
        [
            [
                f"fixed grid, {_EVEN_BUDGET} tokens",
                f"DART, {_EVEN_BUDGET} tokens",
                "score map, by edge energy",
            ],
            [f"DART, {num_tokens} tokens" for num_tokens in _BUDGETS],
        ],
    )


@torch.inference_mode()
def canvases_sheet(canvases: Canvases, grid: Contestant, adaptive: Contestant) -> Image.Image:
    """Canvases under the fixed grid, under the trained regions, and the trained score maps."""
    tokenizer = tokenizer_of(adaptive.model.eval())
    images = normalise(canvases.images)
    even = _even_regions(len(images), grid.num_tokens)
    shown = F.interpolate(canvases.images, scale_factor=_MAGNIFICATION)
    return contact_sheet(
        [
            draw(shown, even, colour=_AMBER, line_px=1),
            draw(shown, tokenizer.regions(images), colour=_AMBER, line_px=1),
            draw_scores(shown, tokenizer.scorer(images)),
        ],
        [
            _answers(grid, images, canvases.labels),
            _answers(adaptive, images, canvases.labels),
            ["score map, trained"] * len(images),
        ],
    )


def _even_regions(batch_size: int, num_tokens: int) -> Regions:
    flat = torch.ones(batch_size, 1, 1)
    return partition(flat, num_tokens=num_tokens, num_rows=math.isqrt(num_tokens), kind="flow")


def _answers(contestant: Contestant, images: Tensor, labels: Tensor) -> list[str]:
    answers = contestant.model.eval()(images).argmax(1)
    return [
        f"{contestant.name}: a {label} read as {answer}"
        for answer, label in zip(answers.tolist(), labels.tolist(), strict=True)
    ]
