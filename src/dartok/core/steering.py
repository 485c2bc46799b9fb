"""Steering: what a user calls important is added to the score, without retraining."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from dartok.core.overlap import overlap_lengths
from dartok.core.reading import readable

__all__ = ["Priority", "Steering", "priority_map", "steer_scores"]

Priority = Tensor | Sequence[Tensor]
"""A map `(B, h, w)` or, for each image, boxes `(M, 4)` or points `(M, 2)` in [0, 1]."""

_LEAST_CELLS = 32
"""Cells a side that a score map is refined to, so that small boxes are seen."""

_LEAST_EXPONENT = -60.0  # of a factor: a score must stay above 0

_SLACK = 0.01  # that a box may reach beyond the picture

_POINT_SIGMA = 0.08
"""Deviation of the bump around a point, as a share of the image's side."""


class Steering(NamedTuple):
    """What is important, and by how much."""

    priority: Priority
    """See `priority_map`."""
    weight: float = 2.0
    """Added to the logarithm of the score where the priority is 1; 0 for no effect."""


def steer_scores(
    scores: Float[Tensor, "B h w"], steering: Steering | None
) -> Float[Tensor, "B h2 w2"]:
    """`scores * exp(weight * priority)`, on cells small enough to hold the priority.

    A score is constant on its cell, so cutting cells into equal parts changes no region; only then
    is the priority added, in logarithm. An image's scores are divided by the largest factor, which
    changes no region either. Weight 0 returns the scores themselves.

    Source: ours.

    Raises:
        ValueError: As `priority_map`, or if the weight is not finite.
    Example:
        >>> box = torch.tensor([[0.0, 0.0, 0.5, 1.0]])
        >>> steer_scores(torch.ones(1, 1, 1), Steering([box], 1.0))[0, 0, [0, -1]]
        tensor([1.0000, 0.3679])
    """
    if steering is None or steering.weight == 0:
        return scores
    if not abs(steering.weight) < float("inf"):
        raise ValueError(f"priority weight must be finite, got {steering.weight}")
    fine = _refined(scores)
    exponent = steering.weight * priority_map(steering.priority, fine)
    below = exponent - exponent.amax((1, 2), keepdim=True)  # the scale of scores changes no region
    return fine * below.clamp_min(_LEAST_EXPONENT).exp()


def priority_map(priority: Priority, like: Float[Tensor, "B h w"]) -> Float[Tensor, "#B h w"]:
    """The priority of each cell of score maps `like`.

    - A map `(B, h, w)` or `(1, h, w)` of any size: its mean over the cell. Any finite values, such
      as a saliency in [0, 1]; negative ones push tokens away.
    - Boxes, one tensor (or array, or list) `(M, 4)` of left, top, right, bottom in [0, 1] for each
      image: the share of the cell inside the box, the largest of all boxes. M may be 0.
    - Points, one tensor `(M, 2)` of x, y in [0, 1] for each image: a Gaussian bump of height 1
      around each, the largest of all points.

    Raises:
        ValueError: If shapes or the number of images do not match; of values on the CPU also if a
            box is not in order or lies outside [0, 1], or a map is not finite.
    Example:
        >>> priority_map([torch.tensor([[0.0, 0.0, 0.75, 1.0]])], torch.ones(1, 1, 2))
        tensor([[[1.0000, 0.5000]]])
    """
    if isinstance(priority, Tensor):
        return _mean_of_map(priority, like)
    if len(priority) != like.shape[0]:
        raise ValueError(
            f"priority must hold one tensor of boxes or points for each of {like.shape[0]} images, "
            f"got {len(priority)}"
        )
    return torch.stack([_mark(marks, like[0]) for marks in priority])


def _refined(scores: Tensor) -> Tensor:
    down, across = (-(-_LEAST_CELLS // side) for side in scores.shape[-2:])
    return scores.repeat_interleave(down, dim=-2).repeat_interleave(across, dim=-1)


def _mean_of_map(priority: Tensor, like: Tensor) -> Tensor:
    if priority.ndim != 3 or priority.shape[0] not in (1, like.shape[0]):
        raise ValueError(
            f"priority must be a map (B, h, w) with B = {like.shape[0]} or 1, or a list of boxes "
            f"(M, 4) or points (M, 2), one for each image; got a tensor {tuple(priority.shape)}"
        )
    if priority.shape[-1] in (2, 4) or 0 in priority.shape:
        raise ValueError(
            f"priority must be a map of some cells, got {tuple(priority.shape)}; boxes and points "
            "come as a list, one (M, 4) or (M, 2) for each image"
        )
    if readable(priority) and not priority.double().sum().isfinite():
        raise ValueError("priority must be finite, got NaN or infinite values; clean the map")
    values = priority.to(like)
    shares = [
        overlap_lengths(_even_edges(cells, like), size, 1 / size) * cells
        for cells, size in zip(like.shape[1:], values.shape[1:], strict=True)
    ]
    return shares[0] @ values @ shares[1].transpose(0, 1)


def _mark(marks: Any, like: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    """The largest of the boxes' or points' priorities in each cell."""
    marks = torch.as_tensor(marks)
    if marks.numel() == 0:
        return torch.zeros_like(like)
    if marks.ndim != 2 or marks.shape[-1] not in (2, 4):
        raise ValueError(
            f"priority must be boxes (M, 4) or points (M, 2), got {tuple(marks.shape)}"
        )
    if readable(marks) and not ((marks >= -_SLACK) & (marks <= 1 + _SLACK)).all():
        raise ValueError(
            "priority boxes and points must lie in [0, 1] of the picture, got "
            f"{marks.min():.4g} to {marks.max():.4g}; divide pixels by its width and height"
        )
    if marks.shape[-1] == 4 and readable(marks) and not (marks[:, :2] <= marks[:, 2:]).all():
        raise ValueError(
            f"priority boxes must be left, top, right, bottom in order, got {marks.tolist()}"
        )
    marks = marks.to(like)
    each = _boxes(marks, like) if marks.shape[-1] == 4 else _points(marks, like)
    return each.amax(0)


def _boxes(boxes_xyxy: Tensor, like: Tensor) -> Float[Tensor, "M h w"]:
    sides = [
        overlap_lengths(boxes_xyxy[:, [axis, axis + 2]].clamp(0, 1), cells, 1 / cells) * cells
        for axis, cells in ((1, like.shape[0]), (0, like.shape[1]))
    ]
    return sides[0].transpose(1, 2) @ sides[1]


def _points(points_xy: Tensor, like: Tensor) -> Float[Tensor, "M h w"]:
    bumps = [
        torch.exp(-0.5 * ((_centres(cells, like) - points_xy[:, axis, None]) / _POINT_SIGMA) ** 2)
        for axis, cells in ((1, like.shape[0]), (0, like.shape[1]))
    ]
    return bumps[0].unsqueeze(2) * bumps[1].unsqueeze(1)


def _even_edges(cells: int, like: Tensor) -> Tensor:
    return torch.arange(cells + 1, dtype=like.dtype, device=like.device) / cells


def _centres(cells: int, like: Tensor) -> Tensor:
    return (torch.arange(cells, dtype=like.dtype, device=like.device) + 0.5) / cells
