"""Advise, discard, package and recovery (spec chapter 58)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from qmig._wire import Record
from qmig.legacy.channels import parse_name
from qmig.legacy.commands import (
    Packaged,
    PackageEnd,
    Ping,
    PostcopyAdvise,
    PostcopyAdviseEmpty,
    PostcopyListen,
    PostcopyRamDiscard,
    PostcopyResume,
    PostcopyRun,
    RecvBitmap,
)
from qmig.legacy.ram import RamBlockEntry, RamPages
from qmig.legacy.sections import (
    EndOfFile,
    SectionEnd,
    SectionFull,
    SectionPart,
    SectionStart,
    TrailingBytes,
    VmDescription,
)
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.commands import ITEMS
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.rules import Rule, both, seen, since

#: Ranges in one DISCARD (`MAX_DISCARDS_PER_COMMAND`).
MAX_RANGES: Final = 12
#: PING inside the package, behind the device state.
PING_DEVICES_SENT: Final = 3
#: PING inside the package that asks whether all of it was loaded (10.2+).
PING_PACKAGE_LOADED: Final = 0x42

_IN_PACKAGE: Final = (PostcopyListen, PostcopyRun, Ping, SectionFull)
_AFTER_PACKAGE: Final = (SectionPart, SectionEnd, EndOfFile, RecvBitmap, PostcopyResume)
_RECOVERY: Final = (RecvBitmap, PostcopyResume)


class PostcopyChecker(Checker):
    """The order around the switch to postcopy."""

    about = (PostcopyAdvise, PostcopyAdviseEmpty, PostcopyListen, PostcopyRun, Packaged)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-PCP-001", title="ADVISE comes once, before the first START and any postcopy"),
        Rule(
            requirement="LEG-PCP-002",
            title="ADVISE is 16 bytes with postcopy-ram, else empty",
        ),
        Rule(requirement="LEG-PCP-003", title="ADVISE tells the page sizes that are used"),
        Rule(requirement="LEG-PCP-010", title="DISCARD has 1 to 12 ranges", about=(PostcopyRamDiscard,)),
        Rule(
            requirement="LEG-PCP-011",
            title="DISCARD ranges lie in their block, in whole host pages",
            about=(PostcopyRamDiscard,),
        ),
        Rule(
            requirement="LEG-PCP-012",
            title="PING 2 stands between the last DISCARD and PACKAGED",
            about=(Packaged,),
        ),
        Rule(requirement="LEG-PCP-020", title="the package begins with LISTEN and ends with RUN"),
        Rule(requirement="LEG-PCP-021", title="the package has PING 3 before RUN", about=(Packaged,)),
        Rule(
            requirement="LEG-PCP-022",
            title="the package holds device state and commands only",
            about=(Packaged,),
        ),
        Rule(
            requirement="LEG-PCP-023",
            title="the package's size is that of the stream in it",
            about=(Packaged,),
        ),
        Rule(requirement="LEG-PCP-024", title="PING 4 follows the package at once", about=(Packaged,)),
        Rule(
            requirement="LEG-PCP-025",
            title="behind the package come PART, END and EOF only",
            about=(Packaged,),
        ),
        Rule(
            requirement="LEG-PCP-026",
            title="the package has PING 0x42 before RUN",
            about=(Packaged,),
            when=both(since((10, 2)), seen("return-path", "streams with a return path")),
        ),
        Rule(
            requirement="LEG-PCP-040",
            title="a recovery asks for the bitmap of each block once",
            about=_RECOVERY,
        ),
        Rule(requirement="LEG-PCP-041", title="a recovery has one RESUME", about=_RECOVERY),
        Rule(requirement="LEG-PCP-042", title="a recovery sends no RAM before RESUME", about=_RECOVERY),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.advised: PostcopyAdvise | PostcopyAdviseEmpty | None = None
        self.started = False
        self.blocks: dict[str, RamBlockEntry] = {}
        self.page_size: int | None = None
        self.last: Record | None = None  # the item before
        self.nesting = 0
        self.package: set[int] = set()  # values of the PINGs in it that matter
        self.items = 0  # of the package
        self.packaged: Packaged | None = None
        self.after = False  # the package has ended
        self.recovery: str | None = None
        self.asked: set[str] = set()
        self.resumed = False
        self._items: dict[type[Record], Handler] = {
            SectionStart: self._start,
            SectionPart: self._live,
            SectionEnd: self._live,
            PostcopyAdvise: self._advise,
            PostcopyAdviseEmpty: self._advise,
            PostcopyRamDiscard: self._discard,
            Packaged: self._package,
            Ping: self._ping,
            PostcopyRun: self._run,
            RecvBitmap: self._recv_bitmap,
            PostcopyResume: self._resume,
        }

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            **dict.fromkeys(ITEMS, self._item),
            PackageEnd: self._package_end,
            RamBlockEntry: self._block,
            RamPages: self._pages,
            TrailingBytes: self._trailing,
            VmDescription: self._in_package,
        }

    def _item(self, channel: str, event: Record) -> None:
        connection = parse_name(channel).connection
        if connection > 1 and channel != self.recovery and "postcopy" in self.facts.seen:
            self.recovery, self.asked, self.resumed = channel, set(), False
        if self.nesting:
            self._in_package(channel, event)
        elif self.after:
            self._behind(channel, event)
        elif isinstance(event, (PostcopyListen, PostcopyRun)):
            self.report("LEG-PCP-020", channel, event, f"{type(event).__name__} outside a package")
        handler = self._items.get(type(event))
        if handler is not None:
            handler(channel, event)
        self.last = event

    def _in_package(self, channel: str, event: Record) -> None:
        if not self.nesting:
            return
        self.items += 1
        if not isinstance(event, _IN_PACKAGE):
            self.report("LEG-PCP-022", channel, event, f"{type(event).__name__} in the package")
        elif (self.items == 1) is not isinstance(event, PostcopyListen):
            text = "LISTEN is not the first item" if self.items > 1 else f"{type(event).__name__} comes first"
            self.report("LEG-PCP-020", channel, event, text)

    def _behind(self, channel: str, event: Record) -> None:
        if isinstance(self.last, Packaged):
            ram = isinstance(self.advised, PostcopyAdvise)
            four = isinstance(event, Ping) and event.value == 4
            if four:
                return
            if ram:
                self.report("LEG-PCP-024", channel, event, f"{type(event).__name__} follows the package")
        if not isinstance(event, _AFTER_PACKAGE):
            self.report("LEG-PCP-025", channel, event, f"{type(event).__name__} behind the package")

    def _start(self, channel: str, event: SectionStart) -> None:
        self.started = True

    def _advise(self, channel: str, event: PostcopyAdvise | PostcopyAdviseEmpty) -> None:
        if self.advised is not None or self.started:
            text = "ADVISE comes again" if self.advised is not None else "ADVISE behind a START"
            self.report("LEG-PCP-001", channel, event, text)
        self.advised = event
        ram = isinstance(event, PostcopyAdvise)
        self.facts.seen.add("postcopy-ram" if ram else "dirty-bitmaps")
        given = self.facts.known.capabilities
        if given is not None and ram is not ("postcopy-ram" in given):
            text = f"ADVISE of {event.length} bytes, postcopy-ram is {'off' if ram else 'on'}"
            self.report("LEG-PCP-002", channel, event, text)
        if isinstance(event, PostcopyAdvise) and not event.page_sizes:
            self.report("LEG-PCP-003", channel, event, "ADVISE names no page size")

    def _block(self, channel: str, event: RamBlockEntry) -> None:
        self.blocks[event.idstr] = event
        if event.page_size is None or not isinstance(self.advised, PostcopyAdvise):
            return
        if not event.page_size & self.advised.page_sizes:
            text = f"page size {event.page_size:#x} of {event.idstr!a} is not among those of ADVISE"
            self.report("LEG-PCP-003", channel, event, text)

    def _pages(self, channel: str, event: RamPages) -> None:
        advised = self.advised
        if self.page_size == event.page_size:
            return
        self.page_size = event.page_size
        if isinstance(advised, PostcopyAdvise) and advised.target_page_size != event.page_size:
            text = f"ADVISE says {advised.target_page_size}, pages are {event.page_size} bytes"
            self.report("LEG-PCP-003", channel, event, text)

    def _discard(self, channel: str, event: PostcopyRamDiscard) -> None:
        if not 1 <= len(event.ranges) <= MAX_RANGES:
            self.report("LEG-PCP-010", channel, event, f"{len(event.ranges)} ranges")
        block = self.blocks.get(event.block)
        if block is None:
            self.report("LEG-PCP-011", channel, event, f"block {event.block!a} is not in the list")
            return
        page = block.page_size or self.page_size or 1
        for start, length in event.ranges:
            if not length or start + length > block.used_length or start % page or length % page:
                text = f"range {start:#x}+{length:#x} of {event.block!a} ({block.used_length:#x} bytes)"
                self.report("LEG-PCP-011", channel, event, text)

    def _package(self, channel: str, event: Packaged) -> None:
        self.nesting += 1
        if self.nesting > 1:
            return
        if self.advised is None:
            self.report("LEG-PCP-001", channel, event, "postcopy without ADVISE")
        elif isinstance(self.advised, PostcopyAdvise):
            last = self.last
            if not (isinstance(last, Ping) and last.value == 2):
                self.report("LEG-PCP-012", channel, event, "PING 2 does not stand before it")
        self.packaged, self.package, self.items = event, set(), 0

    def _ping(self, channel: str, event: Ping) -> None:
        if self.nesting:
            self.package |= {event.value} & {PING_DEVICES_SENT, PING_PACKAGE_LOADED}

    def _run(self, channel: str, event: PostcopyRun) -> None:
        if not self.nesting:
            return
        if PING_DEVICES_SENT not in self.package and isinstance(self.advised, PostcopyAdvise):
            self.report("LEG-PCP-021", channel, event, "no PING 3 before RUN")
        if PING_PACKAGE_LOADED not in self.package:
            self.report("LEG-PCP-026", channel, event, "no PING 0x42 before RUN")
        else:
            self.facts.since((10, 2))

    def _package_end(self, channel: str, event: PackageEnd) -> None:
        self.nesting -= 1
        if self.nesting:
            return
        if not isinstance(self.last, PostcopyRun):
            self.report("LEG-PCP-020", channel, event, "the package does not end with RUN")
        self.after = True
        self.last = self.packaged

    def _trailing(self, channel: str, event: TrailingBytes) -> None:
        if self.nesting:
            self.report("LEG-PCP-023", channel, event, f"{len(event.data)} bytes behind RUN")

    def _recv_bitmap(self, channel: str, event: RecvBitmap) -> None:
        wrong = event.block not in self.blocks or event.block in self.asked
        if wrong or self.recovery is None or self.resumed:
            self.report("LEG-PCP-040", channel, event, f"RECV_BITMAP of {event.block!a}")
        self.asked.add(event.block)

    def _resume(self, channel: str, event: PostcopyResume) -> None:
        if self.recovery is None or self.resumed:
            self.report("LEG-PCP-041", channel, event, "RESUME comes again, or outside a recovery")
            return
        self.resumed = True
        for name in self.blocks.keys() - self.asked:
            self.report("LEG-PCP-040", channel, event, f"no RECV_BITMAP of {name!a} before it")

    def _live(self, channel: str, event: SectionPart | SectionEnd) -> None:
        if self.recovery is not None and not self.resumed:
            self.report("LEG-PCP-042", channel, event, "a live section before RESUME")
