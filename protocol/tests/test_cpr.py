"""CPR state: lists of descriptors and devices, in both forms."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig._wire import Record
from qmig.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError, TruncatedStream
from qmig.legacy.cpr import (
    VFIO_DEVICES,
    CprFd,
    CprHeader,
    CprListEnd,
    CprReceiver,
    CprSubsection,
    CprVfioDevice,
)
from qmig.legacy.receiver import CLOSED, NEED_DATA
from qmig.legacy.sections import TrailingBytes
from qmig.spec.vectors import Vector
from qmig.testing import load_vectors

HEAD = CprHeader(version=1)
END = CprListEnd()
FD = CprFd(name="pc.ram\0", id=0, service=0x20)
NUMBER = CprFd(name="/objects/mem\0", id=-1, number=25)
VFIO = [
    CprSubsection(name=VFIO_DEVICES, version_id=1),
    CprVfioDevice(name="0000:01:00.0\0", devid=2, ioas_id=3, hwpt_id=4),
    END,
]


def joined(records: Sequence[Record]) -> bytes:
    return b"".join(record.encode() for record in records)


def read(data: bytes, step: int = 0, offset: int = 100) -> tuple[list[Record], Exception | None]:
    receiver = CprReceiver(offset=offset)
    events: list[Record] = []
    step = step or max(1, len(data))
    try:
        for start in [*range(0, len(data), step), len(data)]:
            receiver.receive_data(data[start : start + step])
            while isinstance(event := receiver.next_event(), Record):
                if isinstance(event, TrailingBytes):
                    event = TrailingBytes(data=bytes(event.data)).place(event.offset, event.size)
                events.append(event)
            assert event is (CLOSED if start >= len(data) else NEED_DATA)
    except RemoteProtocolError as error:
        return events, error
    return events, None


@pytest.mark.parametrize(
    "records",
    [
        [HEAD, END],
        [HEAD, FD, FD, END],
        [HEAD, FD, END, *VFIO],
        [HEAD, NUMBER, END, *VFIO],
        [HEAD, CprFd(name="x\0", id=0, number=-1), FD, END],
    ],
)
def test_states(records: list[Record]) -> None:
    data = joined(records)
    for step in (0, 1, 5):
        events, error = read(data, step)
        assert error is None
        assert events == records
        assert events[0].offset == 100
    valid = {100 + len(joined(records[: records.index(END) + 1]))}  # without the subsection, as 10.0
    for end in range(len(data)):
        events, error = read(data[:end])
        assert events == records[: len(events)]
        assert isinstance(error, TruncatedStream) != (100 + end in valid), end


def test_bytes() -> None:
    assert FD.encode() == bytes.fromhex("01 00000007 70632e72616d00 00000000 20")
    assert NUMBER.encode()[-8:] == bytes.fromhex("ffffffff 00000019")


def test_descriptors_go_to_service_bytes_in_order() -> None:
    receiver = CprReceiver()
    receiver.receive_data(joined([HEAD, FD, FD, NUMBER, END]), [10, 11, 12])
    events = []
    while isinstance(event := receiver.next_event(), Record):
        events.append(event)
    assert [event.descriptor for event in events if isinstance(event, CprFd)] == [10, 11, None]
    assert receiver.surplus == (12,)
    receiver.receive_data(b"")
    assert receiver.next_event() is CLOSED


def test_what_trails_behind_is_delivered_as_such() -> None:
    events, error = read(joined([HEAD, END]) + b"\0\5\1", 1)
    assert error is None
    assert b"".join(event.encode() for event in events[2:]) == b"\0\5\1"
    assert {type(event) for event in events[2:]} == {TrailingBytes}


@pytest.mark.parametrize(
    ("data", "requirement", "offset"),
    [
        (b"QEVM\0\0\0\1", "LEG-CPR-001", 100),
        (CprHeader(version=2).encode(), "LEG-CPR-002", 100),
        (HEAD.encode() + b"\2", "LEG-CPR-013", 108),
        (HEAD.encode() + FD.encode()[:-1] + b"\x21", "LEG-CPR-011", 108),
        (HEAD.encode() + b"\1\0\0\0\2ab\0\0\0\0\x20", "LEG-CPR-012", 108),
        (HEAD.encode() + b"\1\0\0\0\2\0\0\0\0\0\0\x20", "LEG-CPR-012", 108),
        (HEAD.encode() + b"\1\0\0\0\0\0\0\0\0\x20", "LEG-CPR-012", 108),
        (joined([HEAD, END, CprSubsection(name="CprState/other", version_id=1)]), "LEG-CPR-022", 109),
        (joined([HEAD, END, CprSubsection(name=VFIO_DEVICES, version_id=2)]), "LEG-CPR-022", 109),
        (joined([HEAD, END, VFIO[0]]) + b"\1\0\0\0\1x", "LEG-CPR-021", 136),
    ],
)
def test_wrong_states(data: bytes, requirement: str, offset: int) -> None:
    _, error = read(data)
    assert isinstance(error, RemoteProtocolError)
    assert (error.requirement, error.offset) == (requirement, offset)


def test_lengths_and_counts_are_bounded() -> None:
    for size in (limits.CPR_NAME + 1, (1 << 32) - 1):
        _, error = read(HEAD.encode() + b"\1" + size.to_bytes(4, "big"))
        assert isinstance(error, LimitExceeded)
    _, error = read(joined([HEAD, END, VFIO[0]]) + b"\1\xff\xff\xff\xff" + bytes(20))
    assert isinstance(error, LimitExceeded)


def test_endless_lists_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CPR_ENTRIES", 3)
    events, error = read(joined([HEAD, FD, FD, FD, FD]))
    assert len(events) == 4
    assert isinstance(error, LimitExceeded)


@pytest.mark.parametrize(("service", "number"), [(None, None), (0x20, 3), (0x21, None)])
def test_forms_that_cannot_be(service: int | None, number: int | None) -> None:
    with pytest.raises(LocalProtocolError):
        CprFd(name="x\0", id=0, service=service, number=number)


@pytest.mark.parametrize("vector", [pytest.param(v, id=v.id) for v in load_vectors() if "cpr" in v.channels])
@pytest.mark.parametrize("step", [0, 1])
def test_vectors(vector: Vector, step: int) -> None:
    """Recordings round-trip; the decoding of the others is their records with offset, size and values."""
    data = vector.data("cpr")
    events, error = read(data, step, offset=0)
    found: dict[str, object] = {
        "decoding": [
            {"record": type(event).__name__, "offset": event.offset, "size": event.size, **event.values()}
            for event in events
        ]
    }
    if isinstance(error, RemoteProtocolError):
        found |= {"error": type(error).__name__, "offset": error.offset}
        found |= {"requirement": error.requirement, "record": error.record}
    else:
        assert joined(events) == data
    assert (error is None) == (vector.result == "valid")
    if vector.reader == "cpr":
        assert found == vector.expect


@given(st.binary(max_size=120), st.integers(1, 9), st.booleans())
def test_any_bytes_end_in_our_errors_however_cut(data: bytes, step: int, valid_head: bool) -> None:
    data = HEAD.encode() * valid_head + data
    whole, cut = read(data), read(data, step)
    assert joined(cut[0]) == joined(whole[0])
    assert str(cut[1]) == str(whole[1])


@given(
    name=st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=30),
    id=st.integers(-(1 << 31), (1 << 31) - 1),
    number=st.integers(0, 0x00FF_FFFF) | st.just(-1),
)
def test_descriptors_round_trip(name: str, id: int, number: int) -> None:
    for fd in (CprFd(name=name + "\0", id=id, service=0x20), CprFd(name=name + "\0", id=id, number=number)):
        assert read(joined([HEAD, fd, END])) == ([HEAD, fd, END], None)
