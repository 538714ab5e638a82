"""The vectors of return path, multifd, preempt and TLS channels, whole, byte by byte and cut anywhere.

Decoding: one object per record with name, offset, size and values. Long bytes are given by
their SHA-256; offsets and pages of a multifd packet as they are meant, `pages` being the
decompressed content (null where the method is only named).
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from qmig._wire import Record
from qmig.errors import RemoteProtocolError, TruncatedStream, UnsupportedFeature
from qmig.legacy.inflate import Inflater
from qmig.legacy.multifd import MultifdDeviceState, MultifdPacket, MultifdReceiver
from qmig.legacy.preempt import PreemptReceiver
from qmig.legacy.receiver import CLOSED, Channel
from qmig.legacy.returnpath import ReturnPathReceiver
from qmig.legacy.state import RamBlock, StreamState
from qmig.legacy.tls import TlsReceiver
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors
from qmig.testing.channels import drive

READERS = {
    "return-path": ReturnPathReceiver,
    "multifd": MultifdReceiver,
    "preempt": PreemptReceiver,
    "tls": TlsReceiver,
}
VECTORS = [pytest.param(v, id=v.id) for v in load_vectors("legacy/channels#")]


def receiver(reader: str) -> Channel:
    """With the block list that main would have given; multifd channels find their page size."""
    state = StreamState(page_size=4096 if reader == "preempt" else None)
    for name in ("pc.ram", "m1"):
        state.blocks[name] = RamBlock(name, 0x100000, None, None)
    return READERS[reader](state)


def run(reader: str, data: bytes, step: int = 1 << 20) -> dict[str, Any]:
    """Expected decoding, or error and what was decoded before it."""
    inflater = Inflater()
    channel = receiver(reader)
    told: list[dict[str, Any]] = []
    wire = b""
    try:
        for at in [*range(0, len(data), step), len(data)]:
            channel.receive_data(data[at : at + step])
            while isinstance(event := channel.next_event(), Record):
                wire += event.encode()
                where = {"record": type(event).__name__, "offset": event.offset, "size": event.size}
                told.append(where | values(event, inflater))
                merge(told)
        assert event is CLOSED
        assert wire == data
    except RemoteProtocolError as error:
        assert data.startswith(wire)
        return {
            "error": type(error).__name__,
            "offset": error.offset,
            "requirement": error.requirement,
            "record": error.record,
            "decoding": told,
        }
    return {"decoding": told}


def merge(told: list[dict[str, Any]]) -> None:
    """Batches of page records are cut where the input was; together they are always the same."""
    if len(told) > 1 and all(part["record"] == "RamPages" for part in told[-2:]):
        first, second = told[-2:]
        if first["block"] == second["block"]:
            first["size"] += second["size"]
            first["data"] += second["data"]
            told.pop()


def values(event: Record, inflater: Inflater) -> dict[str, Any]:
    if isinstance(event, MultifdDeviceState):
        return {
            "flags": event.flags,
            "idstr": event.idstr,
            "instance_id": event.instance_id,
            "data": event.data.hex(),
        }
    if not isinstance(event, MultifdPacket):
        return {name: shown(value) for name, value in event.values().items() if name != "ascents"}
    numbers = {name: value for name, value in event.values().items() if isinstance(value, int)}
    pages = {"method": event.method_name, "pages": content(event, inflater)} if event.normal_pages else {}
    return {
        **numbers,
        "block": event.block,
        "normal": event.normal_offsets().tolist(),
        "zero": event.zero_offsets().tolist(),
        **pages,
    }


def content(event: MultifdPacket, inflater: Inflater) -> str | None:
    try:
        return hashlib.sha256(inflater.pages(event)).hexdigest()
    except UnsupportedFeature:
        return None


def shown(value: object) -> object:
    if not isinstance(value, bytes | memoryview):
        return value
    return bytes(value).hex() if len(value) <= 64 else hashlib.sha256(value).hexdigest()


@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("step", [1 << 20, 1000, 1])
def test_vector(vector: Vector, step: int) -> None:
    data = vector.data()
    if step > 1 or len(data) < 10000:
        assert run(vector.reader, data, step) == vector.expect
    assert ("error" in vector.expect) == (vector.result == "invalid")


@pytest.mark.parametrize("vector", VECTORS)
def test_vector_cut_anywhere(vector: Vector) -> None:
    data = vector.data()
    whole, final = drive(receiver(vector.reader), data)
    for end in range(0, len(data), 1 if len(data) <= 8192 else 101):
        seen, error = drive(receiver(vector.reader), data[:end])
        if vector.reader == "preempt":
            assert b"".join(part.wire for part in whole).startswith(b"".join(part.wire for part in seen))
        else:
            complete = [part for part in whole if part.offset + len(part.wire) <= end]
            assert seen == complete[: len(seen)]
            # a SYNC whose length only the next packet shows is told with that
            assert len(complete) - len(seen) <= vector.id.endswith("#sync-pure")
        if error is not None and not isinstance(error, TruncatedStream):
            assert final is not None
            assert str(error) == str(final)


def test_every_reader_has_valid_and_invalid_vectors() -> None:
    kinds = {(v.values[0].reader, v.values[0].result) for v in VECTORS}  # type: ignore[union-attr]
    assert kinds >= {(reader, result) for reader in READERS for result in ("valid", "invalid")}
