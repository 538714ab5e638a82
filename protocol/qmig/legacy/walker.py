"""The main channel: bytes to events.

Rule 1: what may follow what is decided by the type byte alone, as QEMU's own loader
does; whether a real source would send it there is `verify`'s business.
Rule 2: an error is final. What came before it was delivered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import NeedBytes, Record
from qmig.errors import LocalProtocolError, RemoteProtocolError
from qmig.legacy.commands import (
    COMMANDS,
    CommandHeader,
    MigCmd,
    Packaged,
    PackageEnd,
    PostcopyAdvise,
    PostcopyRun,
    UnknownCommand,
)
from qmig.legacy.devices import DeviceReader
from qmig.legacy.header import (
    CONFIGURATION_SUBSECTIONS,
    FILE_VERSION,
    Configuration,
    ConfigurationCapabilities,
    ConfigurationPageBits,
    FileHeader,
    Subsection,
)
from qmig.legacy.live import LiveReader, open_reader
from qmig.legacy.ram import TARGET_PAGE_SIZES
from qmig.legacy.sections import (
    EndOfFile,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionPart,
    SectionStart,
    SectionType,
    TrailingBytes,
    VmDescription,
)
from qmig.legacy.state import StreamState

#: QEMU nests packages without a bound; its sources never nest at all
MAX_NESTING: Final = 4


class MainWalker:
    """Reads one main stream, or one package inside it."""

    def __init__(self, feed: Feed, state: StreamState, *, nesting: int = 0) -> None:
        self.feed = feed
        self.state = state
        self.nesting = nesting
        self.live = False  # a SECTION_START was seen
        self.running = False  # POSTCOPY_RUN was seen: it ends a package
        self.readers: dict[int, LiveReader] = {}  # section_id -> reader of its data
        self.devices = DeviceReader(feed, state)

    def stream(self) -> Steps[None]:
        """A whole stream: header, items, EOF, description, and what trails behind."""
        header = yield from self.feed.read(FileHeader)
        if header.version != FILE_VERSION:
            raise self.feed.error(f"version {header.version}, expected {FILE_VERSION}", "LEG-HDR-002")
        yield header
        yield from self.resumed()

    def resumed(self) -> Steps[None]:
        """A stream without header: the main channel of a postcopy recovery."""
        yield from self.items()
        ended = yield from self.feed.at_end()
        if not ended and (yield from self.feed.need(1))[0] == SectionType.VMDESCRIPTION:
            yield (yield from self.feed.read(VmDescription))
        while not (yield from self.feed.at_end()):
            start = self.feed.offset
            data = self.feed.drain()
            yield TrailingBytes(data=data).place(start, len(data))

    def items(self) -> Steps[None]:
        """Items up to EOF (or POSTCOPY_RUN inside a package)."""
        while not self.running:
            self.feed.expect("section", "LEG-SEC-001")
            kind = (yield from self.feed.need(1))[0]
            if kind == SectionType.EOF:
                yield (yield from self.feed.read(EndOfFile))
                return
            item = _ITEMS.get(kind)
            if item is None:
                raise self.feed.error(f"unknown section type {kind:#x}", "LEG-SEC-002")
            yield from item(self)

    def configuration(self) -> Steps[None]:
        record = yield from self.feed.read(Configuration)
        self.state.machine = record.machine
        self.state.configured = True
        yield record
        while (yield from self.feed.need(1))[0] == SectionType.SUBSECTION:
            opening = yield from self.feed.read(Subsection)
            body = CONFIGURATION_SUBSECTIONS.get(opening.name)
            if body is None:
                raise self.feed.error(f"unknown configuration subsection {opening.name!a}", "LEG-HDR-023")
            yield opening
            content = yield from self.feed.read(body)
            if isinstance(content, ConfigurationCapabilities):
                self.state.capabilities = frozenset(content.capabilities)
            elif isinstance(content, ConfigurationPageBits):
                if not 8 <= content.target_page_bits <= 16:
                    raise self.feed.error(f"target page bits {content.target_page_bits}")
                self.state.page_size = 1 << content.target_page_bits
            yield content

    def start(self) -> Steps[None]:
        section = yield from self.feed.read(SectionStart)
        self.live = True
        if len(self.state.sections) >= limits.LIVE_SECTIONS:
            raise self.feed.limit(f"more than {limits.LIVE_SECTIONS} live sections")
        yield section
        self.readers[section.section_id] = open_reader(section, self.feed, self.state)
        self.state.sections[section.section_id] = section
        yield from self._live_data(section.section_id, SectionType.SECTION_START)

    def part(self) -> Steps[None]:
        section = yield from self.feed.read(SectionPart)
        yield section
        yield from self._live_data(section.section_id, SectionType.SECTION_PART)

    def end(self) -> Steps[None]:
        section = yield from self.feed.read(SectionEnd)
        yield section
        yield from self._live_data(section.section_id, SectionType.SECTION_END)

    def _live_data(self, section_id: int, kind: SectionType) -> Steps[None]:
        reader = self.readers.get(section_id)
        if reader is None:
            section = self.state.sections.get(section_id)  # started before a recovery, or outside the package
            if section is None:
                raise self.feed.error(f"section {section_id} was not started", "LEG-SEC-015")
            reader = self.readers[section_id] = open_reader(section, self.feed, self.state)
        yield from reader.section(kind)
        yield from self._footer(section_id)

    def _footer(self, section_id: int) -> Steps[None]:
        if self.state.footers is None:
            self.state.footers = (yield from self.feed.need(1))[0] == SectionType.SECTION_FOOTER
        if self.state.footers:
            footer = yield from self.feed.read(SectionFooter)
            if footer.section_id != section_id:
                raise self.feed.error(
                    f"footer of section {footer.section_id}, expected {section_id}", "LEG-SEC-021"
                )
            yield footer

    def full(self) -> Steps[None]:
        section = yield from self.feed.read(SectionFull)
        yield section
        early = self.state.configured and not self.live and not self.nesting
        yield (yield from self.devices.body(section, early=early))
        yield from self._footer(section.section_id)

    def command(self) -> Steps[None]:
        feed = self.feed
        start = feed.offset
        feed.expect("Command", CommandHeader.requirement)
        view = yield from feed.need(5)
        header, _ = CommandHeader.decode(view)
        view = yield from feed.need(5 + header.length)
        record = _decode_command(header.command, view, start)
        feed.skip(len(view))
        yield record.place(start, len(view))
        if isinstance(record, Packaged):
            yield from self._package(record)
        elif isinstance(record, PostcopyRun) and self.nesting:
            self.running = True
        elif isinstance(record, PostcopyAdvise):
            self.state.postcopy_advised = True
            if record.target_page_size in TARGET_PAGE_SIZES:
                self.state.page_size = self.state.page_size or record.target_page_size

    def _package(self, record: Packaged) -> Steps[None]:
        feed = self.feed
        feed.expect("package", Packaged.requirement)
        if self.nesting >= MAX_NESTING:
            raise feed.error(f"packages nested more than {MAX_NESTING} deep")
        start = feed.offset
        view = yield from feed.take(record.size_of_package)
        inner = Feed(start)
        inner.give(view)
        inner.give(b"")
        walker = MainWalker(inner, self.state, nesting=self.nesting + 1)
        yield from walker.items()
        if inner.available:
            rest = inner.drain()
            yield TrailingBytes(data=rest).place(inner.offset - len(rest), len(rest))
        yield PackageEnd().place(feed.offset, 0)


def _decode_command(number: int, view: memoryview, start: int) -> Record:
    kinds: tuple[type[Record], ...] = COMMANDS.get(number, (UnknownCommand,))  # type: ignore[call-overload]
    problem: LocalProtocolError | None = None
    for kind in kinds:
        try:
            record, used = kind.decode(view)
        except LocalProtocolError as error:
            problem = error
            continue
        except NeedBytes:
            continue
        if used == len(view):
            return record
    name = MigCmd(number).name if number in COMMANDS else str(number)
    message = problem.message if problem else f"length {len(view) - 5} does not fit"
    raise RemoteProtocolError(
        f"{name}: {message}", requirement="LEG-CMD-003", offset=start, record="Command"
    ) from None


_ITEMS: Final[dict[int, Callable[[MainWalker], Steps[None]]]] = {
    SectionType.CONFIGURATION: MainWalker.configuration,
    SectionType.SECTION_START: MainWalker.start,
    SectionType.SECTION_PART: MainWalker.part,
    SectionType.SECTION_END: MainWalker.end,
    SectionType.SECTION_FULL: MainWalker.full,
    SectionType.COMMAND: MainWalker.command,
}
