"""What each channel of a session waits for, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from qmig.legacy.connection import Connection
from qmig.legacy.lines import Line


def sentences(connections: Iterable[Connection]) -> Iterator[str]:
    """One sentence for each channel that is not at its end."""
    for connection in connections:
        for line in connection.lines.values():
            if not line.closed:
                yield f"{line.name}: {line.waiting() if line.starved else _held(line, connection)}"


def _held(line: Line, connection: Connection) -> str:
    """Why a channel with bytes is not read on."""
    points = connection.points
    if line is connection.main:
        late = [
            other.name
            for other in connection.many("multifd")
            if not other.closed and other.syncs < points.reached
        ]
        if late:
            return f"at sync point {points.reached}, the SYNC of {', '.join(late)}"
        return "its turn"
    if line.kind == "multifd" and line.syncs > connection.passed:
        return f"behind its SYNC {line.syncs}, main's sync point"
    if line.kind == "multifd":
        return "the first sync point of main"
    if line.kind == "preempt":
        return "POSTCOPY_LISTEN or POSTCOPY_RESUME on main"
    return "its turn"
