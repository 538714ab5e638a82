"""What the target page size is, where the stream does not say it.

A page record's length depends on it, so it must be known at the first full page. Most
streams tell (configuration/target-page-bits, POSTCOPY_ADVISE, mapped-ram header); x86 has
4 KiB and says nothing, but so do alpha, sparc64 (8 KiB) and old Arm machines (1 KiB).

Rule 1: nothing is asked for that might never come: behind a page record there is at
least another word, so a candidate is tried with that word and no more.
Rule 2: 4 KiB unless what follows a page of that size cannot be a record and what
follows a page of another size can.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qmig._feed import Feed, Steps
from qmig.legacy.pages import BATCH
from qmig.legacy.ram import FLAG_BITS, RamFlag
from qmig.legacy.sections import SectionType
from qmig.legacy.state import RamBlock, StreamState

USUAL: Final = 4096
#: in the order in which they are tried behind the usual one: smaller ones need no further bytes
OTHERS: Final = (1024, 2048, 8192, 16384, 32768, 65536)

_PAGE: Final = int(RamFlag.PAGE)
_ZERO: Final = int(RamFlag.ZERO)
_CONTINUE: Final = int(RamFlag.CONTINUE)
_DATA: Final = frozenset({_PAGE, _ZERO, int(RamFlag.XBZRLE), int(RamFlag.COMPRESS_PAGE)})
_MARKS: Final = frozenset({int(RamFlag.EOS), int(RamFlag.MULTIFD_FLUSH)})
_SECTIONS: Final = frozenset(
    {
        SectionType.SECTION_START,
        SectionType.SECTION_PART,
        SectionType.SECTION_END,
        SectionType.SECTION_FULL,
        SectionType.COMMAND,
        SectionType.SECTION_FOOTER,
    }
)


class PageSizeFinder:
    """Looks at the records from the next one on, without consuming any."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.state = state
        self.clear = 0  # before this offset there is no full page

    def find(self, block: RamBlock | None) -> Steps[int | None]:
        """The target page size in bytes, None if there is no full page before the next mark.

        `block` is the one that CONTINUE refers to. Up to `clear`, what was looked at is not
        looked at again: a stream of zero pages costs no more for it."""
        if self.feed.offset < self.clear:
            return None
        at = 0
        addresses = 0
        for _ in range(BATCH):
            word = yield from self._word(at)
            flags = word & FLAG_BITS
            kind = flags & ~_CONTINUE
            if kind not in (_PAGE, _ZERO):
                break
            addresses |= word & ~FLAG_BITS
            at += 8
            if not flags & _CONTINUE:
                size = (yield from self.feed.need(at + 1))[at]
                at += 1 + size
                name = bytes((yield from self.feed.need(at))[at - size :])
                block = self.state.blocks.get(name.decode("utf-8", "surrogateescape"))
            if block is None:
                break
            if kind == _PAGE:
                return (yield from self._try(at, word & ~FLAG_BITS, addresses, block))
            at += 1
            self.clear = self.feed.offset + at
        return None

    def _word(self, at: int) -> Steps[int]:
        return int.from_bytes((yield from self.feed.need(at + 8))[at:], "big")

    def _try(self, at: int, address: int, addresses: int, block: RamBlock) -> Steps[int]:
        lengths = [known.used_length for known in self.state.blocks.values()]
        sizes = [size for size in (USUAL, *OTHERS) if fits(size, addresses, lengths)]
        plausible: list[int] = []
        for size in sizes:
            if size > USUAL and plausible:
                break
            if (yield from self._follows(at + size, address + size, size, block)):
                plausible.append(size)
        return plausible[0] if plausible and (len(plausible) == 1 or plausible[0] == USUAL) else USUAL

    def _follows(self, at: int, successor: int, size: int, block: RamBlock) -> Steps[bool]:
        """Whether a record can begin at `at`."""
        feed = self.feed
        while feed.available < at + 8 and not feed.eof:
            yield from feed.need(feed.available + 1)
        if feed.available < at + 8:
            return False
        view = yield from feed.need(at + 8)
        word = int.from_bytes(view[at:], "big")
        flags, address = word & (size - 1), word & -size
        kind = flags & ~_CONTINUE
        if kind in _MARKS:
            return not address and (kind not in _END or (yield from self._ended(at + 8)))
        if kind not in _DATA:
            return False
        if flags & _CONTINUE:
            return address == successor or address < block.used_length
        return (yield from self._named(at + 8, address))

    def _ended(self, at: int) -> Steps[bool]:
        """Whether the end of a section's data can be at `at`."""
        if self.feed.available <= at and self.feed.eof:
            return True
        return (yield from self.feed.need(at + 1))[at] in _SECTIONS

    def _named(self, at: int, address: int) -> Steps[bool]:
        feed = self.feed
        if feed.available <= at:
            return False
        size = (yield from feed.need(at + 1))[at]
        if feed.available < at + 1 + size:
            return False
        name = bytes((yield from feed.need(at + 1 + size))[at + 1 :]).decode("utf-8", "surrogateescape")
        block = self.state.blocks.get(name)
        return block is not None and address < block.used_length


_END: Final = frozenset({int(RamFlag.EOS)})


def fits(size: int, addresses: int, lengths: Iterable[int]) -> bool:
    """Whether all offsets (or-ed) and block lengths are multiples of a page size."""
    return not addresses % size and not any(length % size for length in lengths)
