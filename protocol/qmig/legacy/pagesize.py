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
    """Looks at the records from the next one on, without consuming any. It never fails: what is wrong
    with a record is said when it is read."""

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
                block, at = yield from self._block(at)
            if block is None:
                break
            if kind == _PAGE:
                return (yield from self._try(at, addresses, block))
            at += 1
            self.clear = self.feed.offset + at
        return None

    def _have(self, size: int) -> Steps[memoryview | None]:
        """The next `size` bytes, None if the input ends before."""
        feed = self.feed
        while feed.available < size:
            if feed.eof:
                return None
            yield None
        return (yield from feed.need(size))

    def _word(self, at: int) -> Steps[int]:
        """The word at `at`, 0 if the input ends before."""
        view = yield from self._have(at + 8)
        return 0 if view is None else int.from_bytes(view[at:], "big")

    def _block(self, at: int) -> Steps[tuple[RamBlock | None, int]]:
        """The block named at `at`, and what follows the name: 0 if the input ends before."""
        view = yield from self._have(at + 1)
        end = 0 if view is None else at + 1 + view[at]
        view = yield from self._have(end)
        if not end or view is None:
            return None, 0
        name = bytes(view[at + 1 :]).decode("utf-8", "surrogateescape")
        return self.state.blocks.get(name), end

    def _try(self, at: int, addresses: int, block: RamBlock) -> Steps[int]:
        lengths = [known.used_length for known in self.state.blocks.values()]
        fitting = [size for size in (USUAL, *OTHERS) if fits(size, addresses, lengths)]
        sure: list[int] = []
        unknown: list[int] = []
        for size in fitting:
            if size > USUAL and sure:
                break
            found = yield from self._follows(at + size, size, block)
            if found is None:
                unknown.append(size)
            elif found:
                sure.append(size)
        if len(sure) == 1:
            return sure[0]
        # In doubt the usual size; if that is ruled out, the first one that the input is too short for.
        return next(iter([*(size for size in (*sure, *unknown) if size == USUAL), *unknown]), USUAL)

    def _follows(self, at: int, size: int, block: RamBlock) -> Steps[bool | None]:
        """Whether a record can be at `at`; None if the input ends before that can be seen."""
        view = yield from self._have(at + 8)
        if view is None:
            return None
        word = int.from_bytes(view[at:], "big")
        flags, address = word & (size - 1), word & -size
        kind = flags & ~_CONTINUE
        if kind == RamFlag.EOS:
            return not address and (yield from self._ended(at + 8))
        if kind == RamFlag.MULTIFD_FLUSH:
            return not address
        if kind not in _DATA:
            return False
        named: RamBlock | None = block
        if not flags & _CONTINUE:
            named, end = yield from self._block(at + 8)
            if not end:
                return None
        return named is not None and address < named.used_length

    def _ended(self, at: int) -> Steps[bool]:
        """Whether the end of a section's data can be at `at`."""
        view = yield from self._have(at + 1)
        return view is None or view[at] in _SECTIONS


def fits(size: int, addresses: int, lengths: Iterable[int]) -> bool:
    """Whether all offsets (or-ed) and block lengths are multiples of a page size."""
    return not addresses % size and not any(length % size for length in lengths)
