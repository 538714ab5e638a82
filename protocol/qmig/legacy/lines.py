"""One channel inside a session: its reader, and what the others must know of it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final, cast

from qmig._wire import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy.channels import ChannelName
from qmig.legacy.receiver import CLOSED, Channel, LegacyReceiver, Sentinel
from qmig.legacy.state import StreamState

Data = bytes | bytearray | memoryview

#: The type byte of a COMMAND: what a recovery's main channel begins with; it has no header.
COMMAND: Final = 0x08

#: kind -> its reader, imported when such a channel is opened
READERS: Final = {
    "multifd": "qmig.legacy.multifd:MultifdReceiver",
    "preempt": "qmig.legacy.preempt:PreemptReceiver",
    "rp": "qmig.legacy.returnpath:ReturnPathReceiver",
    "cpr": "qmig.legacy.cpr:CprReceiver",
    "tls": "qmig.legacy.tls:TlsReceiver",
}


class Line:
    """A channel that was opened. `syncs` counts its SYNC packets; `starved` says that it
    asked for bytes and has not got any since."""

    def __init__(self, name: str, parsed: ChannelName, offset: int) -> None:
        self.name = name
        self.kind, self.number, self.connection = parsed
        self.offset = offset  # of its first byte
        self.given = False  # some bytes, or the end, have come
        self.starved = False
        self.closed = False
        self.ended = False  # the caller gave its end
        self.events = 0
        self.syncs = 0
        self.sync_offset = 0  # of the last SYNC
        self.hello: int | None = None  # the id in its first packet
        self.error: RemoteProtocolError | None = None
        self._early: list[Data] = []
        self._reader: Channel | None = None

    @property
    def position(self) -> int:
        """Absolute offset of the next unread byte."""
        return self._reader.offset if self._reader else self.offset

    @property
    def whole(self) -> bool:
        """Whether it was read to its end."""
        return self.closed and self.error is None

    def give(self, data: Data) -> None:
        asked, self.starved = self.starved, False
        self.given = True
        self.ended = not len(data)
        if self._reader is not None:
            self._reader.receive_data(data)
        elif not self.ended:
            # what was asked for stays as it is until the next time; nobody promised that of the rest
            self._early.append(data if asked else bytes(data))

    def open(self, state: StreamState, *, headerless: bool = False) -> None:
        """Gives it a reader, once what it depends on is known."""
        if self.kind == "main":
            self._reader = LegacyReceiver(state, headerless=headerless, offset=self.offset)
        else:
            module, _, name = READERS[self.kind].partition(":")
            factory = cast(Callable[..., Channel], getattr(import_module(module), name))
            self._reader = factory(state, offset=self.offset)
        for data in self._early:
            self._reader.receive_data(data)
        self._early.clear()
        if self.ended:
            self._reader.receive_data(b"")

    def waiting(self) -> str:
        """What a starved channel waits for."""
        return self._reader.waiting() if self._reader else "its first byte"

    @property
    def begun(self) -> bool:
        """Whether bytes have come that are not read."""
        return bool(self._early) if self._reader is None else self._reader.begun

    @property
    def opened(self) -> bool:
        return self._reader is not None

    def first_byte(self) -> int | None:
        """The first byte that came; None for a channel without any."""
        return self._early[0][0] if self._early else None

    def step(self) -> Record | None:
        """The next event, or None: then the channel is `closed`, `starved`, or has an `error`."""
        assert self._reader is not None
        try:
            event = self._reader.next_event()
        except RemoteProtocolError as error:
            error.channel = self.name
            self.error = error
            self.closed = True
            return None
        if isinstance(event, Sentinel):
            self.closed = event is CLOSED
            self.starved = not self.closed
            return None
        self.events += 1
        return event

    def note(self, event: Record) -> None:
        """Counts what the session synchronises by; for multifd channels, before the event is told."""
        if getattr(event, "is_sync", False):
            self.syncs += 1
            self.sync_offset = event.offset
        elif self.hello is None:
            self.hello = getattr(event, "id", None)
