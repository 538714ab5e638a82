"""The fixed places of RAM pages in a `mapped-ram` file (9.0+).

Source: migration/ram.c `mapped_ram_setup_ramblock`, `parse_ramblock_mapped_ram`.

In place of page records every block has a region in the file: a header in the block
list, a bitmap of present pages, and room for all pages. The stream then goes on behind
the region. Everything in the region is delivered as events, holes included, so that it
can be read from a pipe and written again byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import GreedyBytes, Int32ub, Int64ub, Raw, Record, attr, wire
from qmig.legacy.ram import TARGET_PAGE_SIZES

VERSION: Final = 1
#: alignment of `pages_offset`
ALIGNMENT: Final = 0x100000


class MappedRamHeader(Record):
    """Where the pages of the block listed before it are in the file."""

    requirement: ClassVar[str] = "LEG-MAP-010"
    version: int = wire(Int32ub, doc="1")
    page_size: int = wire(Int64ub, doc="target page size")
    bitmap_offset: int = wire(Int64ub, doc="offset in the file; 0: an ignored block")
    pages_offset: int = wire(Int64ub, doc="offset in the file; 0: an ignored block")


class MappedRamGap(Record):
    """Bytes of a block's region that mean nothing."""

    requirement: ClassVar[str] = "LEG-MAP-020"
    block: str = attr(str, doc="RAMBlock idstr")
    data: Raw = wire(GreedyBytes)


class MappedRamBitmap(Record):
    """Which pages of a block are in the file: one bit per target page."""

    requirement: ClassVar[str] = "LEG-MAP-021"
    block: str = attr(str, doc="RAMBlock idstr")
    pages: int = attr(int, doc="pages of the block")
    data: Raw = wire(GreedyBytes)

    @property
    def surplus(self) -> bool:
        """Whether bits behind the last page are set."""
        return any(start < self.pages <= stop - 1 or start >= self.pages for start, stop in self.runs())

    def runs(self, byteorder: str = "little") -> Iterator[tuple[int, int]]:
        """Ranges of pages (first, behind the last) whose bits are set."""
        return bit_runs(in_order(self.data, byteorder), 0, 8 * len(self.data))


class MappedRamPages(Record):
    """Some of the room for a block's pages. A page whose bit is clear is zero, whatever is here."""

    requirement: ClassVar[str] = "LEG-MAP-022"
    block: str = attr(str, doc="RAMBlock idstr")
    page_size: int = attr(int, doc="target page size, bytes")
    start: int = attr(int, doc="offset in the block of the first byte")
    data: Raw = wire(GreedyBytes)


def bitmap_size(used_length: int, page_size: int) -> int:
    """Bytes of a block's bitmap: whole words of 64 bits."""
    return (-(-used_length // page_size) + 63) // 64 * 8


def in_order(bitmap: Raw, byteorder: str) -> bytes:
    """The bitmap with bit i in byte i // 8; the file has words in the source host's order."""
    raw = bytes(bitmap)
    if byteorder == "little":
        return raw
    swapped = bytearray(len(raw))
    for index in range(8):
        swapped[index::8] = raw[7 - index :: 8]
    return bytes(swapped)


def bit_runs(bits: bytes, low: int, high: int) -> Iterator[tuple[int, int]]:
    """Ranges of set bits between bit `low` and bit `high`."""
    step = 1 << 19
    for base in range(low & -8, high, step):
        top = min(base + step, high)
        word = int.from_bytes(bits[base >> 3 : (top + 7) >> 3], "little")
        word &= (1 << (top - base)) - 1
        if base < low:
            word = word >> (low - base) << (low - base)
        text = f"{word:b}"[::-1]
        start = text.find("1")
        while start >= 0:
            stop = text.find("0", start)
            stop = len(text) if stop < 0 else stop
            yield base + start, base + stop
            start = text.find("1", stop)


class MappedRam:
    """Reads the regions of one stream; `shift` is what must be added to an offset of the feed to get
    an offset in the file (a recording may begin at the stream's start, not at the file's)."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.shift: int | None = None

    def region(self, idstr: str, used_length: int, known_page_size: int | None) -> Steps[MappedRamHeader]:
        """Reads the header and the region behind one entry of the block list."""
        feed = self.feed
        header = yield from feed.read(MappedRamHeader)
        self._check(header, known_page_size)
        if not header.bitmap_offset and not header.pages_offset:
            yield header
            return header
        size = bitmap_size(used_length, header.page_size)
        if size > limits.RECV_BITMAP:
            raise feed.limit(f"a bitmap of {size} bytes")
        bitmap, pages = self._places(header, size)
        yield header
        yield from self._gap(idstr, bitmap)
        feed.expect("MappedRamBitmap", MappedRamBitmap.requirement)
        start = feed.offset
        data = yield from feed.take(size)
        count = -(-used_length // header.page_size)
        yield MappedRamBitmap(block=idstr, pages=count, data=data).place(start, size)
        yield from self._gap(idstr, pages)
        feed.expect("MappedRamPages", MappedRamPages.requirement)
        while feed.offset < pages + used_length:
            start = feed.offset
            data = yield from self._some(pages + used_length - start)
            event = MappedRamPages(block=idstr, page_size=header.page_size, start=start - pages, data=data)
            yield event.place(start, len(data))
        return header

    def _check(self, header: MappedRamHeader, known_page_size: int | None) -> None:
        size = header.page_size
        if header.version > VERSION:
            raise self.feed.error(
                f"mapped-ram version {header.version}, the highest known is {VERSION}", "LEG-MAP-011"
            )
        if size not in TARGET_PAGE_SIZES:
            raise self.feed.error(f"page_size {size:#x} is no target page size", "LEG-MAP-012")
        if known_page_size not in (None, size):
            raise self.feed.error(f"page_size {size:#x}, the target's is {known_page_size:#x}", "LEG-MAP-012")

    def _places(self, header: MappedRamHeader, size: int) -> tuple[int, int]:
        """Bitmap and pages as offsets of the feed. The header was just read."""
        feed = self.feed
        if self.shift is None:
            self.shift = header.bitmap_offset - feed.offset
            aligned = -(-(header.bitmap_offset + size) // ALIGNMENT) * ALIGNMENT
            if self.shift and header.pages_offset != aligned:
                raise feed.error(
                    f"bitmap_offset {header.bitmap_offset:#x} is not the file offset of this place,"
                    f" {feed.offset:#x}, and pages_offset {header.pages_offset:#x} does not follow from it",
                    "LEG-MAP-013",
                )
        bitmap = header.bitmap_offset - self.shift
        pages = header.pages_offset - self.shift
        if bitmap < feed.offset:
            raise feed.error(
                f"bitmap_offset {header.bitmap_offset:#x} lies before the end of the header", "LEG-MAP-013"
            )
        if pages < bitmap + size:
            raise feed.error(f"pages_offset {header.pages_offset:#x} lies inside the bitmap", "LEG-MAP-014")
        if header.pages_offset % header.page_size:
            raise feed.error(f"pages_offset {header.pages_offset:#x} is not page-aligned", "LEG-MAP-015")
        return bitmap, pages

    def _gap(self, idstr: str, stop: int) -> Steps[None]:
        feed = self.feed
        feed.expect("MappedRamGap", MappedRamGap.requirement)
        while feed.offset < stop:
            start = feed.offset
            data = yield from self._some(stop - start)
            yield MappedRamGap(block=idstr, data=data).place(start, len(data))

    def _some(self, most: int) -> Steps[memoryview]:
        """What has arrived, at least one byte, consumed."""
        feed = self.feed
        yield from feed.need(1)
        return (yield from feed.take(min(most, len(feed.window()), limits.RAM_BATCH)))
