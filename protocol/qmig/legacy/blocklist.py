"""The block list that opens the `ram` section.

Rule 1: the list ends where the lengths add up to the total; there is no count.
Rule 2: whether an entry has the optional page_size, the wire does not say: the sender
writes it where a block's page size is not its host's, which the reader cannot know. But
behind an entry stands the length of the next name (never 0), or a record whose word has
a flag in its low bits; a page size begins with a 0 and ends with ten clear bits.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig.legacy.mappedram import MappedRam
from qmig.legacy.ram import FLAG_BITS, RamBlockEntry, RamMemSize
from qmig.legacy.state import RamBlock, StreamState

#: an entry without its name
_PLAIN_ENTRY: Final = 9


class BlockList:
    """Reads block lists of one channel into the shared state."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.state = state
        self.mapped = MappedRam(feed)

    def read(self) -> Steps[None]:
        """MEM_SIZE and the entries."""
        opening = yield from self.feed.read(RamMemSize)
        yield opening
        left = opening.total
        listed: set[str] = set()
        while left > 0:
            entry = yield from self._entry(left)
            left -= entry.used_length
            self._note(entry, listed)
            listed.add(entry.idstr)
            yield entry
            if "mapped-ram" in self.state.capabilities:
                header = yield from self.mapped.region(entry.idstr, entry.used_length, self.state.page_size)
                self.state.page_size = header.page_size

    def _note(self, entry: RamBlockEntry, listed: Collection[str]) -> None:
        feed = self.feed
        if entry.idstr in listed:
            raise feed.error(f"RAM block {entry.idstr!a} is listed twice", "LEG-RAM-013")
        if entry.used_length > limits.RAM_BLOCK:
            raise feed.limit(f"RAM block {entry.idstr!a} of {entry.used_length:#x} bytes")
        known = self.state.blocks.get(entry.idstr)
        if known is not None:
            if known.used_length != entry.used_length:
                raise feed.error(
                    f"RAM block {entry.idstr!a} has {entry.used_length:#x} bytes,"
                    f" in an earlier list {known.used_length:#x}",
                    "LEG-RAM-013",
                )
            return
        if len(self.state.blocks) >= limits.RAM_BLOCKS:
            raise feed.limit(f"more than {limits.RAM_BLOCKS} RAM blocks")
        self.state.blocks[entry.idstr] = RamBlock(entry.idstr, entry.used_length, entry.page_size, entry.gpa)

    def _entry(self, left: int) -> Steps[RamBlockEntry]:
        feed = self.feed
        feed.expect("RamBlockEntry", RamBlockEntry.requirement)
        size = (yield from feed.need(1))[0]
        plain = _PLAIN_ENTRY + size
        view = yield from feed.need(plain)
        used = int.from_bytes(view[plain - 8 :], "big")
        if used > left:
            raise feed.error(
                f"used_length {used:#x} exceeds what is left of the total, {left:#x}", "LEG-RAM-012"
            )
        return (yield from feed.read(RamBlockEntry, (yield from self._context(plain, last=used == left))))

    def _context(self, at: int, *, last: bool) -> Steps[set[str]]:
        """Which optional fields follow the used_length that ends at `at`."""
        state = self.state
        fields = {"gpa"} if "x-ignore-shared" in state.capabilities else set()
        if "mapped-ram" in state.capabilities or not (state.postcopy_advised or not state.configured):
            return fields
        if not (yield from self._goes_on(at + 8 * len(fields), last=last)):
            fields.add("page_size" if state.postcopy_advised or fields else "gpa")
        return fields

    def _goes_on(self, at: int, *, last: bool) -> Steps[bool]:
        """Whether at `at` begins what may follow an entry."""
        if not last:
            return (yield from self.feed.need(at + 1))[at] != 0
        return int.from_bytes((yield from self.feed.need(at + 8))[at:], "big") & FLAG_BITS != 0
