"""Where main and the multifd channels of one connection wait for each other.

Rule 1: per-round mode (8.1+ machine types): each MULTIFD_FLUSH on main goes with one
SYNC packet on every channel. Per-section mode (before, and their machine types on
newer versions): each EOS of a `ram` section does. No field says which; the setup
section does, because in per-round mode it holds a FLUSH before its EOS.
Rule 2: behind POSTCOPY_LISTEN no page travels on a multifd channel. 5.2 and 7.2 in
per-section mode go on sending SYNCs there, 10.1+ does not: both are right.
"""

from __future__ import annotations

import enum

from qmig._wire import Record
from qmig.legacy.commands import PostcopyListen
from qmig.legacy.ram import RamEos, RamMultifdFlush


class SyncMode(enum.Enum):
    """How main marks a sync point."""

    UNKNOWN = "not known yet"
    PER_ROUND = "MULTIFD_FLUSH"
    PER_SECTION = "EOS"


class SyncPoints:
    """Counts the sync points of one connection's main channel."""

    def __init__(self) -> None:
        self.mode = SyncMode.UNKNOWN
        self.reached = 0
        self.offset = 0  # of the last one
        self.precopy = 0  # those before POSTCOPY_LISTEN
        self.postcopy = False

    def see(self, event: Record) -> bool:
        """Takes main's next event; whether it is a sync point."""
        kind = type(event)
        if kind is RamMultifdFlush:
            self.mode = SyncMode.PER_ROUND
        elif kind is RamEos:
            if self.mode is SyncMode.UNKNOWN:
                self.mode = SyncMode.PER_SECTION
            if self.mode is SyncMode.PER_ROUND:
                return False
        else:
            self.postcopy = self.postcopy or kind is PostcopyListen
            return False
        self.reached += 1
        self.offset = event.offset
        if not self.postcopy:
            self.precopy = self.reached
        return True
