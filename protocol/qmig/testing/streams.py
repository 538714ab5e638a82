"""A small valid stream in events, and how to drive a reader with it, for tests."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

from qmig._wire import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy import commands as c
from qmig.legacy import header as h
from qmig.legacy import sections as s
from qmig.legacy.ram import RamBlockEntry, RamEos, RamMemSize, RamPages
from qmig.legacy.receiver import CLOSED, LegacyReceiver
from qmig.legacy.sender import LegacySender

DEVICE = {"name": "timer", "instance_id": 0, "vmsd_name": "timer", "version": 2}
FIELDS = [{"name": "a", "type": "uint64", "size": 8}]
VMDESC = json.dumps({"page_size": 4096, "devices": [{**DEVICE, "fields": FIELDS}]}).encode()


def zero_page(address: int, *, block: str = "") -> bytes:
    if block:
        return (address | 0x02).to_bytes(8, "big") + bytes([len(block)]) + block.encode() + b"\0"
    return (address | 0x22).to_bytes(8, "big") + b"\0"


def pages(data: bytes) -> RamPages:
    return RamPages(block="pc.ram", page_size=4096, data=data)


TWO_PAGES = pages(zero_page(0, block="pc.ram") + zero_page(0x1000))
HEAD = [h.FileHeader(version=3), h.Configuration(machine="pc-i440fx-11.1")]
RAM = [
    s.SectionStart(section_id=1, idstr="ram", instance_id=0, version_id=4),
    RamMemSize(word=0x2000 | 4),
    RamBlockEntry(idstr="pc.ram", used_length=0x2000),
    RamEos(),
    s.SectionFooter(section_id=1),
    s.SectionPart(section_id=1),
    TWO_PAGES,
    RamEos(),
    s.SectionFooter(section_id=1),
    s.SectionEnd(section_id=1),
    RamEos(),
    s.SectionFooter(section_id=1),
]
FULL = s.SectionFull(section_id=7, idstr="timer", instance_id=0, version_id=2)
TIMER = [
    FULL,
    s.DeviceState(section_id=7, boundary="vmdesc", data=b"\x7e\0\0\0\7\4ab"),
    s.SectionFooter(section_id=7),
]
TAIL: list[Record] = [s.EndOfFile(), s.VmDescription(json=VMDESC)]
PLAIN = [*HEAD, c.SwitchoverStart(), *RAM, *TIMER, *TAIL]


def to_bytes(events: Iterable[Record], *, headerless: bool = False) -> bytes:
    sender = LegacySender(headerless=headerless)
    return b"".join(map(sender.send, events))


def read(data: bytes, cuts: Iterable[int] = (), **options: object) -> tuple[list[Record], Exception | None]:
    """All events of the main channel `data`, given in pieces cut at `cuts`, and the error that ended
    them (None: the input was read to its end)."""
    receiver = LegacyReceiver(**options)  # type: ignore[arg-type]
    events: list[Record] = []
    edges = [0, *sorted(cuts), len(data)]
    try:
        for start, end in itertools.pairwise(edges):
            if start < end:
                receiver.receive_data(data[start:end])
            while isinstance(event := receiver.next_event(), Record):
                events.append(event)
        receiver.receive_data(b"")
        while isinstance(event := receiver.next_event(), Record):
            events.append(event)
        assert event is CLOSED
    except RemoteProtocolError as error:
        return events, error
    return events, None


def same(left: list[Record], right: list[Record]) -> bool:
    return list(map(flat, left)) == list(map(flat, right))


def flat(record: Record) -> dict[str, object]:
    return {k: bytes(v) if isinstance(v, memoryview) else v for k, v in record.values().items()}
