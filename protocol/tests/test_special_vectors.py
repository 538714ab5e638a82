"""The vectors of handlers and containers, whole and byte by byte.

Decoding of a handler: its records with name, offset, size and values (bytes as hex).
Decoding of a container: what its reader tells of it.
"""

import hashlib
from typing import Any

import pytest

from qmig._feed import Feed, Steps
from qmig._wire import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy import qcow2
from qmig.legacy.containers import LibvirtSave, LibvirtSaveReceiver
from qmig.legacy.cpr import CprReceiver
from qmig.legacy.live import READERS, SUFFIXES
from qmig.legacy.oldstyle import PARSERS
from qmig.legacy.sections import SectionType
from qmig.legacy.state import StreamState
from qmig.legacy.vfio import full_body
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors
from qmig.testing.parsers import Parser, parse

HANDLERS = list(load_vectors("legacy/handlers#"))
LIBVIRT = list(load_vectors("legacy/containers#", reader="libvirt"))
QCOW2 = list(load_vectors("legacy/containers#", reader="qcow2"))


def parser_of(reader: str) -> Parser:
    """Handlers of live sections read section after section, as long as there are bytes."""
    if reader in PARSERS:
        return PARSERS[reader]
    if reader == "vfio-full":
        return full_body
    handler = READERS.get(reader) or SUFFIXES[f"/{reader}"]

    def sections(feed: Feed) -> Steps[None]:
        live = handler.load()(feed, StreamState())
        while not (yield from feed.at_end()):
            yield from live.section(SectionType.SECTION_PART)

    return sections


def decode(vector: Vector, step: int) -> dict[str, Any]:
    data = vector.data()
    found = parse(parser_of(vector.reader), data, cuts=range(step, len(data), step))
    records = [
        {"record": type(event).__name__, "offset": event.offset, "size": event.size}
        | {name: v.hex() if isinstance(v, bytes) else v for name, v in event.values().items()}
        for event in found.events
    ]
    if found.error is None:
        assert b"".join(event.encode() for event in found.events) == data
        return {"decoding": records}
    return failure(found.error) | {"decoding": records}


def failure(error: RemoteProtocolError) -> dict[str, Any]:
    return {
        "error": type(error).__name__,
        "offset": error.offset,
        "requirement": error.requirement,
        "record": error.record,
    }


@pytest.mark.parametrize("vector", [pytest.param(v, id=v.id) for v in HANDLERS])
@pytest.mark.parametrize("step", [1 << 20, 1])
def test_handlers(vector: Vector, step: int) -> None:
    assert decode(vector, step) == vector.expect
    assert ("error" in vector.expect) == (vector.result == "invalid")


@pytest.mark.parametrize("vector", [pytest.param(v, id=v.id) for v in LIBVIRT])
@pytest.mark.parametrize("step", [1 << 20, 1])
def test_libvirt(vector: Vector, step: int) -> None:
    data = vector.data()
    receiver = LibvirtSaveReceiver()
    try:
        for at in range(0, len(data), step):
            receiver.receive_data(data[at : at + step])
            while isinstance(event := receiver.next_event(), Record):
                assert event.encode() == data[event.offset : event.offset + event.size]
    except RemoteProtocolError as error:
        found = failure(error)
    else:
        found = {"decoding": told(receiver.save)}
    assert found == vector.expect


def told(save: LibvirtSave | None) -> dict[str, Any]:
    assert save is not None
    return {
        "xml": save.xml.decode(),
        "cookie": None if save.cookie is None else save.cookie.decode(),
        "format": save.format.name,
        "complete": save.complete,
        "payload": save.payload,
    }


@pytest.mark.parametrize("vector", [pytest.param(v, id=v.id) for v in QCOW2])
def test_qcow2(vector: Vector) -> None:
    data = vector.data()

    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    image = qcow2.run(qcow2.open_image(len(data)), read)
    found = [
        {
            "id": s.id,
            "name": s.name,
            "vm_state_size": s.vm_state_size,
            "disk_size": s.disk_size,
            "sha256": hashlib.sha256(b"".join(map(bytes, qcow2.vmstate_chunks(image, s, read)))).hexdigest(),
        }
        for s in qcow2.run(qcow2.read_snapshots(image), read)
    ]
    assert {"decoding": found} == vector.expect


def held_to_construct(event: Record) -> None:
    """The record's construct form reads its bytes to the same values, and builds the same bytes."""
    present = {row.when for row in event.fields_layout() if row.when and getattr(event, row.name) is not None}
    struct = event.construct(present)
    raw = event.encode()
    parsed = struct.parse(raw)
    assert struct.build(parsed) == raw
    for row in event.fields_layout():
        value = getattr(event, row.name)
        value = (
            value.encode()
            if isinstance(value, str)
            else bytes(value)
            if isinstance(value, memoryview)
            else value
        )
        assert parsed.get(row.name) == value


@pytest.mark.parametrize("vector", [pytest.param(v, id=v.id) for v in HANDLERS])
def test_records_of_handlers_are_what_construct_reads(vector: Vector) -> None:
    for event in parse(parser_of(vector.reader), vector.data()).events:
        held_to_construct(event)


def test_records_of_containers_are_what_construct_reads() -> None:
    for vector in [v for v in LIBVIRT if v.result == "valid"]:
        receiver = LibvirtSaveReceiver()
        receiver.receive_data(vector.data())
        while isinstance(event := receiver.next_event(), Record):
            held_to_construct(event)
    (vector,) = QCOW2
    data = memoryview(vector.data())
    header, size = qcow2.Qcow2Header.decode(data)
    features, _ = qcow2.Qcow2Features.decode(data[size:])
    entry, size = qcow2.Qcow2SnapshotEntry.decode(data[header.snapshots_offset :])
    at = header.snapshots_offset + size
    extra, _ = qcow2.Qcow2SnapshotExtra.decode(data[at : at + entry.extra_data_size])
    assert (header.nb_snapshots, features.header_length) == (2, 112)
    assert (extra.vm_state_size_large, extra.disk_size, bytes(extra.more)) == (1102, 65536, b"\xff" * 8)
    for record in (header, features, entry, extra):
        held_to_construct(record)


@pytest.mark.parametrize(
    "vector",
    [pytest.param(v, id=v.id) for v in load_vectors() if "cpr" in v.channels and v.result == "valid"],
)
def test_records_of_cpr_states_are_what_construct_reads(vector: Vector) -> None:
    receiver = CprReceiver()
    receiver.receive_data(vector.data("cpr"))
    while isinstance(event := receiver.next_event(), Record):
        held_to_construct(event)
