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
