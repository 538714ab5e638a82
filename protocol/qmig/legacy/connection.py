"""What the channels of one migration have in common while their story is told."""

from __future__ import annotations

from collections.abc import Generator
from typing import NamedTuple, TypeAlias

from qmig._wire import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy.commands import PackageEnd, PostcopyListen, PostcopyResume
from qmig.legacy.lines import COMMAND, Line
from qmig.legacy.ram import RamDeltas, RamPages
from qmig.legacy.receiver import Sentinel
from qmig.legacy.rounds import RoundTracker
from qmig.legacy.state import StreamState
from qmig.legacy.sync import SyncMode, SyncPoints


class Told(NamedTuple):
    """One event of the story. `round` is the pass of the source's scan (0 before the first);
    `attempt` counts migrations: a second header begins the second. A batch of pages whose
    `last_round` differs goes over a pass's end: its ascents are one pass each, from `round` on."""

    channel: str
    event: Record
    round: int
    attempt: int
    last_round: int


#: what a story yields: an event, the line that needs bytes, the error that ended a line,
#: or that there is nothing more
Item: TypeAlias = Told | Line | RemoteProtocolError | Sentinel
Story: TypeAlias = Generator[Item, None, None]


class Attempt:
    """One migration: its facts and its passes. A recovery belongs to the attempt it recovers."""

    def __init__(self, number: int, state: StreamState) -> None:
        self.number = number
        self.state = state
        self.rounds = RoundTracker(state)


class Connection:
    """The channels that were connected together: main, multifd-N, preempt, rp, cpr."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.attempt: Attempt | None = None
        self.recovery = False
        self.told = False  # its part of a recorded story is over
        self.lines: dict[tuple[str, int], Line] = {}
        self.points = SyncPoints()
        self.passed = 0  # sync points that main has left behind
        self.listening = False
        self.packaged = False
        self.resumed = False
        #: channel -> the first sync point it had no SYNC for, and that point's offset on main
        self.short: dict[str, tuple[int, int]] = {}

    @property
    def main(self) -> Line | None:
        return self.lines.get(("main", 0))

    def many(self, kind: str) -> list[Line]:
        """The lines of one kind, by number."""
        return sorted(
            (line for line in self.lines.values() if line.kind == kind), key=lambda line: line.number
        )

    def begin(self, attempts: list[Attempt], fresh: StreamState) -> Attempt:
        """Decides, by main's first byte, whether an attempt begins here or is recovered."""
        first = self.main.first_byte() if self.main else None
        self.recovery = first == COMMAND and bool(attempts)
        goes_on = self.recovery or (self.main is None and bool(attempts))
        if not goes_on:
            attempts.append(Attempt(len(attempts) + 1, fresh))
        self.attempt = attempts[-1]
        if self.main:
            self.main.open(self.attempt.state, headerless=first == COMMAND)
        return self.attempt

    def see(self, event: Record) -> bool:
        """Takes main's next event; whether it is a sync point."""
        kind = type(event)
        if kind is PostcopyListen:
            self.listening = True
        elif kind is PackageEnd:
            self.packaged = True
        elif kind is PostcopyResume:
            self.resumed = True
        return self.points.see(event)

    def note_short(self) -> None:
        """Main is at a sync point: remembers the channels that ended before their SYNC for it."""
        for line in self.many("multifd"):
            if line.syncs < self.points.reached:
                self.short.setdefault(line.name, (self.points.reached, self.points.offset))

    def leave_point(self) -> None:
        """Main goes on behind a sync point; all channels are level there."""
        assert self.attempt is not None
        self.passed = self.points.reached
        self.attempt.rounds.level()
        if self.points.mode is SyncMode.PER_ROUND:
            self.attempt.rounds.mark()

    def tell(self, line: Line, event: Record) -> Told:
        """The event with its place in the story."""
        if self.attempt is None:
            return Told(line.name, event, 0, 0, 0)
        rounds, number = self.attempt.rounds, self.attempt.number
        if isinstance(event, RamPages):
            first, last = rounds.pages(line.kind, event.block, event.ascents)
            return Told(line.name, event, first, number, last)
        if isinstance(event, RamDeltas):
            first, last = rounds.pages(line.kind, event.block, event.ascents())
            return Told(line.name, event, first, number, last)
        at = rounds.round
        if line.kind == "multifd":
            line.note(event)
            at = rounds.packet(event)
        elif isinstance(event, PostcopyListen):
            rounds.listen()
            at = rounds.round
        return Told(line.name, event, at, number, at)
