"""The story of a recording: the same for the same bytes, whatever the chunks.

Rule 1: connections one after the other. In each: CPR state, then main; at a sync point the
multifd packets that belong before it, by `packet_num`; requested pages behind the package
(behind RESUME in a recovery); answers behind what they answer; what is left at the end.
Rule 2: only the channel whose turn it is asks for bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Final

from qmig._wire import Record
from qmig.legacy.connection import Attempt, Connection, Item, Story
from qmig.legacy.lines import Line
from qmig.legacy.receiver import CLOSED
from qmig.legacy.state import StreamState

if TYPE_CHECKING:
    from qmig.legacy.answers import Answers

#: packets without a number go first
_UNNUMBERED: Final = -1


class RecordedStory:
    """Tells the connections of one session."""

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
        """All connections in order, and CLOSED for as long as there is no further one."""
        while True:
            waiting = [c for c in self._connections.values() if not c.told]
            if not waiting:
                yield CLOSED
                continue
            connection = min(waiting, key=lambda c: c.number)
            if connection.main:
                while not connection.main.given:
                    connection.main.starved = True
                    yield connection.main
            attempt = connection.begin(self._attempts, self._fresh())
            yield from _Turns(connection, attempt).story()
            connection.told = True


class _Turns:
    """The channels of one connection, each in its turn."""

    def __init__(self, connection: Connection, attempt: Attempt) -> None:
        self.connection = connection
        self.state = attempt.state
        self.rounds = attempt.rounds
        self.multifd = connection.many("multifd")
        self.preempt = connection.many("preempt")
        self.answers: list[Answers] = []
        if connection.many("rp"):
            from qmig.legacy.answers import Answers

            self.answers = [Answers(line, connection) for line in connection.many("rp")]

    def story(self) -> Story:
        connection = self.connection
        for line in (*connection.many("tls"), *connection.many("cpr")):
            yield from self._whole(line)
        if connection.main:
            yield from self._main(connection.main)
        yield from self._packets(None)
        for line in self.preempt:
            yield from self._whole(line)
        for answers in self.answers:
            yield from self._answered(answers, everything=True)

    def _main(self, main: Line) -> Story:
        connection = self.connection
        while (event := (yield from self._pull(main))) is not None:
            yield connection.tell(main, event)
            if connection.see(event):
                yield from self._sync()
            elif connection.packaged if not connection.recovery else connection.resumed:
                for line in self.preempt:
                    yield from self._whole(line)
            for answers in self.answers:
                answers.see(event)
                yield from self._answered(answers)

    def _sync(self) -> Story:
        """Everything that belongs before a sync point of main."""
        connection = self.connection
        yield from self._packets(connection.points.reached)
        if not connection.points.postcopy:
            connection.note_short()
        connection.leave_point()

    def _packets(self, syncs: int | None) -> Story:
        """The packets of all multifd channels up to that number of SYNCs; None: up to the end."""
        queue: list[tuple[int, int, Line, Record]] = []
        for line in self.multifd:
            yield from self._enqueue(line, syncs, queue)
        while queue:
            _, _, line, event = heapq.heappop(queue)
            yield self.connection.tell(line, event)
            yield from self._enqueue(line, syncs, queue)

    def _enqueue(self, line: Line, syncs: int | None, queue: list[tuple[int, int, Line, Record]]) -> Story:
        if syncs is not None and line.syncs >= syncs:
            return
        event = yield from self._pull(line)
        if event is not None:
            number: int = getattr(event, "packet_num", _UNNUMBERED)
            heapq.heappush(queue, (number, line.number, line, event))

    def _whole(self, line: Line) -> Story:
        while (event := (yield from self._pull(line))) is not None:
            yield self.connection.tell(line, event)

    def _answered(self, answers: Answers, *, everything: bool = False) -> Story:
        """Messages of the return path whose cause was told."""
        while everything or answers.due():
            event = answers.head
            if event is None:
                event = yield from self._pull(answers.line)
                if event is None:
                    return
            answers.head = None
            if not everything and not answers.caused(event):
                answers.head = event
                return
            yield self.connection.tell(answers.line, event)

    def _pull(self, line: Line) -> Generator[Item, None, Record | None]:
        """The line's next event; None when it is at its end."""
        if not line.opened:
            line.open(self.state)
        while not line.closed:
            event = line.step()
            if event is not None:
                return event
            if line.error is not None:
                yield line.error
            elif not line.closed:
                yield line
        return None
