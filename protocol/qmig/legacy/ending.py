"""What the end of all input left open, channel against channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from qmig.legacy.connection import Connection
from qmig.legacy.lines import Line
from qmig.legacy.sync import SyncMode

if TYPE_CHECKING:
    from qmig.legacy.verify.findings import Finding


def superseded(connection: Connection, connections: Iterable[Connection]) -> bool:
    """Whether a later connection was read to its end: then where this one was cut is no fault."""
    return any(
        other.number > connection.number and other.main is not None and other.main.whole
        for other in connections
    )


def loose_ends(connections: Iterable[Connection]) -> Iterator[Finding]:
    """Findings for sync points unmet, and channels missing or misnamed. One for each cause."""
    everything = sorted(connections, key=lambda c: c.number)
    for connection in everything:
        yield from _unfed(connection)
        yield from _ids(connection)
        if connection.main is not None:
            yield from _missing(connection, connection.main)
            if superseded(connection, everything):
                continue  # its channels were cut wherever they were
            for line in connection.many("multifd"):
                yield from _syncs(connection, connection.main, line)


def _unfed(connection: Connection) -> Iterator[Finding]:
    for line in connection.lines.values():
        if not line.ended and line.error is None:
            yield _error("LEG-SES-002", line.name, line.position, "channel", "its end was not given")


def _ids(connection: Connection) -> Iterator[Finding]:
    """The ids in the first packets, against the names and against each other."""
    seen: dict[int, str] = {}
    for line in connection.many("multifd"):
        if line.hello is None:
            continue
        if line.hello in seen:
            yield _error(
                "LEG-MFD-003", line.name, line.offset, "MultifdHello",
                f"id {line.hello} is that of {seen[line.hello]} too",
            )  # fmt: skip
        elif line.hello != line.number:
            yield _error(
                "LEG-MFD-003", line.name, line.offset, "MultifdHello",
                f"id {line.hello}, the channel is called {line.name}",
            )  # fmt: skip
        seen.setdefault(line.hello, line.name)
    absent = sorted(set(range(max(seen, default=-1))) - set(seen))
    if absent:
        names = ", ".join(f"multifd-{number}" for number in absent)
        yield _error("LEG-MFD-003", names, None, "channel", "missing: a channel of a higher id is there")


def _missing(connection: Connection, main: Line) -> Iterator[Finding]:
    points = connection.points
    if points.mode is SyncMode.PER_ROUND and points.reached and not connection.many("multifd"):
        yield _error(
            "LEG-SES-004", main.name, points.offset, "RamMultifdFlush",
            "the stream uses multifd, and no multifd channel was given: most of its RAM is missing",
        )  # fmt: skip


def _syncs(connection: Connection, main: Line, line: Line) -> Iterator[Finding]:
    """SYNC packets of one channel against the sync points of main, once for each channel."""
    points = connection.points
    if line.error is not None:
        return
    if line.name in connection.short:
        number, offset = connection.short[line.name]
        yield _error(
            "LEG-MFD-056", line.name, line.position, "channel",
            f"ended with {line.syncs} SYNC packets, {main.name} has sync point {number} at {offset:#x}",
        )  # fmt: skip
    elif line.syncs > points.reached and main.error is None:
        yield _error(
            "LEG-MFD-056", line.name, line.sync_offset, "MultifdPacket",
            f"{line.syncs} SYNC packets, {main.name} has {points.reached} sync points",
        )  # fmt: skip
    elif points.precopy < line.syncs < points.reached:
        yield _error(
            "LEG-MFD-056", line.name, line.position, "channel",
            f"ended with {line.syncs} SYNC packets; {main.name} has {points.reached} sync points, "
            f"{points.precopy} of them before postcopy",
        )  # fmt: skip


def _error(requirement: str, channel: str, offset: int | None, record: str, message: str) -> Finding:
    from qmig.legacy.verify.findings import Finding, Severity  # not before there is something to say

    return Finding(
        requirement=requirement,
        severity=Severity.ERROR,
        channel=channel,
        offset=offset,
        record=record,
        message=message,
    )
