"""Counter-examples: for every rule of `qmig.legacy.verify` a migration that breaks it, and nothing else.

`DAMAGED` are stories, `UNREADABLE` bytes that the reader itself refuses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmig.legacy import commands as cmd
from qmig.legacy import header as hdr
from qmig.legacy import multifd as mfd
from qmig.legacy import ram
from qmig.legacy import returnpath as rp
from qmig.legacy import sections as sec
from qmig.legacy.mappedram import MappedRamBitmap
from qmig.testing import migrations as m
from qmig.testing.damaged_tools import (
    acks,
    answer,
    begun_anew,
    body,
    both_ways,
    capabilities,
    change,
    compressed,
    delta,
    described,
    drop,
    early,
    fill,
    flushed,
    header,
    hooked,
    host_page_torn,
    in_postcopy,
    isapc,
    knowing,
    method,
    moved,
    not_answered,
    old_multifd,
    packet,
    packet_of,
    pci_bits,
    put,
    rename,
    repackaged,
    section,
    settings,
    stated,
    subsection,
    switched_states,
    twice,
    unasked,
    uncompressed,
    uuid,
    without_last_section,
    zero_in_old,
    zlib_packets,
)
from qmig.testing.migrations import PAGE, Story

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
