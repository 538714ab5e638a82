"""The return path in the story of a recording: each answer behind what it answers.

A recording does not say when a message came back. What made the destination send it is
known: that was told before, or the message waits.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from qmig._wire import Record
from qmig.legacy.commands import (
    OpenReturnPath,
    Ping,
    PostcopyListen,
    PostcopyResume,
    RecvBitmap,
)
from qmig.legacy.connection import Connection
from qmig.legacy.lines import Line
from qmig.legacy.returnpath import (
    RpPong,
    RpRecvBitmap,
    RpReqPages,
    RpReqPagesId,
    RpResumeAck,
    RpShut,
)

_CAUSES: Final = frozenset({OpenReturnPath, Ping, PostcopyListen, PostcopyResume, RecvBitmap})


class Answers:
    """One return path and what was asked on main so far."""

    def __init__(self, line: Line, connection: Connection) -> None:
        self.line = line
        self.head: Record | None = None  # read, and its cause not told yet
        self._connection = connection
        self._asked: Counter[tuple[type[Record], int | str]] = Counter()
        self._news = False

    def see(self, event: Record) -> None:
        """Takes main's next event."""
        kind = type(event)
        self._news = kind in _CAUSES
        if isinstance(event, Ping):
            self._asked[RpPong, event.value] += 1
        elif isinstance(event, RecvBitmap):
            self._asked[RpRecvBitmap, event.block] += 1

    def due(self) -> bool:
        """Whether main has just told a cause."""
        return self._news

    def caused(self, event: Record) -> bool:
        """Whether the cause of this message was told; each PING and bitmap request counts once."""
        connection = self._connection
        if isinstance(event, RpShut):
            return False  # the destination's last word: told when main is at its end
        if isinstance(event, RpReqPagesId | RpReqPages):
            return connection.resumed if connection.recovery else connection.listening
        if isinstance(event, RpResumeAck):
            return connection.resumed
        if not isinstance(event, RpPong | RpRecvBitmap):
            return True
        key = (type(event), event.value if isinstance(event, RpPong) else event.block)
        if not self._asked[key]:
            return False
        self._asked[key] -= 1
        return True
