"""The story of peers that are still talking: each channel as it comes.

Rule 1: main waits at a sync point until every open multifd channel has its SYNC; a channel
waits behind its SYNC until main has come to its sync point. Nothing else is held back but
what cannot be read yet: pages before the block list, a recovery before its RESUME.
Rule 2: behind POSTCOPY_LISTEN main waits for nobody, because no page is on multifd then.
"""

from __future__ import annotations

from collections.abc import Callable

from qmig.legacy.connection import Attempt, Connection, Story
from qmig.legacy.lines import Line
from qmig.legacy.receiver import CLOSED
from qmig.legacy.state import StreamState


class LiveStory:
    """Tells the channels of one session round robin."""

    def __init__(
        self,
        connections: dict[int, Connection],
        attempts: list[Attempt],
        fresh: Callable[[], StreamState],
    ) -> None:
        self._connections = connections
        self._attempts = attempts
        self._fresh = fresh

    def items(self) -> Story:
        """Events as they come; a line when all wait for bytes, CLOSED when all have ended."""
        while True:
            moved = False
            lines = [(c, line) for c in self._connections.values() for line in c.lines.values()]
            for connection, line in lines:
                passed = connection.passed
                if line.closed or line.starved or not self._ready(connection, line):
                    continue
                event = line.step()
                # leaving a sync point lets channels go on that were looked at before
                moved = moved or event is not None or line.closed or connection.passed != passed
                if event is not None:
                    yield connection.tell(line, event)
                    if line.kind == "main":
                        connection.see(event)
                elif line.error is not None:
                    yield line.error
            if not moved:
                yield next((line for _, line in lines if not line.closed), CLOSED)

    def _ready(self, connection: Connection, line: Line) -> bool:
        """Whether the line may be read on."""
        if line.kind in {"tls", "cpr"}:
            if not line.opened:
                line.open(self._fresh())
            return True
        if connection.attempt is None and not self._begun(connection):
            return False
        assert connection.attempt is not None
        if not line.opened:
            line.open(connection.attempt.state)
        main = connection.main
        if line is main:
            return self._past_sync(connection)
        if line.kind == "rp" or main is None or main.closed:
            return True
        if line.kind == "preempt":
            return connection.resumed if connection.recovery else connection.listening
        if not line.events:
            return True  # its first packet says only who it is
        return connection.points.reached > 0 and line.syncs <= connection.passed

    def _begun(self, connection: Connection) -> bool:
        """Begins the connection when main's first byte has come and the one before is at its end."""
        main = connection.main
        for other in self._connections.values():
            if other.number < connection.number and not (other.main and other.main.closed):
                return False
        if main is None:
            return False
        main.starved = not main.given
        if main.given:
            connection.begin(self._attempts, self._fresh())
        return main.given

    def _past_sync(self, connection: Connection) -> bool:
        """Whether main may go on: behind a sync point when all channels have come to it."""
        points = connection.points
        if points.reached == connection.passed:
            return True
        late = [
            line for line in connection.many("multifd") if line.syncs < points.reached and not line.closed
        ]
        if late and not points.postcopy:
            return False
        if not points.postcopy:
            connection.note_short()
        connection.leave_point()
        return True
