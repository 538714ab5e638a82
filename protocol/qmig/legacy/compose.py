"""A machine image to the events of a migration, channel by channel, in the order a source sends them.

Rule 1: events come one after another and are forgotten; memory is bounded by one batch of pages.
Rule 2: the order over all channels is one in which a receiver can take them whatever the buffers between are:
a SYNC on each multifd channel, then its sync point on main.
Rule 3: nothing here waits. What has to be waited for is `qmig.legacy.source`'s business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from qmig._wire import Record
from qmig.legacy import commands as cmd
from qmig.legacy import header as hdr
from qmig.legacy import ram
from qmig.legacy import sections as sec
from qmig.legacy.compose_ram import (
    Content,
    Event,
    MultifdWriter,
    PageWriter,
    contents,
    split_rewritten,
)
from qmig.legacy.machine_image import ImageBlock, LiveSection, MachineImage
from qmig.legacy.mappedram import (
    ALIGNMENT,
    VERSION,
    MappedRamBitmap,
    MappedRamGap,
    MappedRamHeader,
    MappedRamPages,
    bitmap_size,
)
from qmig.legacy.pageplan import PagePlan, older
from qmig.legacy.source_settings import Postcopy, SourceSettings, ZeroPages
from qmig.legacy.sync import SyncMode

#: ranges of one POSTCOPY_RAM_DISCARD, as QEMU has it
MOST_RANGES: Final = 12
#: values of PING; see chapter 50
PING_OPENING, PING_DISCARDED, PING_LOADING, PING_LISTENING, PING_LOADED = 1, 2, 3, 4, 0x42
_CAPABILITY: Final = "mapped-ram"


class Composer:
    """The parts of one migration. Each yields events of any channel; a section is never split over two parts.

    `position` is how many bytes main has carried, asked when it matters (mapped-ram)."""

    def __init__(
        self, image: MachineImage, settings: SourceSettings, position: Callable[[], int] = lambda: 0
    ) -> None:
        self.image = image
        self.settings = settings
        self.plan = PagePlan(image, settings)
        self.multifd = MultifdWriter(image, settings)
        self._position = position
        self._main = PageWriter(image.page_size)

    def opening(self) -> Iterator[Event]:
        """Header, configuration, return path, advice; device state that comes before RAM."""
        yield from _main(hdr.FileHeader(version=hdr.FILE_VERSION), *self._configuration())
        if self.settings.return_path:
            yield from _main(cmd.OpenReturnPath(), cmd.Ping(value=PING_OPENING))
        if self.settings.postcopy is not Postcopy.OFF:
            sizes = 0
            for block in self.plan.blocks:
                sizes |= self.plan.backing(block)
            yield "main", cmd.PostcopyAdvise(page_sizes=sizes, target_page_size=self.image.page_size)
        elif any(section.postcopiable for section in self.image.live):
            yield "main", cmd.PostcopyAdviseEmpty()
        for device in self.image.early:
            yield from _main(*device.events(self.image.footers))

    def _configuration(self) -> Iterator[Record]:
        image = self.image
        if image.configuration is None:
            return
        yield image.configuration
        if image.page_bits is not None:
            yield hdr.Subsection(name="configuration/target-page-bits", version_id=1)
            yield hdr.ConfigurationPageBits(target_page_bits=image.page_bits)
        names = [name for name in image.capabilities if name != _CAPABILITY]
        names += [_CAPABILITY] if self.settings.mapped_ram else []
        if names:
            yield hdr.Subsection(name="configuration/capabilities", version_id=1)
            yield hdr.ConfigurationCapabilities(capabilities=tuple(names))
        if self.settings.validate_uuid:
            yield hdr.Subsection(name="configuration/uuid", version_id=1)
            yield hdr.ConfigurationUuid(uuid=self.settings.uuid or image.uuid)

    def setup(self) -> Iterator[Event]:
        """START of every live handler, `ram` first."""
        yield from self._section(self.image.ram, self._block_list(), point=True)
        for section in self.image.live:
            yield from self._records(section.start, section.setup)

    def _block_list(self) -> Iterator[Event]:
        image = self.image
        total = sum(block.used_length for block in image.blocks)
        yield "main", ram.RamMemSize(word=total | ram.RamFlag.MEM_SIZE)
        usual = max(self.settings.host_page_size, image.page_size)
        advised = self.settings.postcopy is not Postcopy.OFF
        sent = {block.idstr for block in self.plan.blocks}
        for block in image.blocks:
            backing = self.plan.backing(block)
            yield (
                "main",
                ram.RamBlockEntry(
                    idstr=block.idstr,
                    used_length=block.used_length,
                    page_size=backing if advised and backing != usual else None,
                    gpa=block.gpa,
                ),
            )
            if self.settings.mapped_ram:
                yield from _main(*self._region(block, ignored=block.idstr not in sent))

    def _region(self, block: ImageBlock, *, ignored: bool) -> Iterator[Record]:
        """A block's place in the file: header, bitmap, room for its pages."""
        page_size = self.image.page_size
        head = {"version": VERSION, "page_size": page_size}
        if ignored:
            yield MappedRamHeader(**head, bitmap_offset=0, pages_offset=0)
            return
        size = bitmap_size(block.used_length, page_size)
        bitmap = self.settings.file_offset + self._position() + MappedRamHeader.minimum()
        pages = -(-(bitmap + size) // ALIGNMENT) * ALIGNMENT
        yield MappedRamHeader(**head, bitmap_offset=bitmap, pages_offset=pages)
        count = self.plan.pages(block)
        yield MappedRamBitmap(block=block.idstr, pages=count, data=self._present(block).ljust(size, b"\0"))
        yield MappedRamGap(block=block.idstr, data=bytes(pages - bitmap - size))
        for start in range(0, block.used_length, self.settings.chunk):
            data = block.read(start, min(self.settings.chunk, block.used_length - start))
            yield MappedRamPages(block=block.idstr, page_size=page_size, start=start, data=data)

    def _present(self, block: ImageBlock) -> bytes:
        """One bit for each page that is not zero."""
        bits = bytearray()
        for numbers in self.plan.cut(range(self.plan.pages(block)), max(self.settings.chunk, ALIGNMENT)):
            low = min(numbers)
            pages = contents(block, range(low, low + len(numbers)), self.image.page_size)
            word = sum(1 << index for index, page in enumerate(pages) if page is not None)
            bits += word.to_bytes(-(-len(pages) // 8), "little")
        return bytes(bits)

    def precopy(self) -> Iterator[Event]:
        """PARTs: every pass over RAM, then what the other live handlers had to say."""
        if not self.settings.mapped_ram:
            yield from self._pass(self.plan.first, first=True)
            if self.settings.rewritten and self.settings.postcopy is not Postcopy.STARTED:
                yield from self._pass(self.plan.again, first=False)
        for section in self.image.live:
            if not (self.settings.postcopy is Postcopy.STARTED and section.postcopiable):
                yield from self._parts(section)

    def _pass(self, ranges: Callable[[ImageBlock], Iterator[range]], *, first: bool) -> Iterator[Event]:
        for block in self.plan.blocks:
            for numbers in ranges(block):
                for part in self.plan.cut(numbers, self.settings.chunk):
                    batch = self._first(block, part) if first else self._again(block, part)
                    yield from self._section(self._part(), batch)
        yield from self._section(self._part(), (), point=True)

    def _first(self, block: ImageBlock, numbers: Sequence[int]) -> Iterator[Event]:
        pages = contents(block, numbers, self.image.page_size)
        zero = bytes(self.image.page_size)
        for index, number in enumerate(numbers):
            if self.plan.is_older(block, number):
                pages[index] = older(pages[index] or zero)
        yield from self._pages(block, numbers, pages)

    def _again(self, block: ImageBlock, numbers: Sequence[int]) -> Iterator[Event]:
        pages = contents(block, numbers, self.image.page_size)
        if self.settings.xbzrle:
            deltas, numbers, pages = split_rewritten(numbers, pages)
            yield from _main(*self._main.deltas(block, deltas))
        yield from self._pages(block, numbers, pages)

    def _pages(self, block: ImageBlock, numbers: Sequence[int], pages: list[Content]) -> Iterator[Event]:
        """Pages where the settings want them."""
        if not self.multifd.channels:
            if self.settings.compress:
                yield from _main(*self._main.compressed(block, numbers, pages))
                numbers, pages = _only_zero(numbers, pages)
            yield from _main(*self._main.pages(block, numbers, pages))
            return
        yield from self.multifd.pages(block, numbers, pages)
        if self.settings.zero_page_detection is ZeroPages.LEGACY:
            yield from _main(*self._main.pages(block, *_only_zero(numbers, pages)))

    def switchover(self) -> Iterator[Event]:
        """The rest of a precopy, up to EOF: END of every live handler, then device state."""
        yield from self._stopped()
        yield from self.ram_end()
        for section in self.image.live:
            yield from self._end(section)
        yield from _main(*self._devices())

    def _stopped(self) -> Iterator[Event]:
        if self.settings.switchover_start:
            yield "main", cmd.SwitchoverStart()

    def ram_end(self, *, point: bool = True) -> Iterator[Event]:
        """END of `ram`."""
        yield from self._section(sec.SectionEnd(section_id=self.image.ram.section_id), (), point=point)

    def eof(self) -> Iterator[Event]:
        yield "main", sec.EndOfFile()

    def description(self) -> Iterator[Event]:
        """What follows EOF in precopy."""
        if self.settings.vmdesc and self.image.vmdesc is not None:
            yield "main", sec.VmDescription(json=self.image.vmdesc)

    # -- postcopy -----------------------------------------------------------------------------------------

    def before_package(self) -> Iterator[Event]:
        """Up to the package: handlers that cannot wait, discards, PING 2."""
        yield from self._stopped()
        for section in self.image.live:
            if not section.postcopiable:
                yield from self._end(section)
        for block in self.plan.blocks:
            size = self.image.page_size
            ranges = [(part.start * size, len(part) * size) for part in self.plan.pending(block)]
            for low in range(0, len(ranges), MOST_RANGES):
                yield "main", _discard(block.idstr, tuple(ranges[low : low + MOST_RANGES]))
        yield "main", cmd.Ping(value=PING_DISCARDED)

    def package(self) -> Iterator[Record]:
        """What is inside the package."""
        yield cmd.PostcopyListen()
        yield from self._devices()
        yield cmd.Ping(value=PING_LOADING)
        if self.settings.postcopy_device:
            yield cmd.Ping(value=PING_LOADED)
        yield cmd.PostcopyRun()

    def after_package(self) -> Iterator[Event]:
        yield "main", cmd.Ping(value=PING_LISTENING)

    def postcopy_pages(self, block: ImageBlock, numbers: range) -> Iterator[Event]:
        """One PART of pages after the guest was given up."""
        pages = contents(block, numbers, self.image.page_size)
        yield from self._section(self._part(), _main(*self._main.pages(block, numbers, pages)))

    def urgent_pages(self, block: ImageBlock, numbers: range, writer: PageWriter) -> Iterator[Record]:
        """Pages for a preempt channel, whose `writer` remembers the block."""
        yield from writer.pages(block, numbers, contents(block, numbers, self.image.page_size))

    def postcopy_end(self) -> Iterator[Event]:
        """What follows the last page, up to EOF."""
        yield from self.ram_end(point=False)
        for section in self.image.live:
            if section.postcopiable:
                yield from self._parts(section)
                yield from self._end(section)

    def bitmaps_wanted(self) -> Iterator[Event]:
        """Recovery: asks which pages arrived. Main is a new connection from here on."""
        self._main = PageWriter(self.image.page_size)
        for block in self.plan.blocks:
            yield "main", cmd.RecvBitmap(length=1 + len(ram.raw_name(block.idstr)), block=block.idstr)

    def resume(self) -> Iterator[Event]:
        yield "main", cmd.PostcopyResume()

    # -- sections -----------------------------------------------------------------------------------------

    def _part(self) -> Record:
        return sec.SectionPart(section_id=self.image.ram.section_id)

    def _section(self, opening: Record, events: Iterable[Event], *, point: bool = False) -> Iterator[Event]:
        """A section of `ram`; `point`: a sync point where those come per round."""
        yield "main", opening
        yield from events
        if self.multifd.channels and (point or self.settings.sync_mode is SyncMode.PER_SECTION):
            yield from self.multifd.sync()
            if self.settings.sync_mode is SyncMode.PER_ROUND:
                yield "main", ram.RamMultifdFlush()
        yield "main", ram.RamEos()
        yield from self._footer(self.image.ram.section_id)

    def _records(self, opening: Record, records: Iterable[Record]) -> Iterator[Event]:
        """A section of another live handler."""
        yield from _main(opening, *records)
        yield from self._footer(opening.values()["section_id"])

    def _parts(self, section: LiveSection) -> Iterator[Event]:
        for records in section.parts:
            yield from self._records(sec.SectionPart(section_id=section.start.section_id), records)

    def _end(self, section: LiveSection) -> Iterator[Event]:
        if section.end is not None:
            yield from self._records(sec.SectionEnd(section_id=section.start.section_id), section.end)

    def _footer(self, section_id: int) -> Iterator[Event]:
        if self.image.footers:
            yield "main", sec.SectionFooter(section_id=section_id)

    def _devices(self) -> Iterator[Record]:
        for device in self.image.devices:
            yield from device.events(self.image.footers)


def _only_zero(numbers: Sequence[int], pages: Sequence[Content]) -> tuple[list[int], list[Content]]:
    zero = [number for number, page in zip(numbers, pages, strict=True) if page is None]
    return zero, [None] * len(zero)


def _main(*events: Record) -> Iterator[Event]:
    for event in events:
        yield "main", event


def _discard(block: str, ranges: tuple[tuple[int, int], ...]) -> cmd.PostcopyRamDiscard:
    length = 3 + len(ram.raw_name(block)) + 16 * len(ranges)
    return cmd.PostcopyRamDiscard(length=length, block=block, ranges=ranges)
