"""The `spapr/htab` section: the hash page table of a PowerPC guest.

Source: hw/ppc/spapr.c `htab_save_setup`, `htab_save_chunk`, `htab_load`.

Rule 1: as in the loader, the first word decides, not the section type: the table's
size, 0 before chunks, or all ones where there is no table.
"""

from __future__ import annotations

from typing import ClassVar, Final

from qmig._feed import Feed, Steps
from qmig._wire import GreedyBytes, Int16ub, Int32ub, Raw, Record, const, wire
from qmig.errors import LocalProtocolError
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState

#: first word of a section when the guest has no hash page table (radix)
NO_TABLE: Final = 0xFFFFFFFF
#: bytes of one entry (two doublewords)
ENTRY_SIZE: Final = 16
#: log2 of the smallest and the largest table of the platform's architecture
SHIFT_MIN: Final = 18
SHIFT_MAX: Final = 46


class HtabHeader(Record):
    """Opens every section of the handler."""

    requirement: ClassVar[str] = "LEG-HTB-010"
    word: int = wire(Int32ub, doc="log2 of the table's bytes; 0: chunks follow; 0xffffffff: no table")


class HtabChunk(Record):
    """Entries from `index` on: first valid ones with their content, then invalid ones."""

    requirement: ClassVar[str] = "LEG-HTB-011"
    index: int = wire(Int32ub, doc="first entry")
    n_valid: int = wire(Int16ub)
    n_invalid: int = wire(Int16ub, doc="entries behind them, to be cleared")
    data: Raw = wire(GreedyBytes, doc="n_valid × 16 bytes")

    def validate(self) -> None:
        if len(self.data) != self.n_valid * ENTRY_SIZE:
            raise LocalProtocolError(
                f"{len(self.data)} bytes of data for {self.n_valid} entries", requirement=self.requirement
            )


class HtabEnd(Record):
    """A chunk header of zeros, which ends the section's data."""

    requirement: ClassVar[str] = "LEG-HTB-012"
    index = const(Int32ub, 0)
    n_valid = const(Int16ub, 0)
    n_invalid = const(Int16ub, 0)


class HtabReader:
    """Data of the `spapr/htab` handler."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.entries: int | None = None  # in the table, None while its size is unknown

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads the word, and chunks if it is 0."""
        header = yield from self.feed.read(HtabHeader)
        if header.word not in (0, NO_TABLE):
            if not SHIFT_MIN <= header.word <= SHIFT_MAX:
                raise self.feed.error(
                    f"table of 2^{header.word} bytes; {SHIFT_MIN} to {SHIFT_MAX} are possible", "LEG-HTB-013"
                )
            self.entries = (1 << header.word) // ENTRY_SIZE
        yield header
        if header.word == 0:
            yield from self._chunks()

    def _chunks(self) -> Steps[None]:
        feed = self.feed
        while True:
            feed.expect("HtabChunk", HtabChunk.requirement)
            start = feed.offset
            view = yield from feed.need(8)
            if not any(view):
                yield (yield from feed.read(HtabEnd))
                return
            index = int.from_bytes(view[:4], "big")
            valid = int.from_bytes(view[4:6], "big")
            last = index + valid + int.from_bytes(view[6:8], "big")
            if self.entries is None:
                raise feed.error("entries before the size of the table", "LEG-HTB-014")
            if last > self.entries:
                raise feed.error(f"entries up to {last:#x} of a table of {self.entries:#x}", "LEG-HTB-014")
            length = 8 + valid * ENTRY_SIZE
            view = yield from feed.take(length)
            chunk, _ = HtabChunk.decode(view)
            yield chunk.place(start, length)
