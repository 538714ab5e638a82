"""Every rule of `verify`: a migration damaged in one place breaks this rule only, the undamaged one none."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from qmig._wire import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy import commands as cmd
from qmig.legacy import header as hdr
from qmig.legacy import multifd as mfd
from qmig.legacy import ram
from qmig.legacy import returnpath as rp
from qmig.legacy import sections as sec
from qmig.legacy.mappedram import MappedRamBitmap, MappedRamHeader
from qmig.legacy.receiver import CLOSED, NEED_DATA
from qmig.legacy.session import MigrationSession
from qmig.legacy.verify import RULES, By, Known, Report, Severity, Status, Verifier
from qmig.testing import migrations as m
from qmig.testing.migrations import PAGE, Story

BASES: Final = (m.precopy, m.xbzrle, m.postcopy, m.recovery, m.multifd, m.mapped_ram)


def check(story: Story) -> Report:
    verifier = Verifier(story.known)
    for channel, event in story:
        verifier.check(channel, event)
    return verifier.finish()


def read(channels: dict[str, bytes], known: Known) -> Report:
    """The report on real bytes, as `qmig verify` comes to it."""
    session, verifier, left = MigrationSession(), Verifier(known), dict(channels)
    for channel in channels:
        session.open(channel)
    while True:
        try:
            told = session.next_event()
        except RemoteProtocolError as error:
            verifier.failed(error.channel or "main", error)
            continue
        if told is CLOSED:
            return verifier.finish()
        if told is NEED_DATA:
            for channel in session.wants():
                session.receive_data(channel, left.pop(channel, b""))
            continue
        verifier.check(told.channel, told.event)


def broken(report: Report) -> set[str]:
    return {finding.requirement for finding in report.findings}


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_an_undamaged_migration_breaks_nothing(base: Callable[[], Story]) -> None:
    story = base()
    report = check(story)
    assert report.findings == ()
    assert report.good
    assert not [row for row in report.outcomes if row.status is Status.BROKEN]
    # And it is one on the wire, too: what is read from its bytes is as good. The recovery's first
    # connection ends where it was cut.
    again = read({channel: story.bytes_of(channel) for channel in story.channels()}, story.known)
    assert [f for f in again.findings if f.severity is not Severity.NOTE] == []
    assert bool(again.findings) is (base is m.recovery)


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


LONE_FLAGS: Final = int(mfd.MultifdFlag.ZLIB)
FOOTER: Final = sec.SectionFooter(section_id=m.RAM_ID)

#: rule -> a migration that breaks it and nothing else
DAMAGED: Final[list[tuple[str, Callable[[], Story]]]] = [
    ("LEG-HDR-003", lambda: knowing(drop(m.precopy, hdr.Configuration), machine="pc-q35-10.0")),
    ("LEG-HDR-004", begun_anew),
    ("LEG-HDR-011", lambda: header(knowing(m.precopy(), properties=None), "q35")),
    ("LEG-HDR-012", lambda: header(m.precopy(), "pc-q35-10.0\0")),
    ("LEG-HDR-012", lambda: header(m.precopy(), "")),
    ("LEG-HDR-013", lambda: capabilities(capabilities(m.precopy(), "x-ignore-shared"), "x-ignore-shared")),
    ("LEG-HDR-024", lambda: capabilities(m.precopy())),
    ("LEG-HDR-025", lambda: capabilities(m.precopy(), "x-ignore-shared", "x-ignore-shared")),
    ("LEG-HDR-026", lambda: capabilities(m.precopy(), "xbzrle")),
    ("LEG-HDR-026", lambda: capabilities(m.xbzrle(), "mapped-ram")),
    ("LEG-HDR-027", lambda: uuid(m.precopy())),
    ("LEG-HDR-028", lambda: subsection(m.precopy(), "configuration/target-page-bits", pci_bits())),
    (
        "LEG-SEC-016",
        lambda: put(
            m.precopy,
            sec.SectionPart,
            0,
            sec.SectionStart(section_id=m.RAM_ID, idstr="x", instance_id=0, version_id=1),
            FOOTER,
        ),
    ),
    ("LEG-SEC-017", lambda: without_last_section(drop(m.precopy, cmd.SwitchoverStart))),
    ("LEG-SEC-018", lambda: put(m.precopy, sec.SectionFull, 0, *m.end())),
    ("LEG-SEC-019", lambda: twice(m.precopy(), "")),
    ("LEG-SEC-022", lambda: drop(m.precopy, sec.SectionFooter, 1)),
    ("LEG-SEC-022", lambda: drop(m.precopy, sec.SectionFooter, -1)),
    ("LEG-SEC-023", lambda: twice(m.precopy(), "0000:00:02.0/dev")),
    ("LEG-SEC-024", lambda: put(m.xbzrle, sec.SectionFull, 1, *m.part())),
    ("LEG-SEC-025", lambda: early(m.precopy())),
    ("LEG-SEC-026", lambda: rename(m.precopy(), "timer", section_id=9)),
    ("LEG-SEC-026", lambda: rename(m.precopy(), "timer", section_id=m.RAM_ID)),
    ("LEG-SEC-027", isapc),
    (
        "LEG-SEC-032",
        lambda: m.postcopy().add(
            m.postcopy().at(sec.EndOfFile) + 1, m.vmdesc(m.description()), channel="main"
        ),
    ),
    ("LEG-SEC-034", lambda: drop(m.precopy, sec.VmDescription)),
    (
        "LEG-SEC-035",
        lambda: put(m.precopy, rp.RpPong, 0).add(
            m.precopy().at(rp.RpPong), sec.TrailingBytes(data=b"x"), channel="main"
        ),
    ),
    ("LEG-SEC-040", lambda: change(m.precopy, sec.VmDescription, json=b"{")),
    ("LEG-SEC-040", lambda: change(m.precopy, sec.VmDescription, json=b"[" * 200000)),
    ("LEG-SEC-040", lambda: change(m.precopy, sec.VmDescription, json=b"[]")),
    ("LEG-SEC-041", lambda: described(m.precopy(), lambda tree: tree["devices"].pop())),
    ("LEG-SEC-041", lambda: described(m.precopy(), lambda tree: tree["devices"].reverse())),
    ("LEG-SEC-041", lambda: described(m.precopy(), lambda tree: tree.update(devices=7))),
    ("LEG-SEC-042", lambda: described(m.precopy(), lambda tree: tree.update(page_size=8192))),
    ("LEG-SEC-043", lambda: body(m.precopy(), "timer", bytes(15))),
    ("LEG-SEC-044", lambda: rename(m.precopy(), "timer", version_id=3)),
    ("LEG-SEC-045", lambda: body(m.precopy(), "0000:00:02.0/dev", bytes(32))),
    ("LEG-SEC-046", lambda: described(m.precopy(), lambda tree: tree.pop("configuration"))),
    ("LEG-SEC-050", lambda: change(m.precopy, sec.SectionStart, version_id=3)),
    (
        "LEG-SEC-051",
        lambda: described(
            body(m.precopy(), "globalstate", m.GLOBAL_STATE + b"x"),
            lambda tree: tree["devices"][2]["fields"][1].update(size=101),
        ),
    ),
    ("LEG-SEC-052", lambda: body(m.precopy(), "globalstate", b"\0\0\0\x09" + m.GLOBAL_STATE[4:])),
    ("LEG-DBM-007", lambda: section(m.precopy(), "dirty-bitmap")),
    ("LEG-BLK-003", lambda: section(m.precopy(), "block")),
    (
        "LEG-CMD-002",
        lambda: put(m.precopy, sec.SectionStart, 0, cmd.UnknownCommand(command=12, length=0, payload=b"")),
    ),
    (
        "LEG-CMD-030",
        lambda: put(
            lambda: put(m.precopy, sec.SectionPart, 0, *m.return_path()), rp.RpPong, 0, rp.RpPong(value=1)
        ),
    ),
    ("LEG-CMD-031", lambda: drop(m.precopy, cmd.Ping).drop(-2)),
    ("LEG-CMD-032", lambda: drop(m.precopy, cmd.OpenReturnPath)),
    (
        "LEG-CMD-033",
        lambda: put(m.precopy, sec.SectionStart, 0, cmd.Ping(value=5)).add(-1, rp.RpPong(value=5)),
    ),
    ("LEG-CMD-035", lambda: put(m.precopy, sec.SectionEnd, 0, *m.part())),
    ("LEG-CMD-035", lambda: put(m.precopy, cmd.SwitchoverStart, 0, cmd.SwitchoverStart())),
    (
        "LEG-CMD-035",
        lambda: drop(m.precopy, cmd.SwitchoverStart).add(
            m.precopy().at(sec.SectionFull) - 1, cmd.SwitchoverStart()
        ),
    ),
    ("LEG-CMD-036", lambda: header(m.precopy(), "pc-q35-9.2")),
    ("LEG-CMD-037", lambda: put(m.xbzrle, sec.SectionEnd, 0, cmd.SwitchoverStart())),
    ("LEG-CMD-037", lambda: knowing(put(m.precopy, sec.SectionStart, 0, cmd.EnableColo()), version=(11, 0))),
    ("LEG-CMD-038", lambda: drop(m.precopy, cmd.SwitchoverStart)),
    (
        "LEG-PCP-001",
        lambda: put(
            m.postcopy, cmd.PostcopyAdvise, 0, cmd.PostcopyAdvise(page_sizes=PAGE, target_page_size=PAGE)
        ),
    ),
    (
        "LEG-PCP-001",
        lambda: put(
            lambda: change(m.postcopy, ram.RamBlockEntry, page_size=None),
            sec.SectionPart,
            0,
            cmd.PostcopyAdvise(page_sizes=PAGE, target_page_size=PAGE),
        ).drop(m.postcopy().at(cmd.PostcopyAdvise)),
    ),
    ("LEG-PCP-002", lambda: knowing(m.postcopy(), capabilities=frozenset({"return-path"}))),
    ("LEG-PCP-003", lambda: change(m.postcopy, cmd.PostcopyAdvise, page_sizes=PAGE)),
    ("LEG-PCP-003", lambda: change(m.postcopy, cmd.PostcopyAdvise, target_page_size=1024)),
    (
        "LEG-PCP-003",
        lambda: change(
            lambda: change(m.postcopy, ram.RamBlockEntry, page_size=None), cmd.PostcopyAdvise, page_sizes=0
        ),
    ),
    ("LEG-PCP-010", lambda: change(m.postcopy, cmd.PostcopyRamDiscard, 1, ranges=(), length=10)),
    ("LEG-PCP-010", lambda: change(m.postcopy, cmd.PostcopyRamDiscard, 1, ranges=((0, PAGE),) * 13)),
    ("LEG-PCP-011", lambda: change(m.postcopy, cmd.PostcopyRamDiscard, ranges=((PAGE, m.HOST_PAGE),))),
    ("LEG-PCP-011", lambda: change(m.postcopy, cmd.PostcopyRamDiscard, 1, block="none")),
    (
        "LEG-PCP-012",
        lambda: drop(m.postcopy, cmd.Ping, value=2).drop(m.postcopy().at(rp.RpPong, value=2) - 1),
    ),
    ("LEG-PCP-020", lambda: repackaged(lambda content: content.insert(0, content.pop(1)))),
    ("LEG-PCP-020", lambda: repackaged(lambda content: content.insert(9, cmd.PostcopyListen()))),
    ("LEG-PCP-020", lambda: repackaged(lambda content: content.pop())),
    ("LEG-PCP-020", lambda: put(m.precopy, sec.SectionStart, 0, cmd.PostcopyListen())),
    (
        "LEG-PCP-021",
        lambda: repackaged(lambda content: content.remove(cmd.Ping(value=3))).drop(
            m.postcopy().at(rp.RpPong, value=3) - 1
        ),
    ),
    ("LEG-PCP-022", lambda: repackaged(lambda content: content.insert(1, sec.EndOfFile()))),
    ("LEG-PCP-023", lambda: put(m.postcopy, cmd.PackageEnd, 0, sec.TrailingBytes(data=b"x"))),
    (
        "LEG-PCP-024",
        lambda: drop(m.postcopy, cmd.Ping, value=4).drop(m.postcopy().at(rp.RpPong, value=4) - 1),
    ),
    (
        "LEG-PCP-025",
        lambda: put(m.postcopy, sec.SectionPart, 1, cmd.Ping(value=1)).add(
            m.postcopy().at(rp.RpPong), rp.RpPong(value=1)
        ),
    ),
    (
        "LEG-PCP-026",
        lambda: repackaged(lambda content: content.remove(cmd.Ping(value=0x42))).drop(
            m.postcopy().at(rp.RpPong, value=0x42) - 1
        ),
    ),
    ("LEG-PCP-030", host_page_torn),
    ("LEG-PCP-030", lambda: put(m.postcopy, ram.RamEos, 2, m.pages("m0", 12, 1))),
    ("LEG-PCP-031", not_answered),
    (
        "LEG-PCP-040",
        lambda: drop(m.recovery, cmd.RecvBitmap, 1).drop(m.recovery().at(rp.RpRecvBitmap, 1) - 1),
    ),
    (
        "LEG-PCP-040",
        lambda: put(m.recovery, cmd.RecvBitmap, 0, m.recv_bitmap("m0")).add(
            m.recovery().at(rp.RpRecvBitmap) + 1, m.bitmap("m0")
        ),
    ),
    (
        "LEG-PCP-041",
        lambda: put(m.recovery, cmd.PostcopyResume, 0, cmd.PostcopyResume()).add(
            m.recovery().at(rp.RpResumeAck) + 1, rp.RpResumeAck(value=1)
        ),
    ),
    ("LEG-PCP-042", lambda: put(m.recovery, cmd.RecvBitmap, 0, *m.part())),
    ("LEG-RAM-014", lambda: put(m.precopy, ram.RamPages, 0, ram.RamMemSize(word=4))),
    ("LEG-RAM-014", lambda: m.precopy().drop(m.precopy().at(ram.RamMemSize))),
    ("LEG-RAM-014", lambda: put(m.precopy, ram.RamMemSize, 0, m.pages("m0", 0, 1))),
    ("LEG-RAM-015", lambda: change(m.precopy, ram.RamBlockEntry, 1, used_length=PAGE + 1)),
    ("LEG-RAM-016", lambda: change(m.precopy, ram.RamBlockEntry, page_size=m.HOST_PAGE)),
    ("LEG-RAM-016", lambda: unasked(change(m.postcopy, ram.RamBlockEntry, page_size=PAGE))),
    ("LEG-RAM-018", lambda: change(m.precopy, ram.RamBlockEntry, gpa=0)),
    ("LEG-RAM-018", lambda: knowing(m.precopy(), capabilities=frozenset({"return-path", "x-ignore-shared"}))),
    ("LEG-RAM-037", lambda: uncompressed(bytes(PAGE + 1))),
    (
        "LEG-RAM-060",
        lambda: in_postcopy(
            ram.RamDeltas(
                block="m0",
                page_size=PAGE,
                starts=(0,),
                data=ram.RamXbzrlePage(word=ram.RamFlag.XBZRLE, block="m0", delta=b"").encode(),
            )
        ),
    ),
    ("LEG-RAM-036", lambda: delta(m.xbzrle(), 0, b"\x00\x00")),
    ("LEG-RAM-052", lambda: drop(m.precopy, ram.RamPages)),
    ("LEG-RAM-052", lambda: change(m.postcopy, cmd.PostcopyRamDiscard, ranges=((0, 4 * m.HOST_PAGE),))),
    ("LEG-RAM-053", lambda: fill(m.precopy(), 1)),
    (
        "LEG-RAM-054",
        lambda: put(lambda: drop(m.xbzrle, ram.RamPages), sec.SectionEnd, 0, *m.part(m.pages("m0", 0, 16))),
    ),
    ("LEG-RAM-056", lambda: knowing(compressed(m.precopy()), version=(10, 0))),
    ("LEG-RAM-057", lambda: flushed(m.precopy())),
    ("LEG-RAM-058", lambda: hooked(m.precopy())),
    ("LEG-MFD-060", lambda: put(m.multifd, ram.RamEos, 1, m.pages("m0", 0, 1))),
    ("LEG-MFD-053", lambda: header(drop(m.multifd, cmd.SwitchoverStart), "pc-q35-8.0")),
    ("LEG-MAP-011", lambda: moved(m.mapped_ram(), version=-1)),
    ("LEG-MAP-013", lambda: moved(m.mapped_ram(), bitmap_offset=1)),
    ("LEG-MAP-014", lambda: moved(m.mapped_ram(), pages_offset=PAGE)),
    ("LEG-MAP-023", lambda: put(m.mapped_ram, ram.RamEos, 1, m.pages("m0", 0, 1))),
    (
        "LEG-MAP-023",
        lambda: knowing(flushed(m.mapped_ram()), capabilities=frozenset({"mapped-ram", "multifd"})),
    ),
    ("LEG-MAP-024", lambda: change(m.mapped_ram, MappedRamBitmap, data=b"\xff" * 8)),
    (
        "LEG-PRE-004",
        lambda: put(m.postcopy, rp.RpPong, 0).add(
            m.postcopy().at(rp.RpPong), sec.TrailingBytes(data=b"x"), channel="preempt"
        ),
    ),
    (
        "LEG-PRE-005",
        lambda: put(m.postcopy, rp.RpPong, 0).add(
            m.postcopy().at(rp.RpPong), ram.RamEos(), channel="preempt"
        ),
    ),
    ("LEG-MFD-001", lambda: change(m.multifd, mfd.MultifdHello, unused1=b"1234567")),
    ("LEG-MFD-002", lambda: change(m.multifd, mfd.MultifdHello, 1, uuid=bytes(16))),
    (
        "LEG-MFD-002",
        lambda: uuid(
            knowing(m.multifd(), capabilities=frozenset({"multifd", "validate-uuid"})), bytes(16)
        ).add(0, *[]),
    ),
    ("LEG-MFD-003", lambda: change(m.multifd, mfd.MultifdHello, 1, id=0)),
    ("LEG-MFD-003", lambda: change(m.multifd, mfd.MultifdHello, 1, id=5)),
    ("LEG-MFD-014", lambda: packet(m.multifd(), 2, pages_alloc=64)),
    (
        "LEG-MFD-019",
        lambda: m.multifd().change(
            m.multifd().at(mfd.MultifdPacket, packet_num=7), **m.packet(7, "m0", [3, 3]).values()
        ),
    ),
    ("LEG-MFD-020", lambda: packet(m.multifd(), 7, offsets=bytes(7 * 8) + b"1" * 8 + bytes(120 * 8))),
    ("LEG-MFD-021", lambda: packet(m.multifd(), 2, unused=b"x" * 28)),
    ("LEG-MFD-022", lambda: packet(m.multifd(), 7, packet_num=1)),
    ("LEG-MFD-022", lambda: packet(m.multifd(), 9, packet_num=7)),
    ("LEG-MFD-031", lambda: packet(m.multifd(), 2, next_packet_size=1)),
    (
        "LEG-MFD-033",
        lambda: m.multifd().change(
            m.multifd().at(mfd.MultifdPacket, packet_num=3),
            **{**m.packet(3, "m0", [], range(8, 16)).values(), "next_packet_size": 1},
        ),
    ),
    ("LEG-MFD-034", lambda: knowing(m.multifd(), parameters=settings(**{"multifd-compression": "zstd"}))),
    ("LEG-MFD-034", lambda: method(m.multifd(), 7, int(mfd.MultifdFlag.QPL))),
    ("LEG-MFD-034", lambda: knowing(method(m.multifd(), None, 0x3E), parameters=None)),
    ("LEG-MFD-035", lambda: knowing(packet(old_multifd(), 8, flags=5), version=(7, 2))),
    ("LEG-MFD-046", lambda: zlib_packets(m.multifd())),
    ("LEG-MFD-050", lambda: packet(m.multifd(), 5, pages_alloc=128)),
    ("LEG-MFD-056", lambda: drop(m.multifd, mfd.MultifdPacket, packet_num=10)),
    ("LEG-MFD-057", lambda: packet_of(m.multifd(), 9, [3])),
    ("LEG-MFD-059", both_ways),
    ("LEG-MFD-061", lambda: knowing(m.multifd(), parameters=settings(**{"zero-page-detection": "legacy"}))),
    ("LEG-MFD-061", lambda: zero_in_old(old_multifd())),
    ("LEG-MFD-063", lambda: knowing(m.multifd(), parameters=settings(**{"zero-page-detection": "none"}))),
    ("LEG-MFD-070", lambda: switched_states(knowing(m.multifd(), version=(9, 2)), "pc-q35-9.2")),
    ("LEG-MFD-074", lambda: stated(header(drop(m.multifd, cmd.SwitchoverStart), "pc-q35-9.2"))),
    (
        "LEG-RPM-003",
        lambda: answer(m.precopy(), 1, rp.RpUnknown(header_type=9, payload=b""), rp.RpShut(value=0)),
    ),
    ("LEG-RPM-010", lambda: change(m.precopy, rp.RpShut, value=2)),
    ("LEG-RPM-011", lambda: answer(m.precopy(), 1, rp.RpShut(value=0), rp.RpShut(value=0))),
    ("LEG-RPM-014", lambda: change(m.precopy, rp.RpShut, value=1)),
    ("LEG-RPM-020", lambda: change(m.precopy, rp.RpPong, value=2)),
    ("LEG-RPM-020", lambda: drop(m.precopy, rp.RpPong)),
    ("LEG-RPM-032", lambda: change(m.postcopy, rp.RpReqPages, start=5 * PAGE)),
    ("LEG-RPM-032", lambda: change(m.postcopy, rp.RpReqPages, length=PAGE)),
    ("LEG-RPM-033", lambda: drop(m.postcopy, rp.RpReqPagesId)),
    ("LEG-RPM-035", lambda: change(m.postcopy, rp.RpReqPages, start=64 * PAGE)),
    ("LEG-RPM-040", lambda: drop(m.recovery, rp.RpRecvBitmap)),
    ("LEG-RPM-040", lambda: put(m.recovery, rp.RpRecvBitmap, 0, m.bitmap("m0"))),
    ("LEG-RPM-040", lambda: put(m.recovery, rp.RpRecvBitmap, 0, m.bitmap("none"))),
    ("LEG-RPM-042", lambda: change(m.recovery, rp.RpRecvBitmap, bitmap=bytes(16))),
    ("LEG-RPM-050", lambda: change(m.recovery, rp.RpResumeAck, value=2)),
    ("LEG-RPM-051", lambda: drop(m.recovery, rp.RpResumeAck)),
    ("LEG-RPM-051", lambda: put(m.recovery, rp.RpResumeAck, 0, m.request("m0", 8, m.HOST_PAGE))),
    ("LEG-RPM-051", lambda: answer(m.precopy(), 1, rp.RpResumeAck(value=1), rp.RpShut(value=0))),
    ("LEG-RPM-061", lambda: acks((11, 0), "pc-q35-11.0")),
    ("LEG-RPM-061", lambda: acks((11, 0), "pc-q35-11.0", rp.RpSwitchoverAck(), rp.RpSwitchoverAck())),
    ("LEG-RPM-062", lambda: acks((11, 1), "pc-q35-11.1", rp.RpSwitchoverAck())),
    ("LEG-RPM-063", lambda: put(m.precopy, rp.RpPong, 0, rp.RpSwitchoverAck())),
]


def ids(case: object) -> str:
    return case if isinstance(case, str) else ""


@pytest.mark.parametrize(("rule", "damaged"), DAMAGED, ids=ids)
def test_a_damaged_migration_breaks_one_rule(rule: str, damaged: Callable[[], Story]) -> None:
    report = check(damaged())
    assert broken(report) == {rule}, [str(finding) for finding in report.findings]
    found = {row.requirement: row for row in report.outcomes}
    assert found[rule].status is Status.BROKEN
    assert found[rule].count
    assert {finding.severity for finding in report.findings} == {RULES[rule].severity}
    assert report.good is (RULES[rule].severity is not Severity.ERROR)
    for finding in report.findings:
        assert finding.message
        assert rule in str(finding)


def test_every_rule_has_its_damage() -> None:
    covered = {rule for rule, _ in DAMAGED}
    assert covered == {rule.requirement for rule in RULES.values() if rule.by is By.CHECKER}


def edited(base: Callable[[], Story], old: bytes, new: bytes, channel: str = "main") -> dict[str, bytes]:
    """The bytes of a migration with one of its places written over; `old` must be there once at least."""
    story = base()
    found = {name: story.bytes_of(name) for name in story.channels()}
    assert old in found[channel]
    return {**found, channel: found[channel].replace(old, new, 1)}


def entry(name: str, pages: int) -> bytes:
    return ram.RamBlockEntry(idstr=name, used_length=pages * PAGE).encode()


def first_page(block: str, number: int) -> bytes:
    return m.pages(block, number, 1).encode()[: 9 + len(block)]


EOS: Final = ram.RamEos().encode()
_SHUT: Final = rp.RpShut(value=0).encode()
_PACKET: Final = m.packet(7, "m0", [3]).encode()
_TABLE: Final = m.packet(3, "m0", range(8, 12), range(12, 16)).encode()[:340]
_FOOTER: Final = FOOTER.encode()


def packet_head(**values: int) -> bytes:
    """The head of packet 7 with other values; its payload stays."""
    head = bytearray(_PACKET[:328])
    for name, value in values.items():
        at, size = {"magic": (0, 4), "normal": (16, 4), "offset": (320, 8)}[name]
        head[at : at + size] = value.to_bytes(size, "big")
    return bytes(head)


#: rule of the reader -> bytes in which it is broken
UNREADABLE: Final[list[tuple[str, Callable[[], dict[str, bytes]]]]] = [
    ("LEG-HDR-001", lambda: edited(m.precopy, b"QEVM", b"QEVN")),
    ("LEG-HDR-002", lambda: edited(m.precopy, b"QEVM\0\0\0\3", b"QEVM\0\0\0\4")),
    ("LEG-HDR-023", lambda: edited(m.mapped_ram, b"configuration/cap", b"configuration/cup")),
    ("LEG-SEC-002", lambda: edited(m.precopy, b"\x08\0\x01", b"\x09\0\x01")),
    ("LEG-SEC-015", lambda: edited(m.precopy, b"\x02\0\0\0\x01", b"\x02\0\0\0\x05")),
    ("LEG-SEC-021", lambda: edited(m.precopy, _FOOTER, b"\x7e\0\0\0\x02")),
    ("LEG-SEC-031", lambda: edited(m.precopy, b"}]}]}", b"}]}]")),
    ("LEG-RAM-002", lambda: edited(m.precopy, EOS, b"\0" * 7 + b"\x30"[:0] + b"\x11")),
    ("LEG-RAM-034", lambda: edited(m.xbzrle, b"\x01\0\3\0\1\xff", b"\x01\xff\xff\0\1\xff")),
    ("LEG-RAM-035", lambda: {**edited(m.xbzrle, b"\0\0\x30\x40\2m0", b"\0\0\x31\0\2m0")}),
    ("LEG-RAM-040", lambda: edited(m.precopy, b"\x08\2m0", b"\x08\2m1")),
    ("LEG-RAM-043", lambda: edited(m.precopy, b"\0\0\0\x08\2m0", b"\0\0\4\x08\2m0")),
    ("LEG-PRE-003", lambda: edited(m.postcopy, b"\0\0\x80\x08\2m0", b"\0\0\x80\x04\2m0", "preempt")),
    ("LEG-CMD-003", lambda: edited(m.precopy, b"\x08\0\x0b\0\0", b"\x08\0\x0b\0\1")),
    ("LEG-RAM-012", lambda: edited(m.precopy, entry("pc.bios", 2), entry("pc.bios", 3))),
    ("LEG-RAM-013", lambda: edited(m.xbzrle, entry("m0", 16) + entry("pc.bios", 2), entry("m0", 9) * 2)),
    ("LEG-RAM-041", lambda: edited(m.xbzrle, first_page("m0", 0), (0x28).to_bytes(8, "big") + b"abc")),
    ("LEG-RAM-042", lambda: edited(m.precopy, first_page("m0", 5), first_page("m0", 16))),
    ("LEG-MAP-012", lambda: edited(
        m.mapped_ram, b"\0\0\0\1" + PAGE.to_bytes(8, "big"), b"\0\0\0\1" + bytes(8))),
    ("LEG-MFD-010", lambda: edited(m.multifd, _PACKET[:328], packet_head(magic=0x11223345), "multifd-0")),
    ("LEG-MFD-015", lambda: edited(m.multifd, _PACKET[:328], packet_head(normal=129), "multifd-0")),
    ("LEG-MFD-016", lambda: edited(m.multifd, _PACKET[64:320], b"m" * 256, "multifd-0")),
    ("LEG-MFD-017", lambda: edited(m.multifd, _PACKET[64:320], b"m1".ljust(256, b"\0"), "multifd-0")),
    ("LEG-MFD-018", lambda: edited(m.multifd, _PACKET[:328], packet_head(offset=99 * PAGE), "multifd-0")),
    ("LEG-RPM-002", lambda: edited(m.precopy, _SHUT, b"\0\1\2\1", "rp")),
    ("LEG-RPM-004", lambda: edited(m.precopy, _SHUT, b"\0\1\0\5" + bytes(5), "rp")),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "bytes_of"), UNREADABLE, ids=ids)
def test_what_the_reader_cannot_read_is_a_finding(
    rule: str, bytes_of: Callable[[], dict[str, bytes]]
) -> None:
    report = read(bytes_of(), Known())
    errors = [finding for finding in report.findings if finding.severity is Severity.ERROR]
    assert rule in {finding.requirement for finding in errors}, [str(f) for f in report.findings]
    first = next(finding for finding in errors if finding.requirement == rule)
    assert first.offset is not None
    assert not report.good
    assert {row.requirement: row.status for row in report.outcomes}[rule] is Status.BROKEN


def test_every_rule_of_the_reader_has_its_bytes() -> None:
    assert {rule for rule, _ in UNREADABLE} == {r.requirement for r in RULES.values() if r.by is By.READER}
