"""Reads RAM records of one channel: a `ram` section's data, or a preempt channel.

Rule 1: CONTINUE refers to the last block named on the same channel, across sections.
Rule 2: an address is checked against the block's used_length before anything is
delivered; the pages before a wrong one are delivered first.
"""

from __future__ import annotations

from typing import Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig.legacy.pages import scan
from qmig.legacy.ram import (
    RamBlockEntry,
    RamEos,
    RamFlag,
    RamHook,
    RamMemSize,
    RamMultifdFlush,
    RamPages,
)
from qmig.legacy.sections import SectionType
from qmig.legacy.state import RamBlock, StreamState

_CONTINUE: Final = int(RamFlag.CONTINUE)
_ZERO: Final = int(RamFlag.ZERO)
_PAGE: Final = int(RamFlag.PAGE)


class RamReader:
    """Page records of one channel."""

    def __init__(self, feed: Feed, state: StreamState) -> None:
        self.feed = feed
        self.state = state
        self.last: RamBlock | None = None

    def section(self, kind: SectionType) -> Steps[None]:
        """Reads the data of one `ram` section."""
        yield from self.records()

    def records(self) -> Steps[None]:
        """Reads up to and including EOS."""
        feed = self.feed
        while True:
            feed.expect("RAM record", "LEG-RAM-001")
            word = int.from_bytes((yield from feed.need(8)), "big")
            flags = word & (self.state.target_page_size - 1)
            kind = flags & ~_CONTINUE
            if kind in (_PAGE, _ZERO):
                yield from self._pages()
            elif flags == RamFlag.EOS and word == flags:
                yield (yield from feed.read(RamEos))
                return
            elif flags == RamFlag.MEM_SIZE:
                yield from self._block_list()
            elif flags == RamFlag.MULTIFD_FLUSH and word == flags:
                yield (yield from feed.read(RamMultifdFlush))
            elif flags == RamFlag.HOOK:
                yield (yield from feed.read(RamHook))
            else:
                raise feed.error(f"unknown combination of RAM flags {flags:#x}", "LEG-RAM-002")

    def _block_list(self) -> Steps[None]:
        opening = yield from self.feed.read(RamMemSize)
        yield opening
        left = opening.total
        context = set()
        if "x-ignore-shared" in self.state.capabilities:
            context.add("gpa")
        while left > 0:
            entry = yield from self.feed.read(RamBlockEntry, context)
            if len(self.state.blocks) >= limits.RAM_BLOCKS:
                raise self.feed.limit(f"more than {limits.RAM_BLOCKS} RAM blocks")
            if entry.used_length > left:
                raise self.feed.error(
                    f"used_length {entry.used_length:#x} exceeds what is left of the total, {left:#x}",
                    "LEG-RAM-012",
                )
            left -= entry.used_length
            self.state.blocks[entry.idstr] = RamBlock(
                entry.idstr, entry.used_length, entry.page_size, entry.gpa
            )
            yield entry

    def _head(self) -> Steps[tuple[int, RamBlock, int]]:
        """Word, block and header length of the next page record; consumes nothing."""
        feed = self.feed
        view = yield from feed.need(8)
        word = int.from_bytes(view, "big")
        length = 8
        block = self.last
        if not word & _CONTINUE:
            size = (yield from feed.need(9))[8]
            length = 9 + size
            name = bytes((yield from feed.need(length))[9:]).decode("utf-8", "surrogateescape")
            block = self.state.blocks.get(name)
            if block is None:
                raise feed.error(f"page of unknown RAM block {name!a}", "LEG-RAM-040")
        elif block is None:
            raise feed.error("CONTINUE before any block was named", "LEG-RAM-041")
        address = word & -self.state.target_page_size
        if address >= block.used_length:
            raise feed.error(
                f"offset {address:#x} is outside {block.idstr!a} ({block.used_length:#x} bytes)",
                "LEG-RAM-042",
            )
        return word, block, length

    def _pages(self) -> Steps[None]:
        """Reads the longest batch of page records that lies in one piece."""
        feed, page = self.feed, self.state.target_page_size
        start = feed.offset
        word, block, length = yield from self._head()
        is_page = bool(word & _PAGE)
        view = yield from feed.need(length + (page if is_page else 1))
        named = 0 if word & _CONTINUE else 2
        kinds = bytearray([is_page | named])  # a RunKind
        counts = [1]
        window = feed.window()
        end = min(len(window), limits.RAM_BATCH)
        stop = scan(window, len(view), end, block.used_length, page, kinds, counts)
        data = window[:stop]
        feed.skip(stop)
        self.last = block
        batch = RamPages(
            block=block.idstr, page_size=page, kinds=bytes(kinds), counts=tuple(counts), data=data
        )
        yield batch.place(start, stop)
