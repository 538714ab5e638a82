"""What shows that a destination's refusals are its own, and not a failure of ours or of the machine: before
the first wrong stream of some settings, and after the last of a run, it loads a good one.

The good ones are rows of the registry themselves: the controls of its chapters.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from qmig.errors import EnvironmentProblem
from qmig.testing.scenario import Scenario, Unsupported
from qmig_conformance import expect
from qmig_conformance.case import NotShown, Unmet
from qmig_conformance.hostile.cases import in_time, made
from qmig_conformance.hostile.table import Row
from qmig_conformance.hostile.tables import rows
from qmig_conformance.play import Destination


@functools.cache
def controls() -> Mapping[str, Row]:
    """By settings, as text: the first row of a good stream."""
    found: dict[str, Row] = {}
    for row in rows():
        if "control" in row.value.split("-"):
            found.setdefault(repr(row.settings), row)
    return found


def control_of(settings: Scenario) -> Row:
    """The good stream of these settings; where they have none of their own, a plain one."""
    found = controls()
    return found.get(repr(settings)) or next(iter(found.values()))


class Bracket:
    """Around all that one worker plays on one destination."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._said: dict[str, str] = {}

    def open(self, settings: Scenario) -> None:
        """Raises EnvironmentProblem where the destination does not load the good stream of these settings,
        now and whenever it is asked again."""
        row = control_of(settings)
        if row.value not in self._said:
            self._said[row.value] = self._problem(row)
        if self._said[row.value]:
            raise EnvironmentProblem(f"{row.case.id}, a good stream, does not load: {self._said[row.value]}")

    def close(self) -> Iterator[tuple[Row, str]]:
        """The good streams that were loaded before and are not loaded now, with what was seen."""
        for row in {row.value: row for row in controls().values()}.values():
            if self._said.get(row.value) == "" and (problem := self._problem(row)):
                yield row, problem

    def _problem(self, row: Row) -> str:
        """What is wrong with it; empty where it loads, or where this build has not got what it needs."""
        try:
            in_time(self._destination, row.entry.since, row.entry.until or "")
            seen = self._destination.play(made(row.make, self._destination, row.settings))
            expect.held(seen, row.entry, self._destination.version)
        except (NotShown, Unsupported):
            return ""
        except Unmet as unmet:
            return unmet.actual
        return ""
