"""Real streams of machines other than x86 and Arm: hash page table, storage keys, clock.

Decoding: the records of the machine's own live handlers, and those of the bodies that are
no VMState (bytes of the latter as SHA-256).
"""

import hashlib
from typing import Any

import pytest

from qmig.legacy import sections as s
from qmig.legacy.oldstyle import decode_body
from qmig.legacy.s390 import StorageKeys
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors
from qmig.testing.streams import read

VECTORS = [pytest.param(v, id=v.id) for v in load_vectors("legacy/machines#")]
LIVE = ("Htab", "StorageAttributes")


def values(record: Any, *, digest: bool) -> dict[str, Any]:
    def shown(value: Any) -> Any:
        if not isinstance(value, bytes | memoryview):
            return value
        return hashlib.sha256(value).hexdigest() if digest else bytes(value).hex()

    return {name: shown(value) for name, value in record.values().items()}


@pytest.mark.parametrize("vector", VECTORS)
def test_streams(vector: Vector) -> None:
    data = vector.data()
    events, error = read(data)
    assert error is None
    assert b"".join(event.encode() for event in events) == data
    live = []
    bodies: dict[str, Any] = {}
    idstr = ""
    for event in events:
        name = type(event).__name__
        if name.startswith(LIVE):
            live.append({"record": name, "offset": event.offset, **values(event, digest=False)})
        if isinstance(event, s.SectionFull):
            idstr = event.idstr
        if isinstance(event, s.DeviceState):
            assert event.boundary == "vmdesc"
            records = decode_body(idstr, event.data, offset=event.offset)
            if records is not None:
                assert b"".join(record.encode() for record in records) == bytes(event.data)
                bodies[idstr] = [{"record": type(r).__name__, **values(r, digest=True)} for r in records]
    assert {"decoding": {"live": live, "bodies": bodies}} == vector.expect


@pytest.mark.parametrize("vector", VECTORS)
def test_in_pieces(vector: Vector) -> None:
    data = vector.data()
    events, error = read(data, range(1000, len(data), 1000))
    assert error is None
    assert b"".join(event.encode() for event in events) == data


def test_the_keys_that_the_guest_has_set() -> None:
    (vector,) = load_vectors("legacy/machines#s390x")
    events, _ = read(vector.data())
    at = next(i for i, e in enumerate(events) if isinstance(e, s.SectionFull) and e.idstr == "s390-skeys")
    state = events[at + 1]
    assert isinstance(state, s.DeviceState)
    keys = (decode_body("s390-skeys", state.data) or [])[0]
    assert isinstance(keys, StorageKeys)
    assert (keys.address, keys.count) == (0, 16 << 20 >> 12)
    assert {page: key for page, key in enumerate(bytes(keys.data)) if key & 0xF0} == {2: 0x60, 3: 0x38}


def test_without_description_the_bodies_tell_their_end() -> None:
    (vector,) = load_vectors("legacy/machines#s390x")
    data = vector.data()
    events, _ = read(data)
    end = next(event.offset for event in events if isinstance(event, s.EndOfFile))
    found, error = read(data[: end + 1])
    assert error is None
    told = {}
    idstr = ""
    for event in found:
        if isinstance(event, s.SectionFull):
            idstr = event.idstr
        if isinstance(event, s.DeviceState):
            told[idstr] = event.boundary
    assert (told["s390-skeys"], told["todclock"]) == ("built-in", "built-in")
    assert set(told.values()) == {"built-in", "footer"}
