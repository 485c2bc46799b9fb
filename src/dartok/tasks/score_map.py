"""What a score map looks like: its entropy, what it asks for, the regions that follow from it.

A clip has one map, of all its frames.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dartok.core.regions import Regions
from dartok.core.tokenizer import Tokenizer

__all__ = [
    "by_clip",
    "entropy_penalty",
    "expected_tokens",
    "score_entropy",
    "score_health",
    "share_on_object",
    "token_penalty",
    "watch_scores",
]


def score_entropy(scores: Float[Tensor, "B *T h w"]) -> Float[Tensor, "B"]:
    """Entropy of each image's scores as a share of the largest: `-sum_i p_i log p_i / log(h w)`.

    `p = scores / sum(scores)` over the image. 1 where all scores are equal, and for a map of one
    cell; towards 0 as one cell takes everything. The scale of the scores does not matter, the size
    of the map does: compare maps of one size. In float32 or wider.

    Args:
        scores: `> 0`. Not checked: reading values stalls the GPU.
    Example:
        >>> score_entropy(torch.tensor([[[1.0, 1.0]], [[3.0, 1.0]]]))
        tensor([1.0000, 0.8113])
    """
    logarithms = _wide(scores).flatten(1).log()
    num_cells = logarithms.shape[1]
    if num_cells == 1:
        return torch.ones_like(logarithms[:, 0])
    log_p = logarithms.log_softmax(1)  # of the logarithm: no p is rounded to 0
    return -(log_p.exp() * log_p).sum(1) / math.log(num_cells)


def entropy_penalty(scores: Float[Tensor, "B *T h w"], *, target: float) -> Float[Tensor, ""]:
    """`mean_b (score_entropy(scores)[b] - target)^2`: neither uniform nor collapsed.

    The square pulls hard from both ends and hardly at all near the target, so it needs no band; it
    is taken per image, so that a uniform map cannot pay for a collapsed one. Scores raised to a
    strength s near 0 are near uniform whatever the scorer does; their gradient falls as s^2, so the
    penalty says little before the strength has grown. A scorer without parameters ("edge",
    "uniform") does not learn from it.

    Measured on the digits of `dartok demo` (192 px, 36 tokens, "conv", 200 steps): weight 0, 1, 10
    give entropy 0.830, 0.852, 0.890 for target 0.9, and 10 gives 0.705 for target 0.7.

    Source: ours.

    Example:
        >>> entropy_penalty(torch.ones(2, 4, 4), target=0.9)
        tensor(0.0100)
    """
    return (score_entropy(scores) - target).square().mean()


def expected_tokens(
    scores: Float[Tensor, "B *T h w"], *, mass_per_token: float
) -> Float[Tensor, "B"]:
    """Tokens that each image's scores ask for: `mean_ij(scores[b, i, j]) / mass_per_token`.

    The mean score is the mass of the image: the integral of its scores over [0, 1] x [0, 1]. With
    `mass_per_token = 1 / N` a score of 1 everywhere, as of the fixed grid, asks for N tokens. It is
    no whole number and has a gradient. In float32 or wider.

    Raises:
        ValueError: Unless `mass_per_token > 0`.
    Example:
        >>> expected_tokens(torch.full((1, 4, 4), 0.5), mass_per_token=1 / 196)
        tensor([98.])
    """
    if not mass_per_token > 0:
        raise ValueError(f"mass_per_token must be > 0, got {mass_per_token}")
    return _wide(scores).flatten(1).mean(1) / mass_per_token


def token_penalty(scores: Float[Tensor, "B *T h w"], *, target: float = 0.0) -> Float[Tensor, ""]:
    """`max(0, mean_b(n[b]) / N - target)`, with `n = expected_tokens` at `mass_per_token = 1 / N`.

    N cancels: the penalty is the mean score beyond the target. The mean is taken before the limit,
    so that an image may ask for more where another asks for less. The gradient lowers every score
    of every image alike; that a picture needs more tokens must come from the other terms, or all
    sink to the target: set one.

    What it moves depends on the scorer. "conv": the bias of its last layer and its gain, so all of
    it; its logits are bounded, so far down the map changes its shape too. Scorers that standardise
    over the batch ("pixels", "mobilenetv3_small", ...): while training a shift or scale of the
    logits is taken out again, so only the shape of their distribution is left, and that hardly
    moves the mean. "edge", "uniform": nothing. With a budget that is the same for all images the
    scale of the scores does not change the regions, so there the penalty saves no token.

    Measured on the digits of `dartok demo` (192 px, 36 tokens, "conv", 200 steps, target 0): weight
    0, 0.1, 1 give 65.7, 34.2, 0.9 expected tokens at N = 36, entropy 0.83, 0.52, 0.97, and accuracy
    0.36, 0.33, 0.09: at 1 the mean score is 0.024, near its lower bound exp(-4) = 0.018. Target
    0.8 at weight 1 gives 18.6 tokens, below the target, and 0.25: prefer small weights.

    Source: ours.

    Example:
        >>> token_penalty(torch.full((2, 4, 4), 0.5), target=0.25)
        tensor(0.2500)
    """
    share = expected_tokens(scores, mass_per_token=1.0).mean()
    return (share - target).clamp_min(0)


@contextmanager
def watch_scores(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect `scores ** strength` `(B, h, w)` of each forward of each tokenizer, with its graph.

    The list stays empty for a model without a tokenizer.

    Example:
        >>> from dartok.scorers import RegionTokenizer
        >>> tokenizer = RegionTokenizer(embed_dim=8, num_tokens=6)
        >>> with watch_scores(tokenizer) as seen:
        ...     tokens = tokenizer(torch.rand(2, 3, 40, 60))
        >>> [scores.shape for scores in seen]
        [torch.Size([2, 28, 28])]
    """
    seen: list[Tensor] = []
    hooks = [
        module.scorer.register_forward_hook(partial(_keep, seen, module))
        for module in model.modules()
        if isinstance(module, Tokenizer)
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def score_health(
    scores: Float[Tensor, "B *T h w"], tokenizer: Tokenizer, image_px: tuple[int, int]
) -> dict[str, float]:
    """How far a batch's score maps and regions are from uniform and from collapsed.

    - "score/entropy": mean over the images of `score_entropy`.
    - "score/smallest_region", "score/largest_region": smallest and largest area over all regions of
      all images, as shares of the image; of N equal regions 1 / N.

    Reads values, so it waits for the GPU.

    Args:
        scores: After strength, as `watch_scores` gives them.
        tokenizer: Whose budget and partition cut them.
        image_px: Height and width of the images.
    Example:
        >>> from dartok.scorers import RegionTokenizer
        >>> tokenizer = RegionTokenizer(embed_dim=8, num_tokens=4)
        >>> health = score_health(torch.ones(1, 2, 2), tokenizer, (64, 64))
        >>> health["score/entropy"], health["score/largest_region"]
        (1.0, 0.25)
    """
    areas = tokenizer.cut(scores, image_px).areas()
    smallest, largest = areas.aminmax()
    return {
        "score/entropy": score_entropy(scores).mean().item(),
        "score/smallest_region": smallest.item(),
        "score/largest_region": largest.item(),
    }


@torch.no_grad()
def share_on_object(regions: Regions, boxes_xyxy: Float[Tensor, "B 4"]) -> float:
    """Share of an image's regions whose centre lies in the image's box, averaged over images.

    Log it as "score/on_object". Regions of the fixed grid have about the box's share of the area.

    Args:
        regions: Of B images.
        boxes_xyxy: Left, top, right, bottom in [0, 1]; left and top edges count as inside.
    Raises:
        ValueError: If there is not one box for each image.
    Example:
        >>> regions = Regions(torch.tensor([[[0.0, 1.0]]]), torch.tensor([[0.0, 0.5, 1.0]]))
        >>> share_on_object(regions, torch.tensor([[0.0, 0.0, 0.5, 1.0]]))
        0.5
    """
    centres = regions.centres()
    if boxes_xyxy.shape != (centres.shape[0], 4):
        raise ValueError(
            f"boxes_xyxy must be ({centres.shape[0]}, 4), one box per image, got "
            f"{tuple(boxes_xyxy.shape)}"
        )
    low, high = boxes_xyxy.to(centres)[:, None].split(2, dim=-1)
    inside = ((low <= centres) & (centres < high)).all(-1)
    return inside.double().mean().item()


def by_clip(scores: Float[Tensor, "M h w"] | None, images: Tensor) -> Tensor | None:
    """Score maps as `watch_scores` collects them, `(B, T, h, w)` where the images are clips.

    A scorer that looks at each frame alone is shown the frames of all clips as one batch.

    Example:
        >>> by_clip(torch.ones(6, 2, 2), torch.zeros(2, 3, 1, 8, 8)).shape
        torch.Size([2, 3, 2, 2])
    """
    if scores is None or images.ndim == 4 or scores.ndim == 4:
        return scores
    return scores.unflatten(0, images.shape[:2])


def _wide(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def _keep(
    seen: list[Tensor], tokenizer: Tokenizer, scorer: nn.Module, inputs: object, scores: Tensor
) -> None:
    scores = _wide(scores)
    strength = tokenizer.strength.to(scores.dtype, copy=True)  # the dial may turn before backward
    seen.append(scores**strength)
