"""Which fields two builds store differently for the same machine in the same state.

Both builds' own streams of the machine are decoded by the description that each carries. A ``virtio`` field,
which descriptions leave opaque, is taken apart by the layout of hw/virtio/virtio.c `virtio_save`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import cast

from qmig.legacy.receiver import CLOSED
from qmig.legacy.sections import DeviceState, SectionFull, VmDescription
from qmig.legacy.session import MigrationSession
from qmig.legacy.vmstate.schema import schema_from_earlier
from qmig_conformance.matrix.model import Difference

#: Differences of one section that are told.
MOST = 24
#: Bytes of a value that are shown.
_SHOWN = 24
_ABSENT = "(not there)"

#: (idstr, instance) -> field path -> value as text
Contents = dict[tuple[str, int], dict[str, str]]


def differences(source: Path, destination: Path, section: str) -> list[Difference]:
    """Fields of the sections that begin with `section` and are not in both streams alike."""
    sides = [contents(path.read_bytes(), section) for path in (source, destination)]
    return list(islice(_compared(*sides), MOST))


def sections(stream: Path) -> list[str]:
    """Names of the device sections of a stream."""
    return [full.idstr for full, _ in _sections(stream.read_bytes(), bytearray())]


def _compared(ours: Contents, theirs: Contents) -> Iterator[Difference]:
    for key in {**ours, **theirs}:
        mine, other = ours.get(key, {}), theirs.get(key, {})
        name = key[0] if not key[1] else f"{key[0]} instance {key[1]}"
        for path in {**mine, **other}:
            one, two = mine.get(path, _ABSENT), other.get(path, _ABSENT)
            if one != two:
                yield Difference(name, path, one, two)


def contents(data: bytes, section: str) -> Contents:
    """Fields of the sections whose idstr begins with `section`."""
    text = bytearray()
    bodies = list(_sections(data, text))
    schema = schema_from_earlier(bytes(text)) if text else None
    found: Contents = {}
    for full, body in bodies:
        if not full.idstr.startswith(section):
            continue
        fields = found.setdefault((full.idstr, full.instance_id), {"(version)": str(full.version_id)})
        if schema is None:
            fields["(undescribed)"] = bytes(body.data).hex()
            continue
        for path, field in schema.decode(full, memoryview(body.data), body.offset).walk():
            if field.type == "virtio" and field.children is None:
                fields.update((f"{path}.{name}", value) for name, value in virtio_fields(bytes(field.raw)))
            elif field.children is None:
                fields[path] = _text(field.value)
    return found


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() if len(value) <= _SHOWN else f"{value[:_SHOWN].hex()}… ({len(value)} bytes)"
    return str(value)


def _sections(data: bytes, text: bytearray) -> Iterator[tuple[SectionFull, DeviceState]]:
    """Headers and bodies of FULL sections; `text` gets the stream's description."""
    session = MigrationSession()
    session.open("main")
    waiting = [b"", data]
    full: SectionFull | None = None
    while True:
        item = session.next_event()
        if item is CLOSED:
            return
        event = getattr(item, "event", None)
        if event is None:
            session.receive_data("main", waiting.pop())
        elif isinstance(event, SectionFull):
            full = event
        elif isinstance(event, DeviceState):
            yield cast(SectionFull, full), event
        elif isinstance(event, VmDescription):
            text += event.json


# -- virtio -----------------------------------------------------------------------------------------------

#: PCI configuration space: conventional and express; offset of the capabilities' list
_CONFIG, _EXPRESS, _LIST = 256, 4096, 0x34
_CAP_EXPRESS, _CAP_MSIX = 0x10, 0x11


class _Bytes:
    """Reads big-endian numbers one after the other."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def take(self, length: int) -> bytes:
        piece = self.data[self.at : self.at + length]
        self.at += length
        return piece


def virtio_fields(data: bytes) -> Iterator[tuple[str, str]]:
    """Names and values in what `virtio_save` wrote, as far as its layout does not depend on the device type;
    the rest in lines of 16 bytes."""
    reader = _Bytes(data)
    pci = data[:4] == b"\0\0\0\2" and data[4:6] == b"\xf4\x1a"
    yield from _pci_part(reader) if pci else _mmio_part(reader)
    for name, width in (("status", 1), ("isr", 1), ("queue_sel", 2), ("guest_features", 4)):
        yield name, f"{reader.number(width):#x}"
    length = reader.number(4)
    if length > len(data):
        return
    yield "config", reader.take(length).hex()
    count = reader.number(4)
    yield "queues", str(count)
    for index in range(min(count, 1024)):
        yield f"vq[{index}].vring.num", str(reader.number(4))
        if not pci:
            yield f"vq[{index}].vring.align", str(reader.number(4))
        yield f"vq[{index}].vring.desc", f"{reader.number(8):#x}"
        yield f"vq[{index}].last_avail_idx", str(reader.number(2))
        if pci:
            yield f"vq[{index}].vector", f"{reader.number(2):#x}"
    behind = data[reader.at :]
    yield "bytes behind the queues", str(len(behind))
    for at in range(0, len(behind), 16):
        yield f"behind the queues +{at:#x}", behind[at : at + 16].hex()


def _pci_part(reader: _Bytes) -> Iterator[tuple[str, str]]:
    """hw/virtio/virtio-pci.c `virtio_pci_save_config`."""
    reader.take(4)
    config = reader.data[4 : 4 + _CONFIG]
    capabilities = dict(_capabilities(config))
    size = _EXPRESS if _CAP_EXPRESS in capabilities else _CONFIG
    space = reader.take(size)
    for at in range(0, size, 16):
        yield f"pci.config[{at:#x}]", space[at : at + 16].hex()
    yield "pci.irq_state", reader.take(16).hex()
    if _CAP_MSIX in capabilities:
        at = capabilities[_CAP_MSIX]
        entries = (int.from_bytes(config[at + 2 : at + 4], "little") & 0x7FF) + 1
        yield "pci.msix.table", reader.take(16 * entries).hex()
        yield "pci.msix.pending", reader.take((entries + 7) // 8).hex()
        yield "pci.msix.config_vector", f"{reader.number(2):#x}"


def _capabilities(config: bytes) -> Iterator[tuple[int, int]]:
    at, seen = config[_LIST] & 0xFC, 0
    while at >= 0x40 and seen < 48:
        yield config[at], at
        at, seen = config[at + 1] & 0xFC, seen + 1


def _mmio_part(reader: _Bytes) -> Iterator[tuple[str, str]]:
    """hw/virtio/virtio-mmio.c `virtio_mmio_save_config`."""
    for name in ("host_features_sel", "guest_features_sel", "guest_page_shift"):
        yield f"mmio.{name}", str(reader.number(4))
