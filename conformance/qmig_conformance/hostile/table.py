"""Tables of streams: which row of `spec/registries/destination-outcomes.toml` each makes, and of what.

    table = Table("ram", PLAIN)

    @table.row("page-unknown-flag-0x800", "LEG-RAM-002")
    def unknown_flag(script): ...

What the row is about, and what comes of it, stands in the registry only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from qmig.spec.registry import Entry
from qmig.testing import load_registry
from qmig.testing.scenario import Scenario
from qmig_conformance.case import Case, Level, Profile, Role
from qmig_conformance.play import Good, Play

REGISTRY = "destination-outcomes"


@functools.cache
def registered() -> Mapping[str, Entry]:
    """The rows of the registry by their slug."""
    return {str(entry.value): entry for entry in load_registry(REGISTRY).entries}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One stream. `settings` are those of the good stream that `make` changes; the play may have others."""

    value: str
    chapter: str
    settings: Scenario
    make: Callable[[Good], Play]
    #: statements about a peer that the stream breaks
    violates: tuple[str, ...] = ()
    profile: Profile = Profile.DEFAULT

    @property
    def entry(self) -> Entry:
        """The registry's row."""
        return registered()[self.value]

    @property
    def case(self) -> Case:
        """The row as a case; its id has the row's slug, without the chapter's name a second time."""
        slug = self.value.removeprefix(self.chapter.replace("_", "-") + "-")
        return Case(
            id=f"legacy.destination.{self.chapter.replace('_', '-')}.{slug}",
            requirement=self.entry.requirement,
            level=Level.MUST,
            roles=Role.DESTINATION,
            since=self.entry.since,
            until=self.entry.until or "",
            title=self.entry.name,
            violates=self.violates,
            profile=self.profile,
        )


class Table:
    """The rows of one chapter."""

    def __init__(self, chapter: str, settings: Scenario) -> None:
        self.chapter = chapter
        self.settings = settings
        self.rows: list[Row] = []

    def add(
        self,
        value: str,
        make: Callable[[Good], Play],
        *violates: str,
        profile: Profile = Profile.DEFAULT,
    ) -> None:
        """One more row."""
        row = Row(
            value=value,
            chapter=self.chapter,
            settings=self.settings,
            make=make,
            violates=violates,
            profile=profile,
        )
        self.rows.append(row)

    def row(self, value: str, *violates: str) -> Callable[[Callable[[Good], Play]], Callable[[Good], Play]]:
        """Declares a function that makes the play of a row."""

        def declare(make: Callable[[Good], Play]) -> Callable[[Good], Play]:
            self.add(value, make, *violates)
            return make

        return declare
