"""Which pass of the source's scan a RAM page belongs to.

Nothing in a stream without multifd marks a pass. But the source scans its blocks in
the order of the block list and each block upwards, so a page that does not lie behind
its predecessor begins a new pass. `main` and the multifd channels of one migration each
scan in that order between two sync points; at a sync point they are level again.

Rule 1: with per-round synchronisation (8.1+) a pass ends at each MULTIFD_FLUSH, and
nothing is inferred. A pass without a page is not counted.
Rule 2: behind POSTCOPY_LISTEN pages come as they are asked for: all one pass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, cast

from qmig._wire import Record
from qmig.legacy.pages import Ascent
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
        self._marked = False  # rule 1
        self._postcopy = False  # rule 2
        self._used = True  # the present pass has pages
        self._state = state
        self._order: dict[str, int] = {}
        self._level: tuple[int, Position] = (0, _BEFORE_ALL)  # where all were at the last sync point
        self._at: dict[str, tuple[int, Position]] = {}  # source -> pass and last position since then

    def mark(self) -> None:
        """A MULTIFD_FLUSH: one pass ends."""
        self._marked = True
        self._next()

    def listen(self) -> None:
        """POSTCOPY_LISTEN."""
        self._postcopy = True
        self._next()

    def _next(self) -> None:
        if self._used:
            self.round += 1
            self._used = False

    def level(self) -> None:
        """All channels have delivered what was sent before this point."""
        self._level = max(self._at.values(), default=self._level)
        self._at.clear()

    def pages(self, source: str, block: str, ascents: Iterable[Ascent]) -> tuple[int, int]:
        """The passes of the first and the last of these ascents, which `source` carried one after
        another. Those between are one pass each, unless the first and last are the same."""
        self._used = True
        if self._marked or self._postcopy:
            return self.round, self.round
        if block not in self._order:
            self._order = {name: index for index, name in enumerate(self._state.blocks)}
        index = self._order.get(block, len(self._order))
        number, position = self._at.get(source, self._level)
        begun = 0
        for ascent in ascents:
            if (index, ascent.first) <= position or not number:
                number += 1
            position = (index, ascent.last)
            begun = begun or number
        self._at[source] = (number, position)
        self.round = max(self.round, number)
        return begun, number

    def packet(self, event: Record) -> int:
        """The pass of what came on a multifd channel."""
        if not getattr(event, "pages", 0):
            return self.round
        packet = cast("MultifdPacket", event)
        parts = [part for part in (packet.normal, packet.zero) if part]
        first = min(int.from_bytes(part[:8], "big") for part in parts)
        last = max(int.from_bytes(part[-8:], "big") for part in parts)
        whole = Ascent(first, last, packet.normal_pages, packet.zero_pages)
        return self.pages("multifd", packet.block, (whole,))[0]
