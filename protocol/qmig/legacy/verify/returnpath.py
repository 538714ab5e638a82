"""What the destination answers (spec chapter 55)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import ClassVar, Final

from qmig._wire import Record
from qmig.legacy.channels import parse_name
from qmig.legacy.commands import Ping, PostcopyAdvise, PostcopyResume, RecvBitmap
from qmig.legacy.ram import RamBlockEntry, RamPages
from qmig.legacy.returnpath import (
    RpPong,
    RpRecvBitmap,
    RpReqPages,
    RpReqPagesId,
    RpResumeAck,
    RpShut,
    RpSwitchoverAck,
    RpUnknown,
)
from qmig.legacy.sections import SectionStart
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.findings import Severity
from qmig.legacy.verify.rules import By, Rule, both, capability, migration_property

#: Different PING and PONG values that are counted; sources use five.
VALUES: Final = 1024

_NO_ORDER: Final = "a recording shows neither the order between directions nor how a side reacts"
_REQUESTS: Final = (RpReqPages, RpReqPagesId)
_RECOVERY: Final = (RecvBitmap, PostcopyResume, RpRecvBitmap, RpResumeAck)


class _Path:
    """One return path, and what was asked on the main channel of its connection."""

    def __init__(self) -> None:
        self.shut: RpShut | None = None
        self.last: tuple[str, Record] | None = None
        self.pings: Counter[int] = Counter()
        self.pongs: Counter[int] = Counter()
        self.asked: Counter[str] = Counter()
        self.bitmaps: Counter[str] = Counter()
        self.resumes = 0
        self.acks = 0
        self.block: str | None = None
        self.page_requests = False
        self.switchover_acks: list[tuple[str, Record]] = []


class ReturnPathChecker(Checker):
    """Answers against what they answer, by counts: a recording shows no order between directions."""

    about = (RpPong, RpShut, RpReqPages, RpReqPagesId, RpRecvBitmap, RpResumeAck, RpSwitchoverAck, RpUnknown)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-RPM-002", title="a payload has at most 512 bytes", by=By.READER),
        Rule(requirement="LEG-RPM-003", title="messages have a known number"),
        Rule(requirement="LEG-RPM-004", title="a message's length is that of its number", by=By.READER),
        Rule(requirement="LEG-RPM-010", title="SHUT carries 0 or 1"),
        Rule(requirement="LEG-RPM-011", title="SHUT is the last message, and comes once"),
        Rule(
            requirement="LEG-RPM-014",
            title="the destination reports no failure",
            severity=Severity.NOTE,
        ),
        *(
            Rule(requirement=requirement, title=title, by=By.NOBODY, why_not=_NO_ORDER)
            for requirement, title in (
                ("LEG-RPM-012", "SHUT 0 comes after all device state was loaded"),
                ("LEG-RPM-013", "the source takes SHUT 0 as the only report of success"),
                ("LEG-RPM-021", "the source takes PONGs in any order"),
                ("LEG-RPM-034", "the source fails on REQ_PAGES before any REQ_PAGES_ID"),
                ("LEG-RPM-045", "the source fails on a bitmap of another size"),
            )
        ),
        Rule(requirement="LEG-RPM-020", title="each PING is answered by one PONG of its value"),
        Rule(requirement="LEG-RPM-032", title="a request asks for one host page", about=_REQUESTS),
        Rule(
            requirement="LEG-RPM-033",
            title="the first request of a connection names its block",
            about=_REQUESTS,
        ),
        Rule(requirement="LEG-RPM-035", title="a request lies inside a block of the list", about=_REQUESTS),
        Rule(requirement="LEG-RPM-040", title="each RECV_BITMAP command is answered once", about=_RECOVERY),
        Rule(
            requirement="LEG-RPM-042",
            title="a bitmap has one bit for each page of its block",
            about=_RECOVERY,
        ),
        Rule(
            requirement="LEG-RPM-043",
            title="a bitmap ends with its end mark",
            by=By.NOBODY,
            why_not="the reader reports another one as LEG-RPM-040",
        ),
        Rule(requirement="LEG-RPM-050", title="RESUME_ACK carries 1", about=_RECOVERY),
        Rule(
            requirement="LEG-RPM-051",
            title="RESUME_ACK answers RESUME, before any page request",
            about=_RECOVERY,
        ),
        Rule(
            requirement="LEG-RPM-061",
            title="one SWITCHOVER_ACK with switchover-ack-legacy",
            when=both(
                capability("switchover-ack", on=True),
                migration_property("switchover-ack-legacy", on=True),
            ),
        ),
        Rule(
            requirement="LEG-RPM-062",
            title="no SWITCHOVER_ACK with no device that asks for one",
            when=both(
                capability("switchover-ack", on=True),
                migration_property("switchover-ack-legacy", on=False),
            ),
        ),
        Rule(
            requirement="LEG-RPM-063",
            title="no SWITCHOVER_ACK without the capability",
            severity=Severity.WARNING,
            when=capability("switchover-ack", on=False),
        ),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.paths: dict[int, _Path] = {}
        self.blocks: dict[str, RamBlockEntry] = {}
        self.page_size: int | None = None
        self.approving = False  # a device that may ask for an acknowledgement

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            Ping: self._ping,
            PostcopyAdvise: self._advise,
            RecvBitmap: self._recv_bitmap,
            PostcopyResume: self._resume,
            RamBlockEntry: self._block,
            RamPages: self._pages,
            SectionStart: self._start,
            RpPong: self._pong,
            RpShut: self._shut,
            RpReqPagesId: self._request,
            RpReqPages: self._request,
            RpRecvBitmap: self._bitmap,
            RpResumeAck: self._resume_ack,
            RpSwitchoverAck: self._switchover_ack,
            RpUnknown: self._unknown,
        }

    def _path(self, channel: str) -> _Path:
        return self.paths.setdefault(parse_name(channel).connection, _Path())

    def _ping(self, channel: str, event: Ping) -> None:
        path = self._path(channel)
        if len(path.pings) < VALUES:
            path.pings[event.value] += 1

    def _advise(self, channel: str, event: PostcopyAdvise) -> None:
        self.page_size = event.target_page_size

    def _recv_bitmap(self, channel: str, event: RecvBitmap) -> None:
        if event.block in self.blocks:
            self._path(channel).asked[event.block] += 1

    def _resume(self, channel: str, event: PostcopyResume) -> None:
        self._path(channel).resumes += 1

    def _block(self, channel: str, event: RamBlockEntry) -> None:
        self.blocks[event.idstr] = event

    def _pages(self, channel: str, event: RamPages) -> None:
        self.page_size = event.page_size

    def _start(self, channel: str, event: SectionStart) -> None:
        # Live handlers that are devices have a qdev path; ram, block and dirty-bitmap have none.
        self.approving = self.approving or "/" in event.idstr

    def _message(self, channel: str, event: Record) -> _Path:
        path = self._path(channel)
        if path.shut is not None:
            self.report("LEG-RPM-011", channel, event, f"{type(event).__name__} behind SHUT")
        path.last = (channel, event)
        return path

    def _pong(self, channel: str, event: RpPong) -> None:
        path = self._message(channel, event)
        if len(path.pongs) < VALUES:
            path.pongs[event.value] += 1

    def _shut(self, channel: str, event: RpShut) -> None:
        self._message(channel, event).shut = event
        if event.value > 1:
            self.report("LEG-RPM-010", channel, event, f"SHUT {event.value:#x}")
        elif event.value:
            self.report("LEG-RPM-014", channel, event, "the destination says that the load failed")

    def _request(self, channel: str, event: RpReqPagesId | RpReqPages) -> None:
        path = self._message(channel, event)
        path.page_requests = True
        if isinstance(event, RpReqPagesId):
            path.block = event.block
        elif path.block is None:
            self.report("LEG-RPM-033", channel, event, "no request named a block before")
            return
        block = self.blocks.get(path.block or "")
        if block is None or event.start + event.length > block.used_length:
            text = f"{path.block!a} {event.start:#x}+{event.length:#x} is not in the list, or behind its end"
            self.report("LEG-RPM-035", channel, event, text)
            return
        smallest = block.page_size or self.page_size or 1
        exact = block.page_size in (None, event.length)
        if not exact or event.length < smallest or event.length & (event.length - 1):
            self.report("LEG-RPM-032", channel, event, f"length {event.length:#x}, page size {smallest:#x}")
        elif event.start % event.length:
            self.report("LEG-RPM-032", channel, event, f"start {event.start:#x} is not aligned")

    def _bitmap(self, channel: str, event: RpRecvBitmap) -> None:
        path = self._message(channel, event)
        block = self.blocks.get(event.block)
        if block is None:
            self.report("LEG-RPM-040", channel, event, f"block {event.block!a} is not in the list")
            return
        path.bitmaps[event.block] += 1
        if self.page_size:
            wanted = (block.used_length // self.page_size + 63) // 64 * 8
            if len(event.bitmap) != wanted:
                text = f"bitmap of {event.block!a} is {len(event.bitmap)} bytes, expected {wanted}"
                self.report("LEG-RPM-042", channel, event, text)

    def _resume_ack(self, channel: str, event: RpResumeAck) -> None:
        path = self._message(channel, event)
        path.acks += 1
        if event.value != 1:
            self.report("LEG-RPM-050", channel, event, f"RESUME_ACK {event.value:#x}")
        if path.page_requests:
            self.report("LEG-RPM-051", channel, event, "RESUME_ACK behind a page request")

    def _switchover_ack(self, channel: str, event: RpSwitchoverAck) -> None:
        path = self._message(channel, event)
        path.switchover_acks.append((channel, event))
        self.report("LEG-RPM-063", channel, event, "SWITCHOVER_ACK")
        if len(path.switchover_acks) > 1:
            self.report("LEG-RPM-061", channel, event, "SWITCHOVER_ACK comes again")

    def _unknown(self, channel: str, event: RpUnknown) -> None:
        self._message(channel, event)
        self.report("LEG-RPM-003", channel, event, f"message {event.header_type}")

    def finish(self) -> None:
        for path in self.paths.values():
            if path.last is not None:
                self._count(path, *path.last)

    def _count(self, path: _Path, channel: str, last: Record) -> None:
        """Questions against answers. Without SHUT 0 the connection broke, and some may be missing."""
        whole = path.shut is not None and path.shut.value == 0
        for value, count in path.pongs.items():
            if count > path.pings[value]:
                self.report("LEG-RPM-020", channel, last, f"PONG {value:#x} without its PING")
        for block, count in path.bitmaps.items():
            if count > path.asked[block]:
                self.report("LEG-RPM-040", channel, last, f"the bitmap of {block!a} was not asked for")
        if path.acks > path.resumes:
            self.report("LEG-RPM-051", channel, last, "RESUME_ACK without RESUME, or again")
        if not self.approving and path.switchover_acks:
            self.report("LEG-RPM-062", *path.switchover_acks[0], "SWITCHOVER_ACK, and no device asks for it")
        if whole:
            self._unanswered(path, channel, last)

    def _unanswered(self, path: _Path, channel: str, last: Record) -> None:
        for value, count in path.pings.items():
            if count > path.pongs[value]:
                self.report("LEG-RPM-020", channel, last, f"PING {value:#x} is not answered")
        for block, count in path.asked.items():
            if count > path.bitmaps[block]:
                self.report("LEG-RPM-040", channel, last, f"the bitmap of {block!a} is not sent")
        if path.resumes > path.acks:
            self.report("LEG-RPM-051", channel, last, "RESUME is not answered")
        if not path.switchover_acks:
            self.report("LEG-RPM-061", channel, last, "no SWITCHOVER_ACK came")
