"""`Bounds`: the least and the largest side of regions, and which of them are possible."""

import math
from typing import NamedTuple

__all__ = ["Bounds", "bounds_of", "check_bounded_kind", "check_bounds"]

_SLACK = 1e-9
"""Share by which a bound such as 1 / 14 may be rounded beyond what is possible."""


class Bounds(NamedTuple):
    """Least and largest side that a region may have, as a share of the picture's, from 0 to 1.

    They hold for its height and for its width; of a region that crosses a seam, for the height of
    each part and for the length along the strip.
    """

    min_region: float | None = None
    """None for no bound."""
    max_region: float | None = None
    """None for no bound: a region may be as high as the picture, and longer than a row."""


def bounds_of(min_region: float | None, max_region: float | None) -> Bounds | None:
    """The bounds, or None where there is none.

    Raises:
        ValueError: If one is not above 0 and at most 1, or the least is above the largest.
    Example:
        >>> bounds_of(None, 0.25)
        Bounds(min_region=None, max_region=0.25)
    """
    for name, side in (("min_region", min_region), ("max_region", max_region)):
        if side is not None and not 0 < side <= 1:
            raise ValueError(
                f"{name} must be above 0 and at most 1, a share of the picture's side, got {side}"
            )
    if min_region is None and max_region is None:
        return None
    if min_region is not None and max_region is not None and min_region > max_region:
        raise ValueError(
            f"min_region must be at most max_region = {max_region}, got {min_region}; swap them"
        )
    return Bounds(min_region, max_region)


def check_bounded_kind(bounds: Bounds | None, kind: str) -> None:
    """Refuse bounds for the partition of the authors' checkpoints.

    Raises:
        ValueError: If there are bounds and `kind` is "authors".
    """
    if bounds is not None and kind == "authors":
        raise ValueError("min_region and max_region need partition='flow' or 'grid', got 'authors'")


def check_bounds(
    bounds: Bounds | None, num_tokens: int, num_rows: int, *, num_frames: int = 1
) -> None:
    """Refuse bounds that so many regions in so many rows cannot keep.

    Rows are `1 / num_rows` high on average, and regions `num_frames * num_rows / num_tokens` of a
    row long; the largest may not be below either, nor the least above.

    Raises:
        ValueError: Naming the nearest bound that is possible, and the rows that the one wanted
            needs, if there are such.
    Example:
        >>> check_bounds(Bounds(max_region=0.05), 196, 14)
        Traceback (most recent call last):
        ValueError: max_region must be at least 0.0715 for 196 regions in 14 rows, got 0.05; ...
    """
    if bounds is None:
        return
    means = (1 / num_rows, num_frames * num_rows / num_tokens)
    counts = f"for {num_tokens} regions in {num_rows} rows"
    most, least = bounds.max_region, bounds.min_region
    if most is not None and means[1] > 1:
        raise ValueError(
            f"max_region needs a region for each of {num_frames * num_rows} rows, got "
            f"{num_tokens}; ask for more regions or fewer rows"
        )
    if most is not None and most * (1 + _SLACK) < max(means):
        nearest = math.ceil(max(means) * 1e4) / 1e4
        rows = _rows_between(1 / most, most * num_tokens / num_frames)
        raise ValueError(
            f"max_region must be at least {nearest:.4g} {counts}, got {most}; "
            f"raise it{rows} or ask for more regions"
        )
    if least is not None and least * (1 - _SLACK) > min(means):
        nearest = math.floor(min(means) * 1e4) / 1e4
        rows = _rows_between(least * num_tokens / num_frames, 1 / least)
        raise ValueError(
            f"min_region must be at most {nearest:.4g} {counts}, got {least}; "
            f"lower it{rows} or ask for fewer regions"
        )


def _rows_between(fewest: float, most: float) -> str:
    """The remedy where another number of rows can keep a bound."""
    low, high = math.ceil(fewest * (1 - _SLACK)), math.floor(most * (1 + _SLACK))
    return f", give num_rows from {max(1, low)} to {high}," if max(1, low) <= high else ""
