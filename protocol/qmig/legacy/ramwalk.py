"""Reads RAM records of one channel: a `ram` section's data, or a preempt channel.

Rule 1: CONTINUE refers to the last block named on the same channel, across sections.
Rule 2: an address is checked against the block's used_length before anything is
delivered; the pages before a wrong one are delivered first.
Rule 3: flags are told apart as receivers do it: by equality, without CONTINUE.
"""

from __future__ import annotations

from typing import Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig.legacy.blocklist import BlockList
from qmig.legacy.pages import PageScan
from qmig.legacy.pagesize import USUAL, PageSizeFinder
from qmig.legacy.ram import (
    FLAG_BITS,
    RamDeltas,
    RamEos,
    RamFlag,
    RamHook,
    RamMultifdFlush,
    RamPages,
    RamXbzrlePage,
    compress_bound,
    raw_name,
)
from qmig.legacy.sections import SectionType
from qmig.legacy.state import RamBlock, StreamState

_CONTINUE: Final = int(RamFlag.CONTINUE)
_ZERO: Final = int(RamFlag.ZERO)
_PAGE: Final = int(RamFlag.PAGE)
_XBZRLE: Final = int(RamFlag.XBZRLE)
_COMPRESS: Final = int(RamFlag.COMPRESS_PAGE)
#: records of one `RamDeltas`: bounds its list of starts
_MOST_DELTAS: Final = 4096


class RamReader:
    """Page records of one channel."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.state = state
        self.last: RamBlock | None = None
        self.blocks = BlockList(feed, state)
        self.sizes = PageSizeFinder(feed, state)

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads the data of one `ram` section."""
        yield from self.records()

    def records(self) -> Steps[None]:
        """Reads up to and including EOS."""
        feed = self.feed
        while True:
            feed.expect("RAM record", "LEG-RAM-001")
            word = int.from_bytes((yield from feed.need(8)), "big")
            flags = word & (self.state.page_size or FLAG_BITS + 1) - 1
            kind = flags & ~_CONTINUE
            if kind in (_PAGE, _ZERO):
                yield from self._pages((yield from self._page_size(word)))
            elif kind in (_XBZRLE, _COMPRESS):
                yield from self._deltas((yield from self._page_size(word)))
            elif kind == RamFlag.EOS:
                yield (yield from feed.read(RamEos))
                return
            elif kind == RamFlag.MEM_SIZE:
                yield from self.blocks.read()
            elif kind == RamFlag.MULTIFD_FLUSH:
                yield (yield from feed.read(RamMultifdFlush))
            elif kind == RamFlag.HOOK:
                yield (yield from feed.read(RamHook))
            else:
                raise feed.error(f"unknown combination of RAM flags {flags:#x}", "LEG-RAM-002")

    def _page_size(self, word: int) -> Steps[int]:
        """The target page size, found out if need be."""
        if self.state.page_size is None:
            found = yield from self.sizes.find(self.last)
            if found is None:
                # No full page in sight: whatever is chosen for now, no record's length depends on it.
                address = word & ~FLAG_BITS
                return min(USUAL, address & -address) if address else USUAL
            if word & (found - 1) & ~FLAG_BITS:  # not looked at while the page size was open
                raise self.feed.error(
                    f"word {word:#x} is not aligned to pages of {found} bytes", "LEG-RAM-043"
                )
            self.state.page_size = found
        return self.state.page_size

    def _head(self, at: int, page_size: int) -> Steps[tuple[int, RamBlock, int]]:
        """Word, block and end of the head of the page record at `at`; consumes nothing."""
        feed = self.feed
        view = yield from feed.need(at + 8)
        word = int.from_bytes(view[at:], "big")
        end = at + 8
        block = self.last
        if not word & _CONTINUE:
            size = (yield from feed.need(end + 1))[end]
            end += 1 + size
            name = bytes((yield from feed.need(end))[end - size :]).decode("utf-8", "surrogateescape")
            block = self.state.blocks.get(name)
            if block is None:
                raise feed.error(f"page of unknown RAM block {name!a}", "LEG-RAM-040")
        elif block is None:
            raise feed.error("CONTINUE before any block was named", "LEG-RAM-041")
        address = word & -page_size
        if address >= block.used_length:
            raise feed.error(
                f"offset {address:#x} is outside {block.idstr!a} ({block.used_length:#x} bytes)",
                "LEG-RAM-042",
            )
        return word, block, end

    def _pages(self, page: int) -> Steps[None]:
        """Reads the longest batch of page records that lies in one piece."""
        feed = self.feed
        start = feed.offset
        word, block, length = yield from self._head(0, page)
        is_page = word & _PAGE == _PAGE
        length += page if is_page else 1
        yield from feed.need(length)
        window = feed.window()
        end = min(len(window), limits.RAM_BATCH)
        if self.state.page_size is None:
            end = min(end, self.sizes.clear - start)
        scan = PageScan(window, end, page, block.used_length, raw_name(block.idstr))
        address = word & -page
        scan.add(address, address, is_page, not is_page)
        scan.at = length
        scan.run()
        stop = scan.at
        feed.skip(stop)
        self.last = block
        batch = RamPages(block=block.idstr, page_size=page, ascents=scan.ascents(), data=window[:stop])
        yield batch.place(start, stop)

    def _deltas(self, page: int) -> Steps[None]:
        """Reads the longest batch of XBZRLE and COMPRESS_PAGE records that lies in one piece."""
        feed = self.feed
        start = feed.offset
        word, block, head = yield from self._head(0, page)
        stop = yield from self._payload(word, head, page)
        self.last = block
        window = feed.window()
        starts = [0]
        while len(starts) < _MOST_DELTAS:
            end = self._next_delta(window, stop, page, block)
            if not end:
                break
            starts.append(stop)
            stop = end
        feed.skip(stop)
        batch = RamDeltas(block=block.idstr, page_size=page, starts=tuple(starts), data=window[:stop])
        yield batch.place(start, stop)

    def _payload(self, word: int, at: int, page: int) -> Steps[int]:
        """Where the record ends whose head ends at `at`; waits for all of it."""
        feed = self.feed
        if word & (page - 1) & ~_CONTINUE == _XBZRLE:
            view = yield from feed.need(at + 3)
            if view[at] != 1:
                raise feed.error(f"XBZRLE encoding {view[at]}, expected 1", RamXbzrlePage.requirement)
            size, most = int.from_bytes(view[at + 1 : at + 3], "big"), page
            at, rule = at + 3, "LEG-RAM-034"
        else:
            view = yield from feed.need(at + 4)
            size, most = int.from_bytes(view[at : at + 4], "big"), compress_bound(page)
            at, rule = at + 4, "LEG-RAM-035"
        if size > most:
            raise feed.error(f"encoded page of {size} bytes, the most is {most}", rule)
        yield from feed.need(at + size)
        return at + size

    def _next_delta(self, window: memoryview, at: int, page: int, block: RamBlock) -> int:
        """Where the delta record at `at` ends; 0 if it is not whole, not valid, or of another kind
        or block: then it is looked at again on its own."""
        head = bytes(window[at : at + 12])
        if len(head) < 12:
            return 0
        word = int.from_bytes(head[:8], "big")
        flags = word & (page - 1)
        if word & -page >= block.used_length:
            return 0
        if flags == _XBZRLE | _CONTINUE:
            size = int.from_bytes(head[9:11], "big")
            end = at + 11 + size
            good = head[8] == 1 and size <= page
        elif flags == _COMPRESS | _CONTINUE:
            size = int.from_bytes(head[8:], "big")
            end = at + 12 + size
            good = size <= compress_bound(page)
        else:
            return 0
        return end if good and end <= len(window) else 0
