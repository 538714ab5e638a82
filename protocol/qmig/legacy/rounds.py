"""Which pass of the source's scan a RAM page belongs to.

Nothing in a stream without multifd marks a pass. But the source scans its blocks in
the order of the block list and each block upwards, so a page that lies before its
predecessor begins a new pass. `main` and the multifd channels of one migration each
scan in that order between two sync points; at a sync point they are level again.

Rule 1: with per-round synchronisation (8.1+) a pass ends at each MULTIFD_FLUSH, and
nothing is inferred.
Rule 2: behind POSTCOPY_LISTEN pages come as they are asked for: all one pass.
Rule 3: a batch of pages in one unbroken ascent is not looked into.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from qmig._wire import Record
from qmig.legacy.ram import RamPages
from qmig.legacy.state import StreamState

if TYPE_CHECKING:
    from qmig.legacy.multifd import MultifdPacket

#: (index of the block in the list, offset in it): the order of the scan
Position = tuple[int, int]

_BEFORE_ALL: Final[Position] = (-1, -1)


class RoundTracker:
    """Counts the passes of one migration; `round` is 0 until the first page."""

    def __init__(self, state: StreamState) -> None:
        self.round = 0
        self.marked = False  # rule 1
        self.postcopy = False  # rule 2
        self._state = state
        self._order: dict[str, int] = {}
        self._level: tuple[int, Position] = (0, _BEFORE_ALL)  # where all were at the last sync point
        self._at: dict[str, tuple[int, Position]] = {}  # source -> pass and last position since then

    def mark(self) -> None:
        """A MULTIFD_FLUSH: one pass ends."""
        self.marked = True
        self.round += 1

    def listen(self) -> None:
        """POSTCOPY_LISTEN."""
        if not self.postcopy:
            self.postcopy = True
            self.round += 1

    def level(self) -> None:
        """All channels have delivered what was sent before this point."""
        self._level = max(self._at.values(), default=self._level)
        self._at.clear()

    def position(self, block: str, offset: int) -> Position:
        if block not in self._order:
            self._order = {name: index for index, name in enumerate(self._state.blocks)}
        return self._order.get(block, len(self._order)), offset

    def visit(self, source: str, first: Position, last: Position) -> int:
        """The pass of an ascent of pages that `source` carried, from `first` to `last`."""
        if self.marked or self.postcopy:
            return self.round
        number, before = self._at.get(source, self._level)
        if first <= before or not number:
            number += 1
        self._at[source] = (number, last)
        self.round = max(self.round, number)
        return number

    def packet(self, event: Record) -> int:
        """The pass of what came on a multifd channel."""
        if self.marked or self.postcopy or not getattr(event, "pages", 0):
            return self.round
        packet = cast("MultifdPacket", event)
        parts = [part for part in (packet.normal, packet.zero) if part]
        first = min(int.from_bytes(part[:8], "big") for part in parts)
        last = max(int.from_bytes(part[-8:], "big") for part in parts)
        return self.visit("multifd", self.position(packet.block, first), self.position(packet.block, last))

    def pages(self, source: str, batch: RamPages) -> Iterator[tuple[RamPages, int]]:
        """The batch, cut where a new pass begins, each piece with its pass."""
        if self.marked or self.postcopy:
            yield batch, self.round
            return
        for piece, first, last in ascents(batch):
            yield (
                piece,
                self.visit(source, self.position(batch.block, first), self.position(batch.block, last)),
            )


def ascents(batch: RamPages) -> Iterator[tuple[RamPages, int, int]]:
    """The batch, cut where an offset is not above the one before it: piece, first and last offset."""
    for piece in batch.pieces():
        yield piece, piece.ascents[0].first, piece.ascents[0].last
