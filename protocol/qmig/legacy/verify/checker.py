"""What every checker is: a set of handlers by event type, and a place to report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from qmig._wire import Record
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.findings import Pile, Sighting
from qmig.legacy.verify.rules import Rule

#: called with the channel's name and the event
Handler = Callable[[str, Any], None]


class Journal:
    """Collects what checkers report, by requirement."""

    def __init__(self) -> None:
        self.piles: dict[str, Pile] = {}

    def add(self, requirement: str, sighting: Sighting) -> None:
        self.piles.setdefault(requirement, Pile()).add(sighting)


class Checker(ABC):
    """Sees every event of a migration; knows one part of the protocol.

    A checker never relies on the order between channels: a recording does not show it."""

    #: the rules that this class can report, and those of its part that it cannot check
    rules: ClassVar[tuple[Rule, ...]]
    #: `Rule.about` of those rules that do not say
    about: ClassVar[tuple[type[Record], ...]] = ()

    def __init__(self, facts: Facts, journal: Journal) -> None:
        self.facts = facts
        self._journal = journal

    @abstractmethod
    def handlers(self) -> Mapping[type[Record], Handler]:
        """Event type -> handler."""

    def finish(self) -> None:  # noqa: B027 - most have nothing to do at the end
        """Called once, after the last event of every channel."""

    def report(self, requirement: str, channel: str, event: Record | None, message: str) -> None:
        self._journal.add(requirement, Sighting(channel, event, message))
