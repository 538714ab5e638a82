"""Whole small migrations as events: what a QEMU would send on every channel, in the order of a session.

Each is good in every respect that `verify` knows, and every channel can be encoded and read again. Tests take
one, damage it in one place and look at what is found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from qmig._wire import Record
from qmig.legacy import commands as cmd
from qmig.legacy import header as hdr
from qmig.legacy import multifd as mfd
from qmig.legacy import ram
from qmig.legacy import returnpath as rp
from qmig.legacy import sections as sec
from qmig.legacy.mappedram import MappedRamBitmap, MappedRamGap, MappedRamHeader, MappedRamPages
from qmig.legacy.verify import Known

PAGE: Final = 4096
#: RAM blocks: idstr -> pages. `m0` has host pages of four target pages where postcopy is on.
BLOCKS: Final = {"m0": 16, "pc.bios": 2}
HOST_PAGE: Final = 4 * PAGE
RAM_ID: Final = 1
UUID: Final = bytes(range(16))
GLOBAL_STATE: Final = (8).to_bytes(4, "big") + b"running".ljust(100, b"\0")
#: (idstr, instance_id, version_id, fields as (name, type, bytes), subsection)
DEVICES: Final = (
    ("timer", 0, 2, (("cpu_ticks_offset", "int64", bytes(8)), ("unused", "unused_buffer", bytes(8))), None),
    ("0000:00:02.0/dev", 0, 3, (("regs", "uint32", bytes(range(12))),), ("dev/extra", 1, bytes(5))),
)


class Story(list[tuple[str, Record]]):
    """Events with their channels, and ways to damage them."""

    def __init__(self, items: Iterable[tuple[str, Record]], known: Known) -> None:
        super().__init__(items)
        self.known = known

    def at(self, kind: type[Record], number: int = 0, **values: Any) -> int:
        """Where the `number`-th event of this kind with these values stands."""
        found = [
            place
            for place, (_, event) in enumerate(self)
            if type(event) is kind and all(getattr(event, key) == value for key, value in values.items())
        ]
        return found[number]

    def change(self, place: int, **values: Any) -> Story:
        """Gives the event at `place` other values."""
        channel, event = self[place]
        self[place] = channel, type(event)(**{**event.values(), **values})
        return self

    def drop(self, place: int, count: int = 1) -> Story:
        del self[place : place + count]
        return self

    def add(self, place: int, *events: Record, channel: str | None = None) -> Story:
        """Puts events before `place`, on the channel of what is there."""
        name = channel or self[min(place, len(self) - 1)][0]
        self[place:place] = [(name, event) for event in events]
        return self

    def bytes_of(self, channel: str) -> bytes:
        return b"".join(event.encode() for name, event in self if name == channel)

    def channels(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self))


def known(version: tuple[int, int], *capabilities: str, **parameters: Any) -> Known:
    """A source about which all is known, with no property set by hand."""
    return Known(
        version=version,
        capabilities=frozenset(capabilities),
        parameters=parameters,
        properties={},
        suppress_vmdesc=False,
    )


def opening(machine: str, *capabilities: str) -> Iterator[Record]:
    yield hdr.FileHeader(version=3)
    yield hdr.Configuration(machine=machine)
    if capabilities:
        yield hdr.Subsection(name="configuration/capabilities", version_id=1)
        yield hdr.ConfigurationCapabilities(capabilities=capabilities)


def return_path() -> Iterator[Record]:
    yield cmd.OpenReturnPath()
    yield cmd.Ping(value=1)


def pages(block: str, first: int, count: int, *, zero: bool = False) -> ram.RamPages:
    """Page records; the first names its block."""
    content: list[tuple[int, Any]] = [
        ((first + n) * PAGE, 0 if zero else bytes([n + 1]) * PAGE) for n in range(count)
    ]
    return ram.RamPages.of(block, PAGE, content, named=True)


def start(*extra: Record, huge: bool = False) -> Iterator[Record]:
    """The START of ram; `extra` comes before its EOS."""
    yield sec.SectionStart(section_id=RAM_ID, idstr="ram", instance_id=0, version_id=4)
    yield ram.RamMemSize(word=sum(BLOCKS.values()) * PAGE | ram.RamFlag.MEM_SIZE)
    for name, count in BLOCKS.items():
        size = HOST_PAGE if huge and name == "m0" else None
        yield ram.RamBlockEntry(idstr=name, used_length=count * PAGE, page_size=size)
    yield from ended(*extra)


def ended(*records: Record) -> Iterator[Record]:
    yield from records
    yield ram.RamEos()
    yield sec.SectionFooter(section_id=RAM_ID)


def part(*records: Record) -> Iterator[Record]:
    yield sec.SectionPart(section_id=RAM_ID)
    yield from ended(*records)


def end(*records: Record) -> Iterator[Record]:
    yield sec.SectionEnd(section_id=RAM_ID)
    yield from ended(*records)


def full(section_id: int, idstr: str, instance_id: int, version_id: int, body: bytes) -> Iterator[Record]:
    yield sec.SectionFull(section_id=section_id, idstr=idstr, instance_id=instance_id, version_id=version_id)
    yield sec.DeviceState(section_id=section_id, boundary="test", data=body)
    yield sec.SectionFooter(section_id=section_id)


def devices() -> Iterator[Record]:
    for number, (idstr, instance, version, fields, extra) in enumerate(DEVICES, 2):
        body = b"".join(raw for _, _, raw in fields)
        if extra is not None:
            body += hdr.Subsection(name=extra[0], version_id=extra[1]).encode() + extra[2]
        yield from full(number, idstr, instance, version, body)
    yield from full(9, "globalstate", 0, 1, GLOBAL_STATE)


def description(configuration: bool = True) -> dict[str, Any]:
    """The vmdesc of `devices`."""
    rows: list[dict[str, Any]] = []
    for idstr, instance, version, fields, extra in DEVICES:
        row: dict[str, Any] = {"name": idstr, "instance_id": instance, "vmsd_name": "x", "version": version}
        row["fields"] = [_field(*item) for item in fields]
        if extra is not None:
            field = {"name": "more", "type": "buffer", "size": len(extra[2])}
            row["subsections"] = [{"vmsd_name": extra[0], "version": extra[1], "fields": [field]}]
        rows.append(row)
    state = [
        {"name": "size", "type": "uint32", "size": 4},
        {"name": "runstate", "type": "buffer", "size": 100},
    ]
    rows.append({"name": "globalstate", "instance_id": 0, "version": 1, "fields": state})
    head = {"configuration": {"vmsd_name": "configuration", "version": 1, "fields": []}}
    return {**(head if configuration else {}), "page_size": PAGE, "devices": rows}


def _field(name: str, kind: str, raw: bytes) -> dict[str, Any]:
    if kind == "uint32" and len(raw) > 4:
        return {"name": name, "type": kind, "size": 4, "array_len": len(raw) // 4}
    return {"name": name, "type": kind, "size": len(raw)}


def vmdesc(tree: Any) -> sec.VmDescription:
    return sec.VmDescription(json=json.dumps(tree).encode())


def closing(configuration: bool = True) -> Iterator[Record]:
    yield sec.EndOfFile()
    yield vmdesc(description(configuration))


def on(channel: str, *parts: Iterable[Record]) -> list[tuple[str, Record]]:
    return [(channel, event) for some in parts for event in some]


def precopy() -> Story:
    """10.0, with a return path."""
    main = on(
        "main",
        opening("pc-q35-10.0"),
        return_path(),
        start(),
        part(pages("m0", 0, 10), pages("m0", 10, 6, zero=True)),
        part(pages("pc.bios", 0, 2), pages("m0", 3, 1)),
        [cmd.SwitchoverStart()],
        end(pages("m0", 5, 2)),
        devices(),
        closing(),
    )
    back = on("rp", [rp.RpPong(value=1), rp.RpShut(value=0)])
    return Story([*main, *back], known((10, 0), "return-path"))


def xbzrle() -> Story:
    """7.2 without a return path; one page comes again as a difference."""
    record = ram.RamXbzrlePage(word=3 * PAGE | ram.RamFlag.XBZRLE, block="m0", delta=b"\x00\x01\xff").encode()
    delta = ram.RamDeltas(block="m0", page_size=PAGE, starts=(0,), data=record)
    main = on(
        "main",
        opening("pc-q35-7.2"),
        start(),
        part(pages("m0", 0, 16), pages("pc.bios", 0, 2)),
        part(delta),
        end(),
        devices(),
        closing(configuration=False),
    )
    return Story(main, known((7, 2), "xbzrle"))


def package() -> list[Record]:
    return [
        cmd.PostcopyListen(),
        *devices(),
        cmd.Ping(value=3),
        cmd.Ping(value=0x42),
        cmd.PostcopyRun(),
    ]


def packaged(content: list[Record]) -> list[Record]:
    size = sum(len(event.encode()) for event in content)
    return [cmd.Packaged(size_of_package=size), *content, cmd.PackageEnd()]


def discard(block: str, *ranges: tuple[int, int]) -> cmd.PostcopyRamDiscard:
    length = 3 + len(block) + 16 * len(ranges)
    return cmd.PostcopyRamDiscard(length=length, block=block, ranges=ranges)


def _until_postcopy() -> list[Record]:
    return [
        *opening("pc-q35-11.1"),
        *return_path(),
        cmd.PostcopyAdvise(page_sizes=PAGE | HOST_PAGE, target_page_size=PAGE),
        *start(huge=True),
        *part(pages("m0", 0, 16), pages("pc.bios", 0, 2)),
        cmd.SwitchoverStart(),
        discard("m0", (0, 3 * HOST_PAGE)),
        discard("pc.bios", (0, PAGE)),
        cmd.Ping(value=2),
        *packaged(package()),
        cmd.Ping(value=4),
    ]


def request(block: str, first: int, length: int) -> rp.RpReqPagesId:
    return rp.RpReqPagesId(header_len=13 + len(block), start=first * PAGE, length=length, block=block)


def pongs() -> list[Record]:
    return [rp.RpPong(value=value) for value in (1, 2, 4, 3, 0x42)]


def postcopy() -> Story:
    """11.1 with preempt channel."""
    main = on(
        "main",
        _until_postcopy(),
        part(pages("m0", 0, 4), pages("pc.bios", 0, 1), pages("m0", 4, 4)),
        end(),
        [sec.EndOfFile()],
    )
    urgent = on("preempt", [pages("m0", 8, 4)])
    asked = [request("m0", 8, HOST_PAGE), rp.RpReqPages(start=4 * PAGE, length=HOST_PAGE)]
    back = on("rp", pongs(), asked, [rp.RpShut(value=0)])
    return Story([*main, *urgent, *back], known((11, 1), "return-path", "postcopy-ram", "postcopy-preempt"))


def bitmap(block: str) -> rp.RpRecvBitmap:
    return rp.RpRecvBitmap(header_len=1 + len(block), block=block, bitmap=bytes(8))


def recv_bitmap(block: str) -> cmd.RecvBitmap:
    return cmd.RecvBitmap(length=1 + len(block), block=block)


def recovery() -> Story:
    """11.1; the connection breaks after RUN, and a second one takes over."""
    first = on("main", _until_postcopy(), part(pages("m0", 0, 4)))
    back = on("rp", pongs())
    second = on(
        "main-2",
        [recv_bitmap("m0"), recv_bitmap("pc.bios"), cmd.PostcopyResume()],
        part(pages("m0", 4, 8), pages("pc.bios", 0, 1)),
        end(),
        [sec.EndOfFile()],
    )
    answers = [
        bitmap("m0"), bitmap("pc.bios"), rp.RpResumeAck(value=1),
        request("m0", 4, HOST_PAGE), rp.RpShut(value=0),
    ]  # fmt: skip
    return Story(
        [*first, *back, *second, *on("rp-2", answers)], known((11, 1), "return-path", "postcopy-ram")
    )


def packet(
    number: int, block: str = "", normal: Iterable[int] = (), zero: Iterable[int] = (), flags: int = 0
) -> mfd.MultifdPacket:
    """A packet of 9.0+; `normal` and `zero` are page numbers."""
    first, second = list(normal), list(zero)
    offsets = b"".join((n * PAGE).to_bytes(8, "big") for n in [*first, *second])
    payload = b"".join(bytes([n + 1]) * PAGE for n in first)
    return mfd.MultifdPacket(
        flags=flags,
        pages_alloc=128 if first or second else 0,
        normal_pages=len(first),
        next_packet_size=len(payload),
        packet_num=number,
        zero_pages=len(second),
        unused=bytes(28),
        ramblock=block.encode().ljust(256, b"\0"),
        page_size=PAGE,
        offsets=offsets.ljust(1024, b"\0"),
        payload=payload,
    )


def sync(number: int) -> mfd.MultifdPacket:
    return packet(number, flags=int(mfd.MultifdFlag.SYNC))


def hello(number: int) -> mfd.MultifdHello:
    return mfd.MultifdHello(uuid=UUID, id=number, unused1=bytes(7), unused2=bytes(32))


def multifd() -> Story:
    """10.0 with two channels; three rounds."""
    flush = ram.RamMultifdFlush()
    one = [
        hello(0), sync(0), packet(2, "m0", range(8)), sync(5), packet(7, "m0", [3]), sync(8),
    ]  # fmt: skip
    two = [
        hello(1), sync(1), packet(3, "m0", range(8, 12), range(12, 16)), packet(4, "pc.bios", [0, 1]),
        sync(6), packet(9, "m0", [2]), sync(10),
    ]  # fmt: skip
    main = on(
        "main",
        opening("pc-q35-10.0"),
        start(flush),
        part(flush),
        [cmd.SwitchoverStart()],
        end(flush),
        devices(),
        closing(),
    )
    settings: dict[str, Any] = {
        "zero-page-detection": "multifd", "multifd-channels": 2, "multifd-compression": "none",
    }  # fmt: skip
    return Story([*on("multifd-0", one), *on("multifd-1", two), *main], known((10, 0), "multifd", **settings))


def mapped_ram() -> Story:
    """10.0 into a file. The regions of the blocks have their real places."""
    events: list[Record] = list(opening("pc-q35-10.0", "mapped-ram"))
    listed = list(start())
    events += listed[:2]
    at = sum(len(event.encode()) for event in events)
    for entry, count in zip(listed[2:4], BLOCKS.values(), strict=True):
        places = at + len(entry.encode()) + 28
        room = -(-(places + 8) // 0x100000) * 0x100000
        name = entry.values()["idstr"]
        region: list[Record] = [
            entry,
            MappedRamHeader(version=1, page_size=PAGE, bitmap_offset=places, pages_offset=room),
            MappedRamBitmap(block=name, pages=count, data=((1 << count) - 1).to_bytes(8, "little")),
            MappedRamGap(block=name, data=bytes(room - places - 8)),
            MappedRamPages(block=name, page_size=PAGE, start=0, data=bytes(count * PAGE)),
        ]
        for event in region:
            event.place(at, len(event.encode()))
            at += event.size
        events += region
    events += [*listed[4:], *part(), cmd.SwitchoverStart(), *end(), *devices(), *closing()]
    return Story(on("main", events), known((10, 0), "mapped-ram"))
