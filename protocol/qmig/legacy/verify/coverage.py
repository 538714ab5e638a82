"""Every page at least once: pages of all channels against the block list (spec chapters 40 and 58)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, Final

from qmig._wire import Record
from qmig.errors import LocalProtocolError
from qmig.legacy import xbzrle
from qmig.legacy.channels import parse_name
from qmig.legacy.commands import PostcopyRamDiscard
from qmig.legacy.multifd import MultifdHello, MultifdPacket
from qmig.legacy.pageset import Budget, Ledger
from qmig.legacy.ram import RamBlockEntry, RamDeltas, RamFlag, RamPages
from qmig.legacy.returnpath import RpReqPages, RpReqPagesId
from qmig.legacy.sections import SectionFull, SectionStart
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.rules import Rule, When

#: Devices whose guest driver may say that pages need not be sent.
HINTING: Final = frozenset({"virtio-balloon", "virtio-mem", "virtio-mem-device-early"})


def _complete(facts: Facts) -> bool | None:
    if "eof" not in facts.seen or facts.capability("mapped-ram") or "colo" in facts.seen:
        return False
    return None if facts.seen & {"hints", "partial"} else True


def _answered(facts: Facts) -> bool | None:
    return None if "partial" in facts.seen else "eof" in facts.seen


class CoverageChecker(Checker):
    """Counts pages as bits."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            requirement="LEG-RAM-052",
            title="every page of every block is sent, and again after its discard",
            when=When("complete recordings of all channels, without free-page hints", _complete),
        ),
        Rule(
            requirement="LEG-RAM-054", title="XBZRLE only for pages that were sent before", about=(RamDeltas,)
        ),
        Rule(
            requirement="LEG-RAM-036",
            title="a difference is well-formed and stays in its page",
            about=(RamDeltas,),
        ),
        Rule(
            requirement="LEG-RAM-037",
            title="a compressed page unpacks to one page",
            about=(RamDeltas,),
        ),
        Rule(requirement="LEG-MAP-023", title="with mapped-ram there are no page records"),
        Rule(
            requirement="LEG-PCP-031",
            title="every requested page is sent",
            about=(RpReqPages, RpReqPagesId),
            when=When("complete recordings of all channels", _answered),
        ),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.budget = Budget()
        self.sent = Ledger(self.budget)
        self.requested = Ledger(self.budget)
        self.blocks: dict[str, tuple[str, RamBlockEntry]] = {}
        self.page_size: int | None = None
        self.asked: dict[str, str] = {}  # return path -> block of the last request
        self.any = False
        self.normal = False  # page contents on main
        self.preempt = False
        self.hellos: set[int] = set()
        self.numbers = (-1, 0)  # highest packet_num, and how many packets

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            SectionStart: self._device,
            SectionFull: self._device,
            RamBlockEntry: self._block,
            RamPages: self._pages,
            RamDeltas: self._deltas,
            MultifdHello: self._hello,
            MultifdPacket: self._packet,
            PostcopyRamDiscard: self._discard,
            RpReqPagesId: self._request,
            RpReqPages: self._request,
        }

    def _device(self, channel: str, event: SectionStart | SectionFull) -> None:
        if event.idstr.rpartition("/")[2] in HINTING:
            self.facts.seen.add("hints")

    def _block(self, channel: str, event: RamBlockEntry) -> None:
        self.blocks[event.idstr] = (channel, event)

    def _pages(self, channel: str, event: RamPages) -> None:
        page = event.page_size
        scale = self._scale(page)
        self.any = True
        self.normal = self.normal or bool(event.normal)
        self.preempt = self.preempt or parse_name(channel).kind == "preempt"
        if self.facts.capability("mapped-ram"):
            self.report("LEG-MAP-023", channel, event, f"pages of {event.block!a} in a mapped-ram stream")
        sent = self.sent[event.block]
        if event.consecutive:
            sent.add(event.ascents[0].first // page * scale, (event.normal + event.zero) * scale)
            return
        first = count = 0
        for _, address, length, _ in event.runs():
            if address != (first + count) * page:
                sent.add(first * scale, count * scale)
                first, count = address // page, 0
            count += length
        sent.add(first * scale, count * scale)

    def _scale(self, page: int) -> int:
        """How many of the pages that are counted make one of this size.

        A reader that was not told the target page size may find it late, and smaller than it took it to be
        while only zero pages came. What was counted until then is counted anew."""
        if self.page_size is None:
            self.page_size = page
        elif page < self.page_size:
            factor = self.page_size // page
            for ledger in (self.sent, self.requested):
                ledger.rescale(factor)
            self.page_size = page
        return page // self.page_size

    def _deltas(self, channel: str, event: RamDeltas) -> None:
        scale = self._scale(event.page_size)
        sent = self.sent[event.block]
        for kind, address, payload in event.records():
            number = address // event.page_size * scale
            if kind is RamFlag.COMPRESS_PAGE:
                sent.add(number, scale)
                self.any = True
                if not _inflates(payload, event.page_size):
                    text = f"{event.block!a} {address:#x} does not unpack to a page"
                    self.report("LEG-RAM-037", channel, event, text)
                continue
            if not sent.has(number, scale) and not self.budget.exceeded:
                text = f"a difference to {event.block!a} {address:#x}, which was not sent before"
                self.report("LEG-RAM-054", channel, event, text)
            try:
                xbzrle.decode(bytes(event.page_size), payload)
            except LocalProtocolError as error:
                text = f"a difference to {event.block!a} {address:#x}: {error.message}"
                self.report("LEG-RAM-036", channel, event, text)

    def _hello(self, channel: str, event: MultifdHello) -> None:
        self.hellos.add(event.id)
        self.facts.seen.add("multifd")

    def _packet(self, channel: str, event: MultifdPacket) -> None:
        highest, count = self.numbers
        self.numbers = max(highest, event.packet_num), count + 1
        if event.pages:
            page = event.page_size
            scale = self._scale(page)
            self.any = True
            sent = self.sent[event.block]
            for offsets in (event.normal_offsets(), event.zero_offsets()):
                for first, length in ranges(offsets, page):
                    sent.add(first * scale, length * scale)

    def _discard(self, channel: str, event: PostcopyRamDiscard) -> None:
        if not self.page_size:
            return
        for start, length in event.ranges:
            first = start // self.page_size
            self.sent[event.block].discard(first, -(-(start + length) // self.page_size) - first)

    def _request(self, channel: str, event: RpReqPagesId | RpReqPages) -> None:
        if isinstance(event, RpReqPagesId):
            self.asked[channel] = event.block
        block = self.asked.get(channel)
        page = self.page_size
        if block not in self.blocks or not page:
            return
        end = event.start + event.length
        if event.start % page == 0 and event.length and end <= self.blocks[block][1].used_length:
            self.requested[block].add(event.start // page, -(-event.length // page))

    def _partial(self) -> bool:
        """Whether something may be missing from the recording that was on the wire."""
        facts = self.facts
        if not self.any or self.budget.exceeded:
            return True
        postcopy = "postcopy" in facts.seen
        if postcopy and not self.preempt and facts.capability("postcopy-preempt") is None:
            return True
        multifd = facts.capability("multifd")
        if not self.hellos and not multifd:
            # Without its channels a stream with multifd looks like one whose pages are all zero.
            return multifd is None and not self.normal
        highest, count = self.numbers
        wanted = facts.parameter("multifd-channels")
        return (len(self.hellos) != wanted if wanted is not None else False) or highest >= count

    def finish(self) -> None:
        if self._partial():
            self.facts.seen.add("partial")
            return
        page = self.page_size
        assert page is not None
        shared = self.facts.capability("x-ignore-shared") is not False
        for name, (channel, entry) in self.blocks.items():
            sent = self.sent[name]
            if not sent and shared:
                continue  # an ignored block
            missing = sent.missing(0, -(-entry.used_length // page))
            if missing is not None:
                text = f"{name!a} {missing * page:#x} is never sent, or not after its discard"
                self.report("LEG-RAM-052", channel, entry, text)
        for name, requested in self.requested.items():
            for first, count in requested.ranges():
                missing = self.sent[name].missing(first, count)
                if missing is not None:
                    channel, entry = self.blocks[name]
                    text = f"{name!a} {missing * page:#x} is requested and not sent"
                    self.report("LEG-PCP-031", channel, entry, text)


def _inflates(payload: memoryview, size: int) -> bool:
    """Whether this is a whole zlib stream of one page."""
    inflate = zlib.decompressobj()
    try:
        return len(inflate.decompress(payload, size + 1)) == size and inflate.eof
    except zlib.error:
        return False


def ranges(offsets: Sequence[int], page: int) -> Iterator[tuple[int, int]]:
    """Byte offsets as (first page, count) of consecutive ones."""
    first = count = 0
    for offset in offsets:
        number = offset // page
        if count and number == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = number, 1
    if count:
        yield first, count
