"""What `verify` says: findings, and how each rule fared.

Rule 1: a rule that is broken a million times is one line with a count. The first few are kept as they are.
Rule 2: whether a rule holds for this stream may be known only at its end (the machine type comes first, the
description last). So checkers report what they see, and `Journal.finish` decides what counts.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from qmig._wire import Record

#: Findings kept of one rule; further ones are counted.
KEPT: Final = 5


class Severity(enum.StrEnum):
    """How bad a broken rule is."""

    #: the format or the order of the protocol is violated
    ERROR = "error"
    #: nothing known to us sends this, yet a receiver copes
    WARNING = "warning"
    #: a peculiarity or a defect of some QEMU versions, or a report of the other side
    NOTE = "note"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken rule at one place. `offset` is absolute in `channel`, None for a whole channel."""

    requirement: str
    severity: Severity
    channel: str
    offset: int | None
    record: str
    message: str

    def __str__(self) -> str:
        where = f"offset {self.offset:#x}, " if self.offset is not None else ""
        return f"{self.severity}: {self.channel}: {where}{self.record}: {self.message} [{self.requirement}]"


class Status(enum.StrEnum):
    """What came of a rule on this input."""

    HELD = "held"
    BROKEN = "broken"
    #: it does not hold for this version, machine type or kind of stream
    NOT_APPLICABLE = "not applicable"
    #: the input does not show whether it holds
    NOT_CHECKABLE = "not checkable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One row of the coverage list. `count` is how often the rule was broken; `reason` explains the last
    two statuses."""

    requirement: str
    title: str
    status: Status
    count: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    findings: tuple[Finding, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def good(self) -> bool:
        """Whether nothing was found that is an error."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)


class Sighting:
    """What a checker saw, before it is known whether it counts."""

    __slots__ = ("channel", "message", "offset", "record")

    def __init__(self, channel: str, event: Record | None, message: str) -> None:
        self.channel = channel
        self.offset = event.offset if event is not None else None
        self.record = type(event).__name__ if event is not None else "channel"
        self.message = message


class Pile:
    """The sightings of one rule: the first ones, and how many there were."""

    __slots__ = ("count", "first")

    def __init__(self) -> None:
        self.count = 0
        self.first: list[Sighting] = []

    def add(self, sighting: Sighting) -> None:
        self.count += 1
        if len(self.first) < KEPT:
            self.first.append(sighting)
