"""Fixed places of pages in a mapped-ram file (spec chapter 45)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from qmig._wire import Record
from qmig.legacy.mappedram import ALIGNMENT, VERSION, MappedRamBitmap, MappedRamHeader, bitmap_size
from qmig.legacy.ram import RamBlockEntry
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.rules import By, Rule


class MappedRamChecker(Checker):
    """The headers in the block list, and the bitmaps."""

    about = (MappedRamHeader,)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-MAP-011", title="the version of the header is 1"),
        Rule(requirement="LEG-MAP-012", title="page_size is the target page size", by=By.READER),
        Rule(requirement="LEG-MAP-013", title="the bitmap begins behind the header"),
        Rule(
            requirement="LEG-MAP-014",
            title="the pages begin at the next multiple of 1 MiB behind the bitmap",
        ),
        Rule(requirement="LEG-MAP-024", title="bits behind the last page are 0"),
        Rule(
            requirement="LEG-MAP-017",
            title="the next record stands behind the room for the pages",
            by=By.NOBODY,
            why_not="the reader goes by it",
        ),
        Rule(
            requirement="LEG-MAP-025",
            title="bytes before `offset` of the file stay as they are",
            by=By.NOBODY,
            why_not="a recording does not show what was in the file before",
        ),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.block: RamBlockEntry | None = None
        self.shift: int | None = None

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            RamBlockEntry: self._block,
            MappedRamHeader: self._header,
            MappedRamBitmap: self._bitmap,
        }

    def _block(self, channel: str, event: RamBlockEntry) -> None:
        self.block = event

    def _header(self, channel: str, event: MappedRamHeader) -> None:
        if event.version != VERSION:
            self.report("LEG-MAP-011", channel, event, f"version {event.version}")
        if self.block is None or not event.bitmap_offset:
            return
        end = event.offset + event.size
        if self.shift is None:
            self.shift = event.bitmap_offset - end  # a recording may begin at the stream's start
        if event.bitmap_offset != end + self.shift:
            text = f"bitmap_offset {event.bitmap_offset:#x}, the header ends at {end + self.shift:#x}"
            self.report("LEG-MAP-013", channel, event, text)
        behind = event.bitmap_offset + bitmap_size(self.block.used_length, event.page_size)
        wanted = -(-behind // ALIGNMENT) * ALIGNMENT
        if event.pages_offset != wanted:
            text = f"pages_offset {event.pages_offset:#x}, expected {wanted:#x}"
            self.report("LEG-MAP-014", channel, event, text)

    def _bitmap(self, channel: str, event: MappedRamBitmap) -> None:
        if event.surplus:
            text = f"bits behind page {event.pages} of {event.block!a} are set"
            self.report("LEG-MAP-024", channel, event, text)
