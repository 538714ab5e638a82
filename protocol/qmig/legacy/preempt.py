"""Preempt channel (7.1+): pages that the destination asked for, apart from the bulk on main.

Source: migration/ram.c `ram_save_host_page_urgent`, `ram_load_postcopy`;
migration/postcopy-ram.c `postcopy_preempt_thread`.

There is no framing at all: RAM records from the first byte on, up to EOS (machine types
up to 7.2) or until the source shuts the channel down.
"""

from __future__ import annotations

from typing import Final

from qmig._feed import Feed, Steps
from qmig.legacy.ram import FLAG_BITS, RamEos, RamFlag
from qmig.legacy.ramwalk import RamReader
from qmig.legacy.receiver import Channel
from qmig.legacy.sections import TrailingBytes
from qmig.legacy.state import StreamState

_PAGES: Final = frozenset({int(RamFlag.PAGE), int(RamFlag.ZERO)})


class PreemptReader(RamReader):
    """Page records of one preempt channel; CONTINUE has a memory of its own here."""

    def channel(self) -> Steps[None]:
        """Records up to EOS or the end of the channel."""
        feed = self.feed
        while not (yield from feed.at_end()):
            feed.expect("RAM record", "LEG-PRE-001")
            word = int.from_bytes((yield from feed.need(8)), "big")
            flags = word & (self.state.page_size or FLAG_BITS + 1) - 1
            kind = flags & ~int(RamFlag.CONTINUE)
            if kind in _PAGES:
                yield from self._pages((yield from self._page_size(word)))
            elif kind == RamFlag.EOS:
                yield (yield from feed.read(RamEos))
                break
            else:
                raise feed.error(f"RAM flags {flags:#x} on a preempt channel", "LEG-PRE-003")
        while not (yield from feed.at_end()):
            start = feed.offset
            data = feed.drain()
            yield TrailingBytes(data=data).place(start, len(data))


class PreemptReceiver(Channel):
    """Reads a preempt channel: `RamPages`, and `RamEos` where there is one.

    `state` has to have the block list of main. `offset` is the absolute offset of the
    first byte given."""

    def __init__(self, state: StreamState | None = None, *, offset: int = 0) -> None:
        self.state = state or StreamState()
        feed = Feed(offset)
        super().__init__(feed, PreemptReader(feed, self.state).channel())
