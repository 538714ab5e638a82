"""Multifd channels, each on its own and against main (spec chapter 60)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from qmig._wire import Record
from qmig.errors import RemoteProtocolError, UnsupportedFeature
from qmig.legacy.channels import parse_name
from qmig.legacy.commands import PostcopyListen, SwitchoverStart
from qmig.legacy.inflate import Inflater
from qmig.legacy.multifd import (
    METHODS,
    PACKET_PAGES_SIZE,
    MultifdDeviceState,
    MultifdFlag,
    MultifdHello,
    MultifdPacket,
)
from qmig.legacy.pageset import Budget, Ledger, PageSet
from qmig.legacy.ram import RamEos, RamMultifdFlush
from qmig.legacy.sync import SyncPoints
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.coverage import ranges
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.rules import By, Rule, When, before, both, seen, since

_SYNC: Final = int(MultifdFlag.SYNC)


def _detection(*modes: str) -> When:
    """Rules that follow the parameter `zero-page-detection`."""

    def test(facts: Facts) -> bool | None:
        mode = facts.parameter("zero-page-detection")
        if mode is None and facts.known.parameters is not None:
            return "legacy" in modes  # versions without the parameter
        return None if mode is None else mode in modes

    return When(f"zero-page-detection {' or '.join(modes)}", test)


_ENDED: Final = both(
    seen("eof", "complete recordings"),
    When("all channels recorded", lambda facts: None if "partial" in facts.seen else True),
)


class _Channel:
    """One multifd channel."""

    def __init__(self) -> None:
        self.hello: MultifdHello | None = None
        self.syncs = 0
        self.paged = -1  # SYNCs before the last packet with pages
        self.number = -1  # highest packet_num so far
        self.method: int | None = None
        self.inflater: Inflater | None = Inflater()
        self.last: tuple[str, Record] | None = None


class MultifdChecker(Checker):
    """Packets: their form, their order, their numbers, and who waits for whom."""

    about = (MultifdHello, MultifdPacket, MultifdDeviceState)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-MFD-001", title="a channel begins with 64 bytes; unused ones are zeros"),
        Rule(requirement="LEG-MFD-002", title="all channels, and the configuration, have the same UUID"),
        Rule(requirement="LEG-MFD-003", title="the channels are numbered from 0, each number once"),
        Rule(requirement="LEG-MFD-010", title="packets begin with magic and version", by=By.READER),
        Rule(requirement="LEG-MFD-014", title="pages_alloc is 524288 / page size with pages"),
        Rule(requirement="LEG-MFD-015", title="not more pages than pages_alloc", by=By.READER),
        Rule(requirement="LEG-MFD-016", title="the block's name ends with NUL", by=By.READER),
        Rule(requirement="LEG-MFD-017", title="the block is in main's list", by=By.READER),
        Rule(requirement="LEG-MFD-018", title="offsets are aligned and inside the block", by=By.READER),
        Rule(requirement="LEG-MFD-019", title="no offset twice in a packet"),
        Rule(
            requirement="LEG-MFD-020",
            title="behind the offsets in use there are zeros",
            when=since((9, 2)),
        ),
        Rule(requirement="LEG-MFD-021", title="unused words are zero"),
        Rule(requirement="LEG-MFD-022", title="packet_num grows on each channel"),
        Rule(
            requirement="LEG-MFD-031",
            title="the payload of uncompressed pages is announced with its size",
            when=since((9, 0)),
        ),
        Rule(
            requirement="LEG-MFD-033",
            title="next_packet_size is 0 without normal pages",
            when=since((9, 2)),
        ),
        Rule(requirement="LEG-MFD-034", title="the method of compression is known and does not change"),
        Rule(requirement="LEG-MFD-035", title="a packet without pages has no method of compression"),
        Rule(requirement="LEG-MFD-046", title="a payload makes exactly its pages"),
        Rule(requirement="LEG-MFD-050", title="a SYNC packet is pure", when=since((9, 2))),
        Rule(
            requirement="LEG-MFD-056",
            title="each channel has one SYNC for each sync point on main",
            when=_ENDED,
        ),
        Rule(
            requirement="LEG-MFD-057",
            title="two copies of a page are separated by a SYNC",
            known_defect=before((9, 0)),
        ),
        Rule(
            requirement="LEG-MFD-059",
            title="no pages on multifd channels in postcopy",
            when=both(_ENDED, seen("postcopy", "postcopy")),
        ),
        Rule(
            requirement="LEG-MFD-061",
            title="no zero pages in packets with legacy zero-page-detection",
            when=_detection("legacy"),
        ),
        Rule(
            requirement="LEG-MFD-063",
            title="no zero pages in packets without zero-page-detection",
            when=_detection("none"),
        ),
        Rule(
            requirement="LEG-MFD-070",
            title="device-state packets from 10.0 on",
            about=(MultifdDeviceState,),
            when=before((10, 0)),
        ),
        Rule(
            requirement="LEG-MFD-074",
            title="no device-state packet in a stream without SWITCHOVER_START",
            about=(MultifdDeviceState,),
            when=both(seen("eof", "complete recordings"), since((10, 0))),
        ),
        Rule(
            requirement="LEG-CHN-010",
            title="main is connected before the other channels",
            by=By.NOBODY,
            why_not="a recording does not say when its connections were made",
        ),
        Rule(
            requirement="LEG-MFD-080",
            title="a channel ends between two packets",
            by=By.NOBODY,
            why_not="a cut channel is reported with the statement of the record that is cut",
        ),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.channels: dict[str, _Channel] = {}
        self.points: dict[int, SyncPoints] = {}
        self.budget = Budget()
        self.epochs: dict[int, Ledger] = {}
        self.numbers = PageSet(self.budget)
        self.listening = False
        self.switched = False
        self.states: list[tuple[str, Record]] = []

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            MultifdHello: self._hello,
            MultifdPacket: self._packet,
            MultifdDeviceState: self._device_state,
            RamEos: self._main,
            RamMultifdFlush: self._main,
            PostcopyListen: self._main,
            SwitchoverStart: self._switchover,
        }

    def _main(self, channel: str, event: Record) -> None:
        name = parse_name(channel)
        if name.kind != "main":
            return
        points = self.points.setdefault(name.connection, SyncPoints())
        if points.see(event):
            # In the order of a session, what was sent before the last point has been told.
            for number in [epoch for epoch in self.epochs if epoch < points.reached - 1]:
                self.budget.left += self.epochs.pop(number).pieces()

    def _switchover(self, channel: str, event: SwitchoverStart) -> None:
        self.switched = True

    def _hello(self, channel: str, event: MultifdHello) -> None:
        self.facts.seen.add("multifd")
        own = self.channels.setdefault(channel, _Channel())
        connection = parse_name(channel).connection
        others = [
            other.hello
            for name, other in self.channels.items()
            if other.hello is not None and parse_name(name).connection == connection
        ]
        own.hello, own.last = event, (channel, event)
        if any(event.unused1) or any(event.unused2):
            self.report("LEG-MFD-001", channel, event, "unused bytes are not zero")
        if others and others[0].uuid != event.uuid:
            self.report("LEG-MFD-002", channel, event, "its UUID is not that of the other channels")
        if event.id in [other.id for other in others]:
            self.report("LEG-MFD-003", channel, event, f"id {event.id} is used by another channel")

    def _packet(self, channel: str, event: MultifdPacket) -> None:
        own = self.channels.setdefault(channel, _Channel())
        own.last = (channel, event)
        self._form(channel, event)
        self._number(channel, event, own)
        if event.pages:
            own.paged = own.syncs
            self._method(channel, event, own)
            self._copies(channel, event, own)
        if event.flags & _SYNC:
            own.syncs += 1

    def _form(self, channel: str, event: MultifdPacket) -> None:
        if any(event.unused):
            self.report("LEG-MFD-021", channel, event, "unused words are not zero")
        if event.pages and event.pages_alloc != PACKET_PAGES_SIZE // event.page_size:
            self.report("LEG-MFD-014", channel, event, f"pages_alloc is {event.pages_alloc}")
        if event.method and not event.pages:
            self.report("LEG-MFD-035", channel, event, f"method {event.method_name} without pages")
        if any(memoryview(event.offsets)[8 * event.pages :]):
            self.report("LEG-MFD-020", channel, event, "offsets behind those in use")
        if event.next_packet_size != len(event.payload):
            size = event.next_packet_size
            if event.normal_pages:
                text = f"next_packet_size is {size}, the payload {len(event.payload)} bytes"
                self.report("LEG-MFD-031", channel, event, text)
            else:
                self.report("LEG-MFD-033", channel, event, f"next_packet_size is {size} without pages")
        if event.flags & _SYNC and not self._pure(event):
            self.report("LEG-MFD-050", channel, event, "a SYNC packet with more than its number")
        if event.zero_pages:
            self.facts.since((9, 0))
            text = f"{event.zero_pages} zero pages in a packet"
            self.report("LEG-MFD-061", channel, event, text)
            self.report("LEG-MFD-063", channel, event, text)

    @staticmethod
    def _pure(event: MultifdPacket) -> bool:
        rest = event.pages_alloc or event.pages or event.next_packet_size or any(event.ramblock)
        return event.flags == _SYNC and not rest

    def _number(self, channel: str, event: MultifdPacket, own: _Channel) -> None:
        # Up to 8.x an empty packet may repeat the number of the SYNC packet before it.
        repeat = not event.pages and not event.flags and event.packet_num == own.number
        if event.packet_num <= own.number and not repeat:
            text = f"packet_num {event.packet_num} behind {own.number}"
            self.report("LEG-MFD-022", channel, event, text)
        elif not repeat and self.numbers.add(event.packet_num, 1):
            text = f"packet_num {event.packet_num} is used on another channel"
            self.report("LEG-MFD-022", channel, event, text)
        own.number = max(own.number, event.packet_num)

    def _method(self, channel: str, event: MultifdPacket, own: _Channel) -> None:
        if event.method not in METHODS:
            self.report("LEG-MFD-034", channel, event, f"method {event.method:#x} is not known")
        if own.method is None:
            own.method = event.method
            wanted = self.facts.parameter("multifd-compression")
            methods = {other.method for other in self.channels.values() if other.method is not None}
            if len(methods) > 1 or wanted not in (None, event.method_name):
                self.report("LEG-MFD-034", channel, event, f"method {event.method_name} here")
        elif own.method != event.method:
            self.report("LEG-MFD-034", channel, event, f"method {event.method_name} now")
        if own.inflater is not None and event.method and event.normal_pages:
            try:
                own.inflater.pages(event)
            except UnsupportedFeature:
                own.inflater = None
            except RemoteProtocolError as error:
                own.inflater = None
                self.report("LEG-MFD-046", channel, event, error.message)

    def _copies(self, channel: str, event: MultifdPacket, own: _Channel) -> None:
        epoch = self.epochs.setdefault(own.syncs, Ledger(self.budget))
        offsets = event.normal_offsets()
        offsets.extend(event.zero_offsets())
        if len(set(offsets)) < len(offsets):
            self.report("LEG-MFD-019", channel, event, f"a page of {event.block!a} is twice in it")
            return
        pages = epoch[event.block]
        again = False
        for first, count in ranges(offsets, event.page_size):
            again = pages.add(first, count) or again
        if again:
            text = f"a page of {event.block!a} was sent before, with no SYNC since"
            self.report("LEG-MFD-057", channel, event, text)

    def _device_state(self, channel: str, event: MultifdDeviceState) -> None:
        own = self.channels.setdefault(channel, _Channel())
        own.last = (channel, event)
        self.report("LEG-MFD-070", channel, event, "a device-state packet")
        if not self.states:
            self.states.append((channel, event))

    def finish(self) -> None:
        if self.states and not self.switched:
            self.report("LEG-MFD-074", *self.states[0], "a device-state packet, and no SWITCHOVER_START")
        self._gaps()
        for channel, own in self.channels.items():
            if own.hello is not None and self.facts.uuid not in (None, own.hello.uuid):
                self.report("LEG-MFD-002", channel, own.hello, "its UUID is not that of the configuration")
            points = self.points.get(parse_name(channel).connection)
            if points is None or own.last is None:
                continue
            if points.postcopy and own.paged >= points.precopy:
                self.report("LEG-MFD-059", *own.last, "pages behind the last sync point of precopy")
            if points.precopy <= own.syncs <= points.reached:
                continue
            text = f"{own.syncs} SYNC packets, main has {points.reached} sync points"
            self.report("LEG-MFD-056", *own.last, text)

    def _gaps(self) -> None:
        found: dict[int, dict[int, tuple[str, MultifdHello]]] = {}
        for name, own in self.channels.items():
            if own.hello is not None:
                found.setdefault(parse_name(name).connection, {})[own.hello.id] = (name, own.hello)
        wanted = self.facts.parameter("multifd-channels")
        for ids in found.values():
            top = max(ids)
            if len(ids) <= top or (wanted is not None and top >= wanted):
                text = f"id {top} of {len(ids)} channels"
                self.report("LEG-MFD-003", *ids[top], text)
