"""Interleaved timing, on a clock that the test turns."""

import pytest

from dartok.bench.timing import Timing, time_interleaved


class Workshop:
    """A clock that only work moves, and a record of who worked when."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.order: list[str] = []

    def job(self, name, seconds):
        def work():
            self.order.append(name)
            self.now_s += seconds

        return work

    def clock(self):
        return self.now_s


@pytest.fixture
def workshop():
    return Workshop()


def test_each_call_is_timed_by_itself(workshop):
    calls = {"slow": workshop.job("slow", 3.0), "fast": workshop.job("fast", 0.5)}
    timings = time_interleaved(calls, rounds=3, clock=workshop.clock)
    assert timings["slow"].seconds == (3.0, 3.0, 3.0)
    assert timings["fast"].seconds == (0.5, 0.5, 0.5)


def test_calls_take_turns_in_another_order_each_round(workshop):
    calls = {name: workshop.job(name, 1.0) for name in "abc"}
    time_interleaved(calls, rounds=30, warmups=0, clock=workshop.clock)
    turns = "".join(workshop.order)
    rounds = [turns[start : start + 3] for start in range(0, 90, 3)]
    assert {"".join(sorted(names)) for names in rounds} == {"abc"}
    assert len(set(rounds)) == 6  # every order occurs, so no call always follows the same one


def test_warmups_run_but_are_not_counted(workshop):
    seconds = iter([100.0, 50.0, 1.0, 2.0, 3.0])

    def work():
        workshop.now_s += next(seconds)

    timing = time_interleaved({"job": work}, rounds=3, warmups=2, clock=workshop.clock)["job"]
    assert timing.seconds == (1.0, 2.0, 3.0)


def test_the_clock_is_read_after_the_device_has_finished(workshop):
    def synchronise():
        workshop.now_s += 0.25 * len(workshop.order)  # work left over from the calls so far

    calls = {"job": workshop.job("job", 1.0)}
    timings = time_interleaved(
        calls, rounds=2, warmups=0, clock=workshop.clock, synchronise=synchronise
    )
    assert timings["job"].seconds == (1.25, 1.5)


def test_one_slow_round_does_not_move_the_median():
    timing = Timing(seconds=(1.0, 1.1, 30.0, 0.9, 1.0))
    assert timing.median_s == 1.0
    assert timing.least_s == 0.9
    assert timing.spread == pytest.approx(0.1)


@pytest.mark.refuses
@pytest.mark.parametrize(
    ("calls", "options", "message"),
    [
        ({}, {}, "calls must name at least one call to time, got none"),
        ({"a": int}, {"rounds": 0}, "rounds must be >= 1, got 0"),
        ({"a": int}, {"warmups": -1}, "warmups must be >= 0, got -1"),
    ],
)
def test_what_cannot_be_timed_is_refused(calls, options, message):
    with pytest.raises(ValueError, match=message):
        time_interleaved(calls, **options)
