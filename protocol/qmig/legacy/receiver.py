"""One channel of a migration, bytes in, events out: `receive_data`, `next_event`."""

from __future__ import annotations

import enum
from typing import Final

from qmig._feed import Feed, Steps
from qmig._wire import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy.state import StreamState
from qmig.legacy.walker import MainWalker


class Sentinel(enum.Enum):
    """What `next_event` returns when there is no event."""

    NEED_DATA = "more bytes are needed"
    CLOSED = "the input ended and everything was delivered"


NEED_DATA: Final = Sentinel.NEED_DATA
CLOSED: Final = Sentinel.CLOSED


class Channel:
    """Feeds one parser. Views in events are valid until the next `receive_data`."""

    def __init__(self, feed: Feed, steps: Steps[None]) -> None:
        self._feed = feed
        self._steps = steps
        self._error: RemoteProtocolError | None = None
        self._closed = False

    @property
    def offset(self) -> int:
        """Absolute offset of the next unread byte."""
        return self._feed.offset

    @property
    def begun(self) -> bool:
        """Whether bytes have come that are not read."""
        return self._feed.available > 0

    def waiting(self) -> str:
        """What it waits for, behind a NEED_DATA: `the rest of a RAM record at 0x1234 (5 of 4104 bytes)`."""
        return self._feed.waiting()

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Takes the next bytes of the channel; `b""` is its end."""
        self._feed.give(data)

    def next_event(self) -> Record | Sentinel:
        """The next event, NEED_DATA, or CLOSED. An error is raised again on every call."""
        if self._error is not None:
            raise self._error
        if self._closed:
            return CLOSED
        try:
            event = next(self._steps, CLOSED)
        except RemoteProtocolError as error:
            self._error = error
            raise
        if event is None:
            self._feed.settle()
            return NEED_DATA
        if event is CLOSED:
            self._closed = True
        return event


class LegacyReceiver(Channel):
    """Reads a main channel.

    `headerless` is for the second main channel of a postcopy recovery, which begins with
    commands. `offset` is the absolute offset of the first byte given."""

    def __init__(
        self, state: StreamState | None = None, *, headerless: bool = False, offset: int = 0
    ) -> None:
        self.state = state or StreamState()
        feed = Feed(offset)
        walker = MainWalker(feed, self.state)
        super().__init__(feed, walker.resumed() if headerless else walker.stream())
