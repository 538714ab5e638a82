"""The vectors of RAM sections, whole and byte by byte.

Decoding: the records with offset and size, batches of pages and differences taken apart: what came,
offset in the block, fill byte or SHA-256 of a page, payload of a difference. Flags of a vector: what
the reader knows beforehand.
"""

import hashlib
from typing import Any

import pytest

from qmig._feed import Feed, Steps
from qmig._wire import Record
from qmig.errors import LocalProtocolError
from qmig.legacy import xbzrle
from qmig.legacy.mappedram import MappedRamGap, MappedRamPages
from qmig.legacy.ram import RamDeltas, RamFlag, RamPages
from qmig.legacy.ramwalk import RamReader
from qmig.legacy.state import StreamState
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors
from qmig.testing.parsers import parse

RAM = list(load_vectors("legacy/ram#", reader="ram"))
DIFFERENCES = list(load_vectors("legacy/ram#", reader="xbzrle"))


def tell(event: Record) -> list[dict[str, Any]]:
    """What an event stands for, whatever chunks it came in."""
    if isinstance(event, RamPages):
        told: list[dict[str, Any]] = []
        for kind, address, count, at in event.runs():
            stride = event.stride(kind)
            for index in range(count):
                stop = at + stride * (index + 1)
                page: dict[str, Any] = {"block": event.block, "page": address + index * event.page_size}
                if kind & 1:
                    raw = bytes(event.data[stop - event.page_size : stop])
                    page |= {"page_size": event.page_size, "sha256": hashlib.sha256(raw).hexdigest()}
                else:
                    page |= {"fill": event.data[stop - 1]}
                told.append(page)
        return told
    if isinstance(event, RamDeltas):
        return [
            {"block": event.block, "page": address, str(RamFlag(kind).name).lower(): payload.hex()}
            for kind, address, payload in event.records()
        ]
    values = {
        name: value.hex() if isinstance(value, bytes) else value for name, value in event.values().items()
    }
    return [{"record": type(event).__name__, "offset": event.offset, "size": event.size} | values]


def decode(vector: Vector, step: int) -> dict[str, Any]:
    def reader(feed: Feed) -> Steps[None]:
        state = StreamState()
        state.configured = True
        state.capabilities = frozenset({"mapped-ram", "x-ignore-shared"} & set(vector.flags))
        state.postcopy_advised = "advised" in vector.flags
        yield from RamReader(feed, state).records()

    data = vector.data()
    found = parse(reader, data, cuts=range(step, len(data), step))
    told = [
        item
        for event in found.events
        if not isinstance(event, MappedRamGap | MappedRamPages)
        for item in tell(event)
    ]
    if found.error is None:
        assert found.left == 0
        assert b"".join(event.encode() for event in found.events) == data
        return {"decoding": told}
    return {
        "error": type(found.error).__name__,
        "offset": found.error.offset,
        "requirement": found.error.requirement,
        "record": found.error.record,
        "decoding": told,
    }


@pytest.mark.parametrize("vector", [pytest.param(v, id=v.id) for v in RAM])
@pytest.mark.parametrize("step", [1 << 30, 1, 100])
def test_ram(vector: Vector, step: int) -> None:
    assert decode(vector, step) == vector.expect
    assert ("error" in vector.expect) == (vector.result == "invalid")


@pytest.mark.parametrize("vector", [pytest.param(v, id=v.id) for v in DIFFERENCES])
def test_xbzrle(vector: Vector) -> None:
    old, delta = vector.data("old"), vector.data()
    if "error" in vector.expect:
        with pytest.raises(LocalProtocolError) as caught:
            xbzrle.decode(old, delta)
        assert caught.value.requirement == vector.expect["requirement"]
        return
    assert xbzrle.decode(old, delta).hex() == vector.expect["decoding"]["new"]
    if "not-shortest" not in vector.flags:
        assert xbzrle.encode(old, bytes(xbzrle.decode(old, delta))) == delta
