"""RAM records on main and preempt channels: form and order (spec chapters 40 and 58)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from qmig._wire import Record
from qmig.legacy.channels import parse_name
from qmig.legacy.commands import PostcopyAdvise, PostcopyListen
from qmig.legacy.pages import RunKind
from qmig.legacy.ram import (
    RamBlockEntry,
    RamDeltas,
    RamEos,
    RamFlag,
    RamHook,
    RamMemSize,
    RamMultifdFlush,
    RamPages,
)
from qmig.legacy.sections import SectionEnd, SectionPart, SectionStart, TrailingBytes
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.findings import Severity
from qmig.legacy.verify.rules import (
    By,
    Rule,
    before,
    capability,
    either,
    migration_property,
    since,
)


class RamChecker(Checker):
    """Which RAM record may stand where, and what is in it."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-RAM-014", title="the block list opens the START of ram, once"),
        Rule(requirement="LEG-RAM-002", title="the flags of a record are known", by=By.READER),
        Rule(
            requirement="LEG-RAM-003",
            title="FULL is never sent",
            by=By.NOBODY,
            why_not="the reader reports it as LEG-RAM-002",
        ),
        Rule(requirement="LEG-RAM-012", title="the block lengths add up to the total", by=By.READER),
        Rule(requirement="LEG-RAM-015", title="block lengths are whole pages"),
        Rule(requirement="LEG-RAM-013", title="block names are unique", by=By.READER),
        Rule(
            requirement="LEG-RAM-016",
            title="a block's page size is given with postcopy-ram only",
            about=(RamBlockEntry,),
        ),
        Rule(requirement="LEG-RAM-018", title="gpa is in every entry iff x-ignore-shared is on"),
        Rule(
            requirement="LEG-RAM-020",
            title="each ram section ends with its only EOS",
            by=By.NOBODY,
            why_not="the reader goes by it; what follows another one is no footer",
        ),
        Rule(
            requirement="LEG-RAM-051",
            title="no pages of blocks that are shared or left to CPR",
            by=By.NOBODY,
            why_not="a stream does not say which blocks these are",
        ),
        Rule(requirement="LEG-RAM-034", title="a difference is not longer than a page", by=By.READER),
        Rule(requirement="LEG-RAM-035", title="a compressed page is within zlib's bound", by=By.READER),
        Rule(requirement="LEG-RAM-040", title="pages are of a block of the list", by=By.READER),
        Rule(requirement="LEG-RAM-043", title="page offsets are aligned", by=By.READER),
        Rule(
            requirement="LEG-RAM-060",
            title="no XBZRLE and no HOOK behind LISTEN",
            about=(PostcopyListen,),
        ),
        Rule(requirement="LEG-RAM-041", title="the first page of a channel names its block", by=By.READER),
        Rule(requirement="LEG-RAM-042", title="pages lie inside their block", by=By.READER),
        Rule(requirement="LEG-RAM-053", title="zero pages are filled with 0"),
        Rule(
            requirement="LEG-RAM-056",
            title="no COMPRESS_PAGE without compress, nor from 9.1 on",
            when=either(since((9, 1)), capability("compress", on=False)),
        ),
        Rule(
            requirement="LEG-RAM-057",
            title="no MULTIFD_FLUSH without multifd",
            when=capability("multifd", on=False),
        ),
        Rule(
            requirement="LEG-MFD-053",
            title="no MULTIFD_FLUSH with multifd-flush-after-each-section",
            when=migration_property("multifd-flush-after-each-section", on=True),
        ),
        Rule(
            requirement="LEG-RAM-058",
            title="no HOOK in a plain stream; it belongs to RDMA",
            severity=Severity.WARNING,
        ),
        Rule(
            requirement="LEG-MFD-060",
            title="with multifd, main carries no page contents before postcopy",
            when=capability("multifd", on=True),
        ),
        Rule(
            requirement="LEG-PCP-030",
            title="the target pages of a host page come together in postcopy",
            about=(PostcopyListen,),
            known_defect=before((8, 0)),
        ),
        Rule(requirement="LEG-PRE-003", title="a preempt channel holds pages only", by=By.READER),
        Rule(
            requirement="LEG-PRE-006",
            title="the preempt channel is connected behind PONG 1",
            by=By.NOBODY,
            why_not="a recording does not say when its connections were made",
        ),
        Rule(requirement="LEG-PRE-004", title="nothing comes behind EOS on a preempt channel"),
        Rule(
            requirement="LEG-PRE-005",
            title="a preempt channel ends with EOS with x-preempt-pre-7-2 only",
            when=migration_property("x-preempt-pre-7-2", on=False),
        ),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.ram: int | None = None  # section_id of `ram`
        self.section: Record | None = None  # the ram section that is open on main
        self.records = 0  # RAM records in it
        self.listed = False
        self.blocks: dict[str, tuple[str, RamBlockEntry]] = {}
        self.page_size: int | None = None
        self.advised: PostcopyAdvise | None = None
        self.listening = False
        self.hosts: dict[str, _HostPage] = {}  # by channel

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            SectionStart: self._start,
            SectionPart: self._live,
            SectionEnd: self._live,
            PostcopyAdvise: self._advise,
            PostcopyListen: self._listen,
            RamMemSize: self._mem_size,
            RamBlockEntry: self._block,
            RamPages: self._pages,
            RamDeltas: self._deltas,
            RamEos: self._eos,
            RamMultifdFlush: self._flush,
            RamHook: self._hook,
            TrailingBytes: self._trailing,
        }

    def _start(self, channel: str, event: SectionStart) -> None:
        if event.idstr == "ram":
            self.ram = event.section_id
        self._live(channel, event)

    def _live(self, channel: str, event: SectionStart | SectionPart | SectionEnd) -> None:
        self.section = event if event.section_id == self.ram else None
        self.records = 0

    def _advise(self, channel: str, event: PostcopyAdvise) -> None:
        self.advised = event
        self.page_size = event.target_page_size

    def _listen(self, channel: str, event: PostcopyListen) -> None:
        self.listening = True

    def _mem_size(self, channel: str, event: RamMemSize) -> None:
        if self.listed or self.records or not isinstance(self.section, SectionStart):
            self.report("LEG-RAM-014", channel, event, "a block list that does not open the START of ram")
        self.listed = True
        self.records += 1

    def _block(self, channel: str, event: RamBlockEntry) -> None:
        self.blocks[event.idstr] = (channel, event)
        shared = self.facts.capability("x-ignore-shared")
        if shared is not None and shared is (event.gpa is None):
            text = f"{event.idstr!a} has {'no' if shared else 'a'} gpa"
            self.report("LEG-RAM-018", channel, event, text)
        size = event.page_size
        if size is None:
            return
        if self.advised is None:
            self.report("LEG-RAM-016", channel, event, f"{event.idstr!a} has a page size, without ADVISE")
        elif size & (size - 1) or size <= self.advised.target_page_size or event.used_length % size:
            self.report("LEG-RAM-016", channel, event, f"{event.idstr!a} has page size {size:#x}")

    def _record(self, channel: str, event: Record) -> None:
        """Any RAM record but the block list's."""
        if not self.records and not self.listed and isinstance(self.section, SectionStart):
            text = f"{type(event).__name__} comes before the block list"
            self.report("LEG-RAM-014", channel, event, text)
        self.records += 1

    def _pages(self, channel: str, event: RamPages) -> None:
        self._record(channel, event)
        self.page_size = event.page_size
        kind = parse_name(channel).kind
        if event.normal and not self.listening and kind == "main":
            self.report("LEG-MFD-060", channel, event, f"{event.normal} pages of {event.block!a} on main")
        if event.zero:
            self._fill(channel, event)
        _, block = self.blocks.get(event.block, (channel, None))
        if block is not None and block.page_size and (self.listening or kind == "preempt"):
            self._host_pages(channel, event, block.page_size)

    def _fill(self, channel: str, event: RamPages) -> None:
        view = memoryview(event.data)
        for kind, address, count, at in event.runs():
            if kind & RunKind.PAGE:
                continue
            stride = event.stride(kind)
            fills = bytes(view[at + stride - 1 : at + stride * count : stride])
            if fills.count(0) < len(fills):
                text = f"a page of {event.block!a} from {address:#x} on is filled with another byte"
                self.report("LEG-RAM-053", channel, event, text)

    def _host_pages(self, channel: str, event: RamPages, host: int) -> None:
        current = self.hosts.setdefault(channel, _HostPage())
        for address in event.addresses():
            if not current.take(event.block, address, host, event.page_size):
                text = f"{event.block!a} {address:#x} comes inside another host page"
                self.report("LEG-PCP-030", channel, event, text)

    def _deltas(self, channel: str, event: RamDeltas) -> None:
        self._record(channel, event)
        self.page_size = event.page_size
        for kind, address, _ in event.records():
            if kind is RamFlag.COMPRESS_PAGE:
                self.facts.until((9, 0))
                self.report("LEG-RAM-056", channel, event, f"COMPRESS_PAGE of {event.block!a} {address:#x}")
                return
        self._postcopy(channel, event)

    def _postcopy(self, channel: str, event: Record) -> None:
        if self.listening:
            self.report("LEG-RAM-060", channel, event, f"{type(event).__name__} in postcopy")

    def _eos(self, channel: str, event: RamEos) -> None:
        if parse_name(channel).kind == "preempt":
            self.report("LEG-PRE-005", channel, event, "EOS on a preempt channel")
            return
        self._record(channel, event)
        current = self.hosts.get(channel)
        if current is not None and current.open:
            text = f"the section ends inside a host page of {current.block!a}"
            self.report("LEG-PCP-030", channel, event, text)

    def _flush(self, channel: str, event: RamMultifdFlush) -> None:
        self._record(channel, event)
        self.facts.since((8, 1))
        self.report("LEG-RAM-057", channel, event, "MULTIFD_FLUSH")
        self.report("LEG-MFD-053", channel, event, "MULTIFD_FLUSH")
        if self.facts.capability("mapped-ram"):
            self.report("LEG-MAP-023", channel, event, "MULTIFD_FLUSH in a mapped-ram stream")

    def _hook(self, channel: str, event: RamHook) -> None:
        self._record(channel, event)
        self.report("LEG-RAM-058", channel, event, "HOOK")
        self._postcopy(channel, event)

    def _trailing(self, channel: str, event: TrailingBytes) -> None:
        if parse_name(channel).kind == "preempt":
            self.report("LEG-PRE-004", channel, event, f"{len(event.data)} bytes behind EOS")

    def finish(self) -> None:
        if self.page_size:
            for channel, entry in self.blocks.values():
                if entry.used_length % self.page_size:
                    text = f"{entry.idstr!a} is {entry.used_length:#x} bytes, pages are {self.page_size}"
                    self.report("LEG-RAM-015", channel, entry, text)


class _HostPage:
    """The host page that a channel is in the middle of."""

    __slots__ = ("block", "came", "number")

    def __init__(self) -> None:
        self.block = ""
        self.number = -1
        self.came = 0  # target pages of it; a number, for a length from the wire may claim any size

    @property
    def open(self) -> bool:
        return bool(self.came)

    def take(self, block: str, address: int, host: int, page: int) -> bool:
        """Whether this page belongs to the host page that is open, or opens the next."""
        number = address // host
        good = not self.came or (self.block == block and self.number == number)
        if not good:
            self.came = 0
        self.block, self.number = block, number
        self.came += 1
        if self.came * page >= host:
            self.came = 0
        return good
