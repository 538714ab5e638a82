"""Connections: missing, extra, early, late, silent; and the packets of multifd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from qmig.legacy.header import FileHeader
from qmig.legacy.multifd import MultifdDeviceState, MultifdFlag, MultifdHello, MultifdPacket
from qmig.testing.scenarios import scenario
from qmig_conformance.hostile import ram
from qmig_conformance.hostile.plays import HEAD, Line, alone, together, with_capabilities
from qmig_conformance.hostile.script import Absent, Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Connect, End, Good, Play, Send, Settle, Step

#: two channels, no compression
SETTINGS: Final = scenario("multifd-none-2")
MULTIFD: Final = Table("multifd", SETTINGS)
CHANNELS: Final = Table("channels", SETTINGS)
PLAIN: Final = Table("channels", ram.SETTINGS)
MAIN: Final = "main"

Lines = Sequence[Line]
Arrange = Callable[["Channels"], Lines]


class Channels:
    """The three connections of a good migration, taken apart."""

    def __init__(self, good: Good) -> None:
        self.main = Line(MAIN, good.channels[MAIN])
        self.state = Script.main(good.channels[MAIN]).state
        self.zero = Line("multifd-0", good.channels["multifd-0"])
        self.one = Line("multifd-1", good.channels["multifd-1"])

    def script(self) -> Script:
        """Channel 0."""
        return Script.multifd(self.zero.data, self.state)

    def paged(self, script: Script) -> int:
        """The first packet that has pages with content."""
        for place in script.places(MultifdPacket):
            if script.record(place).normal_pages:
                return place
        raise Absent("no packet with pages on channel 0")

    def with_zero(self, data: bytes | Script) -> Lines:
        """Channel 0 is this; the others are as they were."""
        raw = data if isinstance(data, bytes) else data.data()
        return self.main, Line(self.zero.name, raw), self.one

    def with_paged(self, **values: Any) -> Lines:
        """The first packet with pages has other values."""
        script = self.script()
        place = self.paged(script)
        return self.with_zero(script.write(place, head_with(script.record(place), **values)))


def head_with(packet: MultifdPacket, **values: Any) -> bytes:
    """The packet's bytes with other values in its head or its offsets; its payload is as it was."""
    from qmig.testing.variants import parts

    found = []
    for name, raw in parts(packet):
        new = values.get(name)
        found.append(new.to_bytes(len(raw), "big") if isinstance(new, int) else new or raw)
    return b"".join(found)


def hello(number: int, *, magic: int = 0x11223344, version: int = 1, uuid: bytes = bytes(16)) -> bytes:
    """The first bytes of a channel, by default those of channel `number` of a machine without UUID."""
    raw = MultifdHello(uuid=uuid, id=number, unused1=bytes(7), unused2=bytes(32)).encode()
    return magic.to_bytes(4, "big") + version.to_bytes(4, "big") + raw[8:]


def row(
    value: str, *violates: str, table: Table = MULTIFD, multifd: bool = True
) -> Callable[[Arrange], Arrange]:
    """Declares connections, in their order. `multifd` is the destination's capability."""

    def declare(arrange: Arrange) -> Arrange:
        def make(good: Good) -> Play:
            settings = good.settings if multifd else with_capabilities(good.settings, multifd=False)
            return together(settings, *arrange(Channels(good)))

        table.add(value, make, *violates)
        return arrange

    return declare


def closed(line: Line) -> Line:
    """The connection ends behind its bytes."""
    return Line(line.name, line.data, end=True)


# -- which connections there are --------------------------------------------------------------------------


@row("multifd-control-real-channels-after-main")
def control(c: Channels) -> Lines:
    return c.main, c.zero, c.one


@row("multifd-all-channels-closed-at-the-end")
def all_closed(c: Channels) -> Lines:
    return closed(c.main), closed(c.zero), closed(c.one)


@row("multifd-channels-first-main-last", "LEG-CHN-010", table=CHANNELS)
def main_last(c: Channels) -> Lines:
    return c.zero, c.one, c.main


@row("multifd-one-channel-then-main-then-the-other", "LEG-CHN-010", table=CHANNELS)
def main_second(c: Channels) -> Lines:
    return c.zero, c.main, c.one


@row("multifd-same-hello-channel-swapped", table=CHANNELS)
def swapped(c: Channels) -> Lines:
    return c.main, c.one, c.zero


@row("multifd-only-the-main-channel-stays-open", "LEG-MFD-003", table=CHANNELS)
def only_main(c: Channels) -> Lines:
    return (c.main,)


@row("multifd-main-1-of-2-channels", "LEG-MFD-003", table=CHANNELS)
def one_missing(c: Channels) -> Lines:
    return c.main, c.zero


@row("multifd-main-2-silent-connections", "LEG-MFD-001", "LEG-CHN-001", table=CHANNELS)
def silent(c: Channels) -> Lines:
    return c.main, Line("multifd-0", b""), Line("multifd-1", b"")


@row("multifd-channels-opened-and-closed-at-once", "LEG-MFD-001", table=CHANNELS)
def opened_and_closed(c: Channels) -> Lines:
    return c.main, Line("multifd-0", b"", end=True), Line("multifd-1", b"", end=True)


@row("multifd-main-2-channels-that-only-say-hello", "LEG-MFD-056")
def only_hello(c: Channels) -> Lines:
    return c.main, Line("multifd-0", hello(0)), Line("multifd-1", hello(1))


def _extra(c: Channels, numbers: range) -> Lines:
    return c.main, c.zero, c.one, *(Line(f"multifd-{n}", hello(n)) for n in numbers)


@row("multifd-4-channels-say-hello-destination-expects-2", "LEG-CHN-015", table=CHANNELS)
def two_extra(c: Channels) -> Lines:
    return _extra(c, range(2, 4))


@row("multifd-16-channels-say-hello-destination-expects-2", "LEG-CHN-015", table=CHANNELS)
def many_extra(c: Channels) -> Lines:
    return _extra(c, range(2, 16))


@row("multifd-two-main-channels", "LEG-CHN-012", "LEG-CHN-013", "LEG-CHN-014", table=CHANNELS)
def two_mains(c: Channels) -> Lines:
    return c.main, Line("main-2", c.main.data), c.zero, c.one


@row("multifd-main-cut-at-its-header-channels-good", "LEG-HDR-003")
def main_cut(c: Channels) -> Lines:
    script = Script.main(c.main.data)
    return Line(MAIN, script.before(script.find(FileHeader) + 1), end=True), c.zero, c.one


def _plain_to_multifd(good: Good) -> Play:
    settings = with_capabilities(good.settings, multifd=True)
    return alone(settings, good.channels[MAIN])


PLAIN.add("multifd-destination-plain-stream", _plain_to_multifd, "LEG-MFD-003")


@row("multifd-stream-without-its-channels-destination-has-multifd-off", "LEG-MFD-056", multifd=False)
def no_channels_wanted(c: Channels) -> Lines:
    return (closed(c.main),)


@row(
    "multifd-stream-and-channels-destination-has-multifd-off",
    "LEG-CHN-015",
    table=CHANNELS,
    multifd=False,
)
def channels_not_wanted(c: Channels) -> Lines:
    return c.main, c.zero, c.one


def _second_while_silent(good: Good) -> Play:
    steps = (Connect(MAIN), Connect("main-2"), Send("main-2", good.channels[MAIN]), End("main-2"))
    return Play(settings=good.settings, steps=steps)


PLAIN.add("second-connection-while-the-first-is-silent", _second_while_silent, "LEG-CHN-015")


def _second_main(good: Good) -> Play:
    script = Script.main(good.channels[MAIN])
    first = Line(MAIN, script.before(ram.first_part(script)))
    return together(good.settings, first, Line("main-2", good.channels[MAIN], end=True))


PLAIN.add("second-main-connection-plain", _second_main, "LEG-CHN-015", "LEG-CHN-001")


def _multifd_first(good: Good) -> Play:
    return together(good.settings, Line("multifd-0", hello(0)), Line(MAIN, good.channels[MAIN]))


PLAIN.add("non-multifd-destination-multifd-channel-first", _multifd_first, "LEG-CHN-010", "LEG-HDR-001")

# -- the hello --------------------------------------------------------------------------------------------


@row("multifd-a-high-channel-id-arrives-first", "LEG-MFD-003")
def high_id(c: Channels) -> Lines:
    return c.main, Line("multifd-7", hello(7)), c.zero, c.one


@row("multifd-id-equal-to-the-number-of-channels", "LEG-MFD-003")
def id_too_high(c: Channels) -> Lines:
    return c.main, Line("multifd-2", hello(2)), c.one


@row("multifd-hello-id-twice", "LEG-MFD-003")
def id_twice(c: Channels) -> Lines:
    return c.main, c.zero, Line("multifd-0-again", c.zero.data)


@row("multifd-hello-bad-magic", "LEG-MFD-001", "LEG-CHN-001")
def hello_magic(c: Channels) -> Lines:
    return c.with_zero(hello(0, magic=0x55667788))


@row("multifd-hello-version-9", "LEG-MFD-001")
def hello_version(c: Channels) -> Lines:
    return c.with_zero(hello(0, version=9))


@row("multifd-hello-uuid-differs", "LEG-MFD-002")
def hello_uuid(c: Channels) -> Lines:
    return c.with_zero(hello(0, uuid=b"\x77" * 16))


# -- packets ----------------------------------------------------------------------------------------------


@row("multifd-channel-cut-inside-its-first-packet", "LEG-MFD-080", "LEG-MFD-012")
def cut_in_a_packet(c: Channels) -> Lines:
    script = c.script()
    cut = script.before(script.find(MultifdPacket), 100)
    return c.main, Line(c.zero.name, cut, end=True), c.one


@row("multifd-channel-cut-in-the-middle", "LEG-MFD-080", "LEG-MFD-031")
def cut_in_the_middle(c: Channels) -> Lines:
    script = c.script()
    place = c.paged(script)
    cut = script.before(place, len(script[place].data) // 2)
    return c.main, Line(c.zero.name, cut, end=True), c.one


def _first_packet(c: Channels, **values: int) -> Lines:
    script = c.script()
    place = script.find(MultifdPacket)
    return c.with_zero(script.write(place, head_with(script.record(place), **values)))


@row("multifd-packet-bad-magic", "LEG-MFD-010")
def packet_magic(c: Channels) -> Lines:
    return _first_packet(c, magic=1)


@row("multifd-packet-version-7", "LEG-MFD-010")
def packet_version(c: Channels) -> Lines:
    return _first_packet(c, version=7)


@row("multifd-packet-flags-0xffffffff", "LEG-MFD-035", "LEG-MFD-034")
def packet_flags(c: Channels) -> Lines:
    return _first_packet(c, flags=0xFFFFFFFF)


@row("multifd-packet-with-100000-pages", "LEG-MFD-015")
def too_many_pages(c: Channels) -> Lines:
    return c.with_paged(normal_pages=100000)


@row("multifd-packet-of-2-gib", "LEG-MFD-033", "LEG-MFD-032")
def packet_of_2_gib(c: Channels) -> Lines:
    return c.with_paged(next_packet_size=0x7FFFFFFF)


@row("multifd-packet-unknown-ram-block", "LEG-MFD-017")
def packet_unknown_block(c: Channels) -> Lines:
    return c.with_paged(ramblock=b"nope".ljust(256, b"\0"))


def _first_offset(c: Channels, offset: int) -> Lines:
    script = c.script()
    packet = script.record(c.paged(script))
    return c.with_paged(offsets=offset.to_bytes(8, "big") + bytes(packet.offsets)[8:])


@row("multifd-packet-page-offset-beyond-the-block", "LEG-MFD-018")
def offset_beyond(c: Channels) -> Lines:
    return _first_offset(c, 1 << 40)


@row("multifd-unaligned-page-offset", "LEG-MFD-018")
def offset_unaligned(c: Channels) -> Lines:
    return _first_offset(c, 0x801)


@row("multifd-pages-alloc-0-in-a-packet-with-pages", "LEG-MFD-014")
def alloc_zero(c: Channels) -> Lines:
    return c.with_paged(pages_alloc=0)


@row("multifd-pages-alloc-129", "LEG-MFD-014")
def alloc_129(c: Channels) -> Lines:
    return c.with_paged(pages_alloc=129)


@row("multifd-zero-pages-200", "LEG-MFD-015", "LEG-MFD-011", "LEG-MFD-062")
def zero_pages_200(c: Channels) -> Lines:
    return c.with_paged(zero_pages=200)


@row("multifd-method-zlib-in-the-flags", "LEG-MFD-034", "LEG-MFD-041")
def other_method(c: Channels) -> Lines:
    return c.with_paged(flags=int(MultifdFlag.ZLIB))


@row("multifd-block-name-without-nul", "LEG-MFD-016")
def name_without_end(c: Channels) -> Lines:
    return c.with_paged(ramblock=b"A" * 256)


@row("multifd-bad-packet-all-connections-closed", "LEG-MFD-010")
def packet_magic_closed(c: Channels) -> Lines:
    return tuple(map(closed, c.with_paged(magic=1)))


# -- sync points ------------------------------------------------------------------------------------------


def _last_sync(script: Script) -> int:
    """Up to 8.2 an empty packet may follow it."""
    return max(place for place in script.places(MultifdPacket) if script.record(place).is_sync)


@row("multifd-sync-packet-missing-channel-ends-early-stays-open", "LEG-MFD-056", "LEG-MFD-052")
def sync_missing(c: Channels) -> Lines:
    script = c.script()
    return c.with_zero(script.before(_last_sync(script)))


@row("multifd-extra-sync-at-the-end", "LEG-MFD-056")
def sync_extra(c: Channels) -> Lines:
    script = c.script()
    return c.with_zero(script.put(len(script), script[_last_sync(script)].data))


def _pages_first(good: Good) -> Play:
    """Channel 0 leaves out its first SYNC, so that its pages are there before main said anything of RAM."""
    c = Channels(good)
    script = c.script()
    early = script.drop(next(p for p in script.places(MultifdPacket) if script.record(p).is_sync)).data()
    steps: list[Step] = [Connect(MAIN), Send(MAIN, c.main.data[:8])]
    for name, data in (("multifd-0", early), ("multifd-1", c.one.data)):
        steps += [Connect(name), Send(name, data[:HEAD])]
    steps += [Send("multifd-0", early[HEAD:]), Settle(), Send(MAIN, c.main.data[8:])]
    return Play(settings=good.settings, steps=(*steps, Send("multifd-1", c.one.data[HEAD:])))


MULTIFD.add("multifd-pages-before-the-block-list", _pages_first, "LEG-MFD-056", "LEG-MFD-055")


# -- device state -----------------------------------------------------------------------------------------


def _device_state(c: Channels, data: bytes) -> Lines:
    name = b"nobody".ljust(256, b"\0")
    packet = MultifdDeviceState(
        flags=int(MultifdFlag.DEVICE_STATE), idstr_field=name, instance_id=0, data=b"abcd"
    ).encode()
    wrong = packet[:-8] + len(data).to_bytes(4, "big") + data
    return c.with_zero(c.script().put(1, wrong))


@row("multifd-device-state-packet", "LEG-MFD-070", "LEG-MFD-074")
def device_state(c: Channels) -> Lines:
    return _device_state(c, b"abcd")


@row("multifd-device-state-packet-empty", "LEG-MFD-072")
def device_state_empty(c: Channels) -> Lines:
    return _device_state(c, b"")
