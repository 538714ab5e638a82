"""What a state machine's table is made of, and how a row is chosen.

A row says: in this state, on this event, under these conditions, do this and be there. The tables are
literals (`source_table`, `destination_table`); the code runs on them, the model checker explores them, the
diagrams in `spec/v2` are drawn from them.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

S = TypeVar("S", bound=enum.Enum)
E = TypeVar("E", bound=enum.Enum)
A = TypeVar("A", bound=enum.Enum)


@dataclass(frozen=True, slots=True)
class Row(Generic[S, E, A]):
    """`when` names conditions that must hold; one that begins with ``!`` must not. `outcome` is what CLOSING
    or END keep."""

    state: S
    event: E
    next: S
    actions: tuple[A, ...] = ()
    when: tuple[str, ...] = ()
    outcome: str = ""

    def holds(self, facts: Collection[str]) -> bool:
        return all((fact[1:] not in facts) if fact[0] == "!" else (fact in facts) for fact in self.when)


class Table(Generic[S, E, A]):
    """Rows by state and event."""

    def __init__(self, name: str, rows: Sequence[Row[S, E, A]]) -> None:
        self.name = name
        self.rows = tuple(rows)
        self._index: dict[tuple[S, E], list[Row[S, E, A]]] = {}
        for row in rows:
            self._index.setdefault((row.state, row.event), []).append(row)

    def find(self, state: S, event: E, facts: Collection[str]) -> Row[S, E, A] | None:
        """The one row that fits; None where the event may not happen. At most one fits (a test walks
        them)."""
        fitting = [row for row in self._index.get((state, event), ()) if row.holds(facts)]
        return fitting[0] if fitting else None

    def fitting(self, state: S, event: E, facts: Collection[str]) -> int:
        """How many rows fit."""
        return sum(row.holds(facts) for row in self._index.get((state, event), ()))

    def without(self, row: Row[S, E, A], *instead: Row[S, E, A]) -> Table[S, E, A]:
        """The table with one row taken out or replaced: what a seeded fault is."""
        return Table(
            self.name, [other for old in self.rows for other in ((old,) if old is not row else instead)]
        )


def rows(
    states: Collection[S],
    event: E,
    next: S | None,
    *actions: A,
    when: Collection[str] = (),
    outcome: str = "",
) -> Iterator[Row[S, E, A]]:
    """The same row for several states; `next` None is "stay"."""
    for state in states:
        yield Row(state, event, next or state, actions, tuple(when), outcome)
