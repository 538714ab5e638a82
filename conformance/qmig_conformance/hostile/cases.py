"""Rows and sweeps as cases: what pytest is given, and what an outcome is held to.

@rows_of(ram.TABLE)
def test_row(destination: Destination, row: Row) -> None:
    hold_row(destination, row)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

import pytest

from qmig.testing.scenario import Scenario
from qmig_conformance import expect
from qmig_conformance.case import Case, Level, NotShown, Profile, Role, Unmet
from qmig_conformance.hostile.judged import Held
from qmig_conformance.hostile.script import Absent
from qmig_conformance.hostile.table import Row, Table
from qmig_conformance.play import Destination, Good, Play

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

#: of the sweep, one in so many is played by default
SAMPLE: Final = 20


def rows_of(*tables: Table) -> Decorator:
    """Parametrizes a function with the rows of tables; its argument is `row`."""
    return parametrized("row", ((row, row.case) for table in tables for row in table.rows))


def parametrized(argument: str, pairs: Iterable[tuple[Any, Case]]) -> Decorator:
    """Parametrizes a function with values, each of which is a case."""
    params = [pytest.param(value, marks=pytest.mark.case(case), id=case.id) for value, case in pairs]
    return pytest.mark.parametrize(argument, params)


def hold_row(destination: Destination, row: Row) -> None:
    """Plays a row of the registry. Raises `Unmet`, `NotShown` or `Unsupported`."""
    in_time(destination, row.entry.since, row.entry.until or "")
    seen = destination.play(made(row.make, destination, row.settings))
    expect.held(seen, row.entry, destination.version)


def in_time(destination: Destination, since: str, until: str) -> None:
    """Raises `NotShown` where the target's version has not got what is asked; both bounds are included."""
    if not destination.version:
        return
    own = expect.release(destination.version)
    if own < expect.release(since) or (until and own > expect.release(until)):
        words = f"{since} to {until}" if until else f"{since} and later"
        raise NotShown(f"a matter of {words}")


def made(make: Callable[[Good], Play], destination: Destination, settings: Scenario) -> Play:
    """The play out of this destination's own good stream."""
    try:
        return make(destination.good(settings))
    except Absent as absent:
        raise NotShown(str(absent)) from None


class Swept(Protocol):
    """One wrong stream of a sweep."""

    @property
    def id(self) -> str: ...
    @property
    def settings(self) -> Scenario: ...
    @property
    def title(self) -> str: ...
    @property
    def verdict(self) -> Held: ...
    @property
    def versions(self) -> tuple[str, str]: ...
    @property
    def slow(self) -> bool: ...
    def play(self, good: Good) -> Play: ...


def swept(items: Iterable[Swept]) -> Decorator:
    """Parametrizes a function with items of a sweep; its argument is `item`."""
    return parametrized("item", ((item, case_of(item)) for item in items))


def case_of(item: Swept) -> Case:
    """The item as a case."""
    since, until = item.versions
    return Case(
        id=item.id,
        requirement=item.verdict.requirement,
        level=Level.MUST,
        roles=Role.DESTINATION,
        since=since,
        until=until,
        title=item.title,
        violates=item.verdict.violates,
        profile=Profile.FULL if item.slow or zlib.crc32(item.id.encode()) % SAMPLE else Profile.DEFAULT,
    )


def hold_swept(destination: Destination, item: Swept) -> None:
    """Plays an item of a sweep. Raises `Unmet`, `NotShown` or `Unsupported`."""
    in_time(destination, *item.versions)
    seen = destination.play(made(item.play, destination, item.settings))
    expect.robust(seen, item.verdict.outcomes)
    if item.verdict.outcomes and seen.outcome not in item.verdict.outcomes:
        words = " or ".join(sorted(item.verdict.outcomes))
        raise Unmet(expected=words, actual=expect.described(seen))
