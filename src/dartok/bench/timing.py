"""Time several calls side by side, so that whatever slows the machine slows all of them."""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Timing", "time_interleaved"]


@dataclass(frozen=True, kw_only=True)
class Timing:
    """How long one of the calls took, once per round.

    Example:
        >>> Timing(seconds=(1.0, 9.0, 2.0)).median_s
        2.0
    """

    seconds: tuple[float, ...]
    """Duration of each round, in order."""

    @property
    def median_s(self) -> float:
        """Median duration in seconds: one slow round does not move it."""
        return statistics.median(self.seconds)

    @property
    def least_s(self) -> float:
        """Duration of the fastest round in seconds: the call when nothing disturbs it."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """Largest deviation from the median among the middle half of the rounds, relative to it.

        Example:
            >>> round(Timing(seconds=(1.0, 1.1, 1.0, 0.9, 5.0)).spread, 3)
            0.1
        """
        middle = self.median_s
        deviations = sorted(abs(second - middle) for second in self.seconds)
        return deviations[len(deviations) // 2] / middle


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 9,
    warmups: int = 1,
    synchronise: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Run every call once per round, and return the durations of each.

    The calls take turns within a round, in an order drawn anew for each (always the same ones), so
    that neither a machine that throttles or is shared nor the caches and memory that one call
    leaves to the next favour any. Ratios of medians of one such run can be compared; seconds of two
    runs cannot.

    Args:
        calls: Name to a call without arguments; at least one.
        rounds: Timed rounds, `>= 1`; an odd number has a true median.
        warmups: Rounds before them that are not timed, `>= 0`.
        synchronise: Waits for an accelerator; called before the clock is read.
        clock: Seconds from any origin.
    Raises:
        ValueError: If there is no call, `rounds < 1` or `warmups < 0`.
    Example:
        >>> timings = time_interleaved({"short": lambda: sum(range(9)), "none": int}, rounds=3)
        >>> {name: len(timing.seconds) for name, timing in timings.items()}
        {'short': 3, 'none': 3}
    """
    _check(calls, rounds, warmups)
    names = list(calls)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    order = random.Random(0)
    for number in range(-warmups, rounds):
        for name in order.sample(names, len(names)):
            duration = _duration_s(calls[name], synchronise, clock)
            if number >= 0:
                seconds[name].append(duration)
    return {name: Timing(seconds=tuple(values)) for name, values in seconds.items()}


def _duration_s(
    call: Callable[[], object], synchronise: Callable[[], object], clock: Callable[[], float]
) -> float:
    synchronise()
    start = clock()
    call()
    synchronise()
    return clock() - start


def _check(calls: Mapping[str, Callable[[], object]], rounds: int, warmups: int) -> None:
    if not calls:
        raise ValueError("calls must name at least one call to time, got none")
    if rounds < 1:
        raise ValueError(f"rounds must be >= 1, got {rounds}")
    if warmups < 0:
        raise ValueError(f"warmups must be >= 0, got {warmups}")
