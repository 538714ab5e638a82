"""Sets of pages: what was added and taken out, and ranges that claim more than there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qmig.legacy.pageset import PIECE, Budget, PageSet

PAGES = 3 * PIECE
SPANS = st.tuples(st.integers(0, PAGES), st.integers(1, 2 * PIECE))


@given(st.lists(st.tuples(st.booleans(), SPANS), max_size=8), SPANS)
def test_it_is_a_set_of_numbers(steps: list[tuple[bool, tuple[int, int]]], asked: tuple[int, int]) -> None:
    found = PageSet(Budget())
    expected: set[int] = set()
    for add, (first, count) in steps:
        span = set(range(first, first + count))
        if add:
            found.add(first, count)
            expected |= span
        else:
            found.discard(first, count)
            expected -= span
    assert found.touches(*asked) == bool(expected & set(range(asked[0], sum(asked))))


def test_taking_out_more_than_there_is_costs_what_there_is() -> None:
    pages = PageSet(Budget())
    for first in (0, 5 * PIECE, 1 << 40):
        pages.add(first, 10)
    pages.discard(5, 1 << 50)
    assert pages.touches(0, 5)
    assert not pages.touches(5, 1 << 50)


def test_a_range_beyond_the_budget_is_given_up_at_once() -> None:
    budget = Budget(2)
    pages = PageSet(budget)
    assert not pages.add(0, 10)
    assert pages.add(5, 1 << 50)  # what is known goes on
    assert pages.exceeded
    assert pages.count() == PIECE
    assert pages.missing(0, 1 << 50) == PIECE


def test_the_budget_ends_in_the_middle_of_a_range() -> None:
    pages = PageSet(Budget(1))
    assert not pages.add(0, 10)
    pages.add(PIECE - 1, PIECE + 2)
    assert pages.exceeded
    assert not pages.add(PIECE * 7, 1)
    assert pages.missing(PIECE - 1, PIECE + 2) == 2 * PIECE
