"""The number of tokens: fixed, or drawn for each step."""

import re

import pytest

from dartok.train.budgets import Budget


@pytest.mark.parametrize(
    ("text", "least", "most"), [("196", 196, 196), ("49..392", 49, 392), (" 7 ", 7, 7)]
)
def test_a_budget_is_read(text, least, most):
    assert Budget.parse(text) == Budget(least, most)


@pytest.mark.parametrize("text", ["196", "49..392"])
def test_what_is_written_reads_as_the_same_budget(text):
    assert str(Budget.parse(text)) == text


def test_every_number_of_the_range_is_drawn_about_equally_often():
    drawn = [Budget(20, 24).draw(3, step) for step in range(5000)]
    counts = [drawn.count(number) for number in range(20, 25)]
    assert sum(counts) == 5000
    assert all(abs(count - 1000) < 5 * 28.3 for count in counts)  # 28.3: a binomial's deviation


def test_a_draw_is_a_function_of_the_seed_and_the_step():
    budget = Budget(1, 10**6)
    assert budget.draw(0, 5) == budget.draw(0, 5)
    assert len({budget.draw(seed, step) for seed in range(3) for step in range(3)}) == 9


def test_a_fixed_budget_draws_itself():
    assert {Budget.parse("30").draw(0, step) for step in range(9)} == {30}


@pytest.mark.refuses
@pytest.mark.parametrize("text", ["", "x", "-3", "3.5", "4...9", "4..", "..9", "4..9..12", "1e3"])
def test_a_text_that_is_no_budget_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(f"or 49..392, got {text!r}")):
        Budget.parse(text)


@pytest.mark.refuses
@pytest.mark.parametrize("text", ["0", "9..4", "0..4"])
def test_a_range_that_is_empty_or_holds_0_is_refused(text):
    with pytest.raises(ValueError, match=rf"num-tokens must be .*, got {re.escape(text)}$"):
        Budget.parse(text)
