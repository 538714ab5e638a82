"""All channels of a migration, bytes in any interleaving in, one ordered story out.

Rule 1: main up to a sync point, then every multifd channel up to its SYNC, then main
again: what QEMU's destination does. A channel that must wait is not parsed, and `wants`
does not name it, so its bytes stay with the caller.
Rule 2: a recording (`live=False`) is told in one order, whatever the chunks: between two
sync points the multifd packets of all channels by `packet_num`, because up to 7.2 a page
may be in two of them and the higher number is the newer copy. An answer on the return
path comes behind what it answers.
Rule 3: with live peers (`live=True`) nothing is held back that the peer's progress could
depend on: each channel is told as it comes, up to its own sync point.
Rule 4: a channel that is missing, ends early or breaks ends its own part of the story
only. The error is raised once, at its place; the next call goes on with the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from qmig.errors import LocalProtocolError, RemoteProtocolError, TruncatedStream
from qmig.legacy.channels import parse_name
from qmig.legacy.connection import Attempt, Connection, Story, Told
from qmig.legacy.lines import Data, Line
from qmig.legacy.receiver import NEED_DATA, Sentinel
from qmig.legacy.state import Schema, StreamState

if TYPE_CHECKING:
    from qmig.legacy.verify.findings import Finding

#: Channels of one session: 255 multifd channels and the others, of a few connections.
MAX_CHANNELS: Final = 1024


class MigrationSession:
    """Reads the channels of one migration, or of several attempts at it.

    `open` names the channels (before the first event, where possible), `receive_data` gives
    their bytes, `next_event` tells the story. Views in an event are valid until its channel
    gets its next bytes; a buffer given to a channel must stay unchanged until `wants` names
    that channel again."""

    def __init__(
        self, *, page_size: int | None = None, schema: Schema | None = None, live: bool = False
    ) -> None:
        self.live = live
        self._page_size = page_size
        self._schema = schema
        self._lines: dict[str, Line] = {}
        self._connections: dict[int, Connection] = {}
        self._attempts: list[Attempt] = []
        self._story: Story | None = None

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The attempts begun so far."""
        return tuple(self._attempts)

    def lines(self) -> tuple[Line, ...]:
        """The open channels, in the order of their opening."""
        return tuple(self._lines.values())

    def open(self, channel: str, *, offset: int = 0) -> None:
        """Names a channel; `offset` is the absolute offset of its first byte (of a file, say).

        Raises `LocalProtocolError` for a name that is none, is open already, or belongs to a
        connection whose part of the story is over."""
        name = parse_name(channel)
        connection = self._connections.setdefault(name.connection, Connection(name.connection))
        # A TLS connection has two directions, told apart by nothing but the name.
        key = (channel if name.kind == "tls" else name.kind, name.number)
        if key in connection.lines:
            raise LocalProtocolError(f"channel {channel!a} is open already", requirement="LEG-SES-001")
        if connection.told or len(self._lines) >= MAX_CHANNELS:
            problem = "comes too late" if connection.told else f"is over the limit of {MAX_CHANNELS}"
            raise LocalProtocolError(f"channel {channel!a} {problem}", requirement="LEG-SES-001")
        self._lines[channel] = connection.lines[key] = Line(channel, name, offset)

    def receive_data(self, channel: str, data: Data) -> None:
        """Takes the next bytes of a channel, opened here if need be; `b""` is its end.

        Bytes that `wants` did not ask for are kept, without a bound."""
        if channel not in self._lines:
            self.open(channel)
        line = self._lines[channel]
        if line.ended:
            raise LocalProtocolError(f"channel {channel!a} has ended", requirement="LEG-SES-001")
        line.give(data)

    def wants(self) -> tuple[str, ...]:
        """The channels whose next bytes (or end) the story waits for."""
        return tuple(line.name for line in self._lines.values() if line.starved)

    def is_wanted(self, channel: str) -> bool:
        """Whether `wants` names this channel."""
        return self._lines[channel].starved

    def is_begun(self, channel: str) -> bool:
        """Whether a part of a record has come on this channel."""
        return self._lines[channel].begun

    def waiting_for(self) -> tuple[str, ...]:
        """One sentence for each channel that is not at its end: what the story waits for there, after a
        NEED_DATA of `next_event`."""
        from qmig.legacy.waiting import sentences

        return tuple(sentences(self._connections.values()))

    def next_event(self) -> Told | Sentinel:
        """The next event of the story; NEED_DATA: see `wants`; CLOSED: all channels ended so far.

        Raises `RemoteProtocolError`, its `channel` set, once for a channel that broke."""
        if self._story is None:
            self._story = self._begin()
        item = next(self._story)
        if isinstance(item, RemoteProtocolError):
            raise item
        return NEED_DATA if isinstance(item, Line) else item

    def overcome(self, error: RemoteProtocolError) -> bool:
        """Whether this error of ours no longer matters: its channel was cut, and a later connection (a
        recovery, or another attempt) was read to its end. Known when the story is over."""
        from qmig.legacy.ending import superseded

        connections = self._connections
        if not isinstance(error, TruncatedStream) or error.channel is None:
            return False
        return superseded(connections[parse_name(error.channel).connection], connections.values())

    def finish(self) -> tuple[Finding, ...]:
        """What the end of the input left open: sync points unmet, channels missing."""
        from qmig.legacy.ending import loose_ends

        return tuple(loose_ends(self._connections.values()))

    def _begin(self) -> Story:
        if self.live:
            from qmig.legacy.story_live import LiveStory

            return LiveStory(self._connections, self._attempts, self._fresh).items()
        from qmig.legacy.story_recorded import RecordedStory

        return RecordedStory(self._connections, self._attempts, self._fresh).items()

    def _fresh(self) -> StreamState:
        return StreamState(page_size=self._page_size, schema=self._schema)
