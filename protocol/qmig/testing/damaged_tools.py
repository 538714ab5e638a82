"""Small changes to the migrations of `qmig.testing.migrations`, one at a time."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qmig._wire import Record
from qmig.legacy import commands as cmd
from qmig.legacy import header as hdr
from qmig.legacy import multifd as mfd
from qmig.legacy import ram
from qmig.legacy import returnpath as rp
from qmig.legacy import sections as sec
from qmig.legacy.mappedram import MappedRamHeader
from qmig.testing import migrations as m
from qmig.testing.migrations import PAGE, Story


def header(story: Story, machine: str) -> Story:
    return story.change(story.at(hdr.Configuration), machine=machine)


def subsection(story: Story, name: str, body: Record) -> Story:
    return story.add(story.at(hdr.Configuration) + 1, hdr.Subsection(name=name, version_id=1), body)


def capabilities(story: Story, *names: str) -> Story:
    body = hdr.ConfigurationCapabilities(capabilities=names)
    return subsection(story, "configuration/capabilities", body)


def uuid(story: Story, value: bytes = m.UUID) -> Story:
    return subsection(story, "configuration/uuid", hdr.ConfigurationUuid(uuid=value))


def knowing(story: Story, **values: Any) -> Story:
    story.known = replace(story.known, **values)
    return story


def described(story: Story, edit: Callable[[dict[str, Any]], object]) -> Story:
    tree = m.description()
    edit(tree)
    return story.change(story.at(sec.VmDescription), json=json.dumps(tree).encode())


def body(story: Story, idstr: str, data: bytes) -> Story:
    return story.change(story.at(sec.SectionFull, idstr=idstr) + 1, data=data)


def rename(story: Story, old: str, /, **values: Any) -> Story:
    return story.change(story.at(sec.SectionFull, idstr=old), **values)


def section(story: Story, idstr: str) -> Story:
    """Another live handler in the setup phase, with its END."""
    start = sec.SectionStart(section_id=8, idstr=idstr, instance_id=0, version_id=1)
    footer = sec.SectionFooter(section_id=8)
    story.add(story.at(sec.SectionEnd), sec.SectionEnd(section_id=8), footer)
    return story.add(story.at(sec.SectionStart), start, footer)


def early(story: Story) -> Story:
    known = header(knowing(story, version=(7, 2)), "pc-q35-7.2").drop(story.at(cmd.SwitchoverStart))
    known.add(story.at(sec.SectionStart), *m.full(7, "early", 0, 1, bytes(1)))
    tree = m.description(configuration=False)
    field = {"name": "f", "type": "uint8", "size": 1}
    row = {"name": "early", "instance_id": 0, "version": 1, "fields": [field]}
    tree["devices"].insert(0, row)
    return story.change(story.at(sec.VmDescription), json=json.dumps(tree).encode())


def isapc() -> Story:
    """7.2: two sections of one name, and the description of both."""
    story = header(m.xbzrle(), "isapc")
    again = list(m.full(20, "isa-ide", 0, 1, bytes(1))), list(m.full(21, "isa-ide", 0, 1, bytes(1)))
    story.add(story.at(sec.EndOfFile), *again[0], *again[1])
    tree = m.description(configuration=False)
    field = {"name": "f", "type": "uint8", "size": 1}
    tree["devices"] += [{"name": "isa-ide", "instance_id": 0, "version": 1, "fields": [field]}] * 2
    return story.change(story.at(sec.VmDescription), json=json.dumps(tree).encode())


def without_last_section(story: Story) -> Story:
    """The END of ram, with what is in it."""
    at = story.at(sec.SectionEnd)
    stop = story.at(sec.SectionFull)
    return story.drop(at, stop - at)


def twice(story: Story, idstr: str) -> Story:
    rename(story, "timer", idstr=idstr)
    return described(story, lambda tree: tree["devices"][0].update(name=idstr))


def fill(story: Story, value: int) -> Story:
    at = story.at(ram.RamPages, 1)
    pages = story[at][1]
    assert isinstance(pages, ram.RamPages)
    data = bytearray(pages.data)
    data[-1] = value
    return story.change(at, data=bytes(data))


def compressed(story: Story, content: bytes = bytes(PAGE)) -> Story:
    word = PAGE | ram.RamFlag.COMPRESS_PAGE
    record = ram.RamCompressedPage(word=word, block="m0", deflated=zlib.compress(content)).encode()
    deltas = ram.RamDeltas(block="m0", page_size=PAGE, starts=(0,), data=record)
    return story.add(story.at(ram.RamEos, 1), deltas)


def delta(story: Story, word: int, delta: bytes) -> Story:
    record = ram.RamXbzrlePage(word=word | ram.RamFlag.XBZRLE, block="m0", delta=delta).encode()
    return story.change(story.at(ram.RamDeltas), data=record)


def hooked(story: Story) -> Story:
    return story.add(story.at(ram.RamEos, 1), ram.RamHook())


def flushed(story: Story) -> Story:
    return story.add(story.at(ram.RamEos, 1), ram.RamMultifdFlush())


def packet(story: Story, number: int, **values: Any) -> Story:
    return story.change(story.at(mfd.MultifdPacket, packet_num=number), **values)


def device_state(number: int = 0) -> mfd.MultifdDeviceState:
    return mfd.MultifdDeviceState(
        flags=0x40, idstr_field=b"0000:00:03.0/vfio".ljust(256, b"\0"), instance_id=0, data=b"x",
    )  # fmt: skip


def zlib_packets(story: Story) -> Story:
    """The payloads of both channels as zlib streams; the second packet of one makes too little."""
    for name in ("multifd-0", "multifd-1"):
        deflate = zlib.compressobj()
        for place, (channel, event) in enumerate(story):
            if channel == name and isinstance(event, mfd.MultifdPacket) and event.normal_pages:
                size = PAGE if event.packet_num == 7 and name == "multifd-0" else None
                raw = bytes(event.payload)[: size and size - 1]
                payload = deflate.compress(raw) + deflate.flush(zlib.Z_SYNC_FLUSH)
                flags = event.flags | int(mfd.MultifdFlag.ZLIB)
                story.change(place, flags=flags, next_packet_size=len(payload), payload=payload)
    return knowing(story, parameters=settings(**{"multifd-compression": "zlib"}))


def old_multifd() -> Story:
    """The same from 7.2: no zero pages in packets, EOS is the sync point."""
    story = header(knowing(m.multifd(), version=(7, 2), parameters={"multifd-channels": 2}), "pc-q35-7.2")
    for place in range(len(story) - 1, -1, -1):
        channel, event = story[place]
        if isinstance(event, (ram.RamMultifdFlush, cmd.SwitchoverStart)):
            story.drop(place)
        elif isinstance(event, mfd.MultifdPacket) and event.zero_pages:
            story[place] = channel, m.packet(event.packet_num, "m0", range(8, 16))
    return story.change(story.at(sec.VmDescription), json=json.dumps(m.description(False)).encode())


def answer(story: Story, number: int, *events: Record) -> Story:
    """Messages on the return path in place of its `number`-th one."""
    places = [place for place, (channel, _) in enumerate(story) if channel.startswith("rp")]
    at = places[number]
    return story.add(at, *events, channel=story[at][0]).drop(at + len(events))


def acks(version: tuple[int, int], machine: str, *messages: Record) -> Story:
    story = header(knowing(m.precopy(), version=version), machine)
    given = frozenset({"return-path", "switchover-ack"})
    return knowing(story.add(story.at(rp.RpPong), *messages), capabilities=given)


def repackaged(edit: Callable[[list[Record]], object]) -> Story:
    """The postcopy story with another package."""
    story = m.postcopy()
    content = m.package()
    edit(content)
    start, stop = story.at(cmd.Packaged), story.at(cmd.PackageEnd)
    return story.drop(start, stop - start + 1).add(start, *m.packaged(content))


def host_page_torn() -> Story:
    story = m.postcopy()
    at = story.at(ram.RamPages, 2)
    return story.add(at, m.pages("m0", 0, 2), m.pages("m0", 4, 2), m.pages("m0", 2, 2)).drop(at + 3)


def not_answered() -> Story:
    """Pages that are asked for and do not come; a balloon, so that not all pages have to."""
    story = m.postcopy()
    rename(story, "0000:00:02.0/dev", idstr="0000:00:02.0/virtio-balloon")
    return story.drop(story.at(ram.RamPages, 5))


def begun_anew() -> Story:
    """A whole migration on the connection that ought to recover a paused postcopy."""
    story = m.recovery()
    story.drop(story.at(cmd.RecvBitmap), len(story) - story.at(cmd.RecvBitmap))
    other = [("main-2", event) for channel, event in m.precopy() if channel == "main"]
    return Story([*story, *other], story.known)


def unasked(story: Story) -> Story:
    """Without page requests."""
    return story.drop(story.at(rp.RpReqPages)).drop(story.at(rp.RpReqPagesId))


def uncompressed(content: bytes) -> Story:
    """7.2 with `compress`; one page unpacks to something else."""
    story = knowing(m.xbzrle(), capabilities=frozenset({"compress", "xbzrle"}))
    return compressed(story, content)


def in_postcopy(event: Record) -> Story:
    story = m.postcopy()
    return story.add(story.at(ram.RamEos, 2), event)


def both_ways() -> Story:
    """Multifd packets in a postcopy migration, behind its last sync point."""
    story = m.postcopy()
    story.add(story.at(ram.RamEos), ram.RamMultifdFlush())
    known = knowing(
        story, capabilities=frozenset({*(story.known.capabilities or ()), "multifd"}), parameters=settings()
    )
    known.drop(known.at(ram.RamPages), 2)
    packets = [
        [m.hello(0), m.packet(0, "m0", range(16)), m.sync(1), m.packet(4, "m0", [7])],
        [m.hello(1), m.packet(2, "pc.bios", [0, 1]), m.sync(3)],
    ]
    extra = [(f"multifd-{number}", event) for number, some in enumerate(packets) for event in some]
    return Story([*extra, *known], known.known)


def settings(**changes: Any) -> dict[str, Any]:
    given: dict[str, Any] = {"zero-page-detection": "multifd", "multifd-compression": "none"}
    return {**given, "multifd-channels": 2, **changes}


def moved(story: Story, **values: int) -> Story:
    """The second header with places that are so much further on."""
    at = story.at(MappedRamHeader, 1)
    channel, event = story[at]
    assert isinstance(event, MappedRamHeader)
    new = {key: getattr(event, key) + value for key, value in values.items()}
    other = MappedRamHeader(**{**event.values(), **new}).place(event.offset, event.size)
    story[at] = channel, other
    return story


def method(story: Story, number: int | None, flags: int) -> Story:
    """Other compression bits on the packets with pages (or on one)."""
    for place, (_, event) in enumerate(story):
        if isinstance(event, mfd.MultifdPacket) and event.pages and number in (None, event.packet_num):
            story.change(place, flags=flags)
    return story


def packet_of(story: Story, number: int, normal: list[int]) -> Story:
    at = story.at(mfd.MultifdPacket, packet_num=number)
    return story.change(at, **m.packet(number, "m0", normal).values())


def zero_in_old(story: Story) -> Story:
    """Zero pages in a packet, of which 7.2 knows nothing."""
    at = story.at(mfd.MultifdPacket, packet_num=4)
    return story.change(at, **m.packet(4, "pc.bios", [], [0, 1]).values())


def stated(story: Story) -> Story:
    at = story.at(mfd.MultifdPacket, packet_num=10)
    return story.add(at, device_state())


def switched_states(story: Story, machine: str) -> Story:
    stated(header(story, machine))
    return story.drop(story.at(cmd.SwitchoverStart))


def drop(base: Callable[[], Story], kind: type[Record], number: int = 0, **values: Any) -> Story:
    story = base()
    return story.drop(story.at(kind, number, **values))


def change(base: Callable[[], Story], kind: type[Record], number: int = 0, **values: Any) -> Story:
    story = base()
    return story.change(story.at(kind, number), **values)


def put(base: Callable[[], Story], before: type[Record], number: int, *events: Record) -> Story:
    story = base()
    return story.add(story.at(before, number), *events)


def pci_bits() -> Record:
    return hdr.ConfigurationPageBits(target_page_bits=12)
