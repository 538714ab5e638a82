"""Return path: every message, wrong lengths, the bitmap outside its message, cuts, chunking."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig import limits
from qmig._wire import Record
from qmig.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError, TruncatedStream
from qmig.legacy import returnpath as rp
from qmig.testing import load_vectors
from qmig.testing.channels import drive

END = bytes.fromhex("0123456789abcdef")
BITMAP = bytes.fromhex("ff03000000000000 0000000000000080")


def message(number: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HH", number, len(payload)) + payload


def name(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def received(block: str, bitmap: bytes, *, end: bytes = END) -> bytes:
    return message(5, name(block)) + struct.pack(">Q", len(bitmap)) + bitmap + end


MESSAGES = [
    message(7),
    message(2, struct.pack(">I", 0x42)),
    message(3, struct.pack(">QI", 0x123000, 4096) + name("pc.ram")),
    message(4, struct.pack(">QI", 0x200000, 0x200000)),
    received("pc.ram", BITMAP),
    received("/rom@etc/acpi/tables", b""),
    message(6, struct.pack(">I", 1)),
    message(8, b"a message to come"),
    message(0, b""),
    message(1, struct.pack(">I", 0)),
]
DATA = b"".join(MESSAGES)
EVENTS = [
    rp.RpSwitchoverAck(),
    rp.RpPong(value=0x42),
    rp.RpReqPagesId(header_len=19, start=0x123000, length=4096, block="pc.ram"),
    rp.RpReqPages(start=0x200000, length=0x200000),
    rp.RpRecvBitmap(header_len=7, block="pc.ram", bitmap=BITMAP),
    rp.RpRecvBitmap(header_len=21, block="/rom@etc/acpi/tables", bitmap=b""),
    rp.RpResumeAck(value=1),
    rp.RpUnknown(header_type=8, payload=b"a message to come"),
    rp.RpUnknown(header_type=0, payload=b""),
    rp.RpShut(value=0),
]


def failure(data: bytes) -> RemoteProtocolError:
    """The error of a channel whose second message is `data`."""
    seen, error = drive(rp.ReturnPathReceiver(), MESSAGES[0] + data)
    assert len(seen) == 1
    assert error is not None
    assert error.offset == len(MESSAGES[0])
    return error


@pytest.mark.parametrize("cuts", [(), range(len(DATA))])
def test_every_message(cuts: range | tuple[()]) -> None:
    events: list[Record] = []
    seen, error = drive(rp.ReturnPathReceiver(), DATA, cuts, keep=events)
    assert error is None
    assert events == EVENTS
    assert [part.wire for part in seen] == MESSAGES
    assert [part.offset for part in seen] == [sum(map(len, MESSAGES[:at])) for at in range(len(MESSAGES))]


def test_every_message_of_a_writer() -> None:
    assert [event.encode() for event in EVENTS] == MESSAGES
    assert {type(event) for event in EVENTS} == {*rp.MESSAGES.values(), rp.RpUnknown}
    assert set(rp.MESSAGES) == set(rp.RpMessage) - {rp.RpMessage.INVALID}


@given(st.lists(st.sampled_from(MESSAGES), max_size=9), st.data())
def test_any_messages_in_any_chunks(messages: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(messages)
    cuts = draw.draw(st.lists(st.integers(0, len(data)), max_size=20))
    seen, error = drive(rp.ReturnPathReceiver(), data, cuts)
    assert error is None
    assert [part.wire for part in seen] == messages


NAMES = st.binary(max_size=255).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
WORDS = st.integers(0, (1 << 32) - 1)
LONGS = st.integers(0, (1 << 64) - 1)


def size_of(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))


ANY = st.one_of(
    st.builds(rp.RpShut, value=WORDS),
    st.builds(rp.RpPong, value=WORDS),
    st.builds(rp.RpResumeAck, value=WORDS),
    st.builds(rp.RpSwitchoverAck),
    st.builds(rp.RpReqPages, start=LONGS, length=WORDS),
    st.builds(
        lambda block, start, length: rp.RpReqPagesId(
            header_len=13 + size_of(block), start=start, length=length, block=block
        ),
        NAMES, LONGS, WORDS,
    ),
    st.builds(
        lambda block, words: rp.RpRecvBitmap(header_len=1 + size_of(block), block=block, bitmap=words * 8),
        NAMES, st.binary(max_size=9),
    ),
    st.builds(rp.RpUnknown, header_type=st.integers(8, 0xFFFF), payload=st.binary(max_size=512)),
)  # fmt: skip


@given(st.lists(ANY, max_size=5))
def test_any_values_come_back(written: list[Record]) -> None:
    events: list[Record] = []
    data = b"".join(event.encode() for event in written)
    _, error = drive(rp.ReturnPathReceiver(), data, keep=events)
    assert error is None
    assert events == written
    for event in written:
        struct_ = type(event).construct()
        assert struct_.build(struct_.parse(event.encode())) == event.encode()


def test_a_message_is_told_with_its_last_byte() -> None:
    """Nothing is asked for that might never come. A bitmap's message ends with its end mark (LEG-RPM-041)."""
    for data, event in zip(MESSAGES, EVENTS, strict=True):
        receiver = rp.ReturnPathReceiver(offset=7)
        receiver.receive_data(data)
        found = receiver.next_event()
        assert isinstance(found, Record)
        assert (found, found.offset, found.size) == (event, 7, len(data))


def test_a_cut_anywhere_delivers_what_came() -> None:
    edges = [sum(map(len, MESSAGES[:at])) for at in range(len(MESSAGES) + 1)]
    for end in range(len(DATA) + 1):
        seen, error = drive(rp.ReturnPathReceiver(), DATA[:end])
        whole = max(at for at, edge in enumerate(edges) if edge <= end)
        assert [part.wire for part in seen] == MESSAGES[:whole]
        assert (error is None) is (end in edges)
        assert error is None or (type(error) is TruncatedStream and error.offset == edges[whole])


@given(st.data())
def test_damage_raises_only_our_errors(draw: st.DataObject) -> None:
    data = bytearray(DATA)
    for _ in range(draw.draw(st.integers(1, 4))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    seen, error = drive(rp.ReturnPathReceiver(), bytes(data))
    assert data.startswith(b"".join(part.wire for part in seen))
    assert error is None or error.requirement.startswith("LEG-RPM-")


@given(st.binary(max_size=64))
def test_garbage_raises_only_our_errors(data: bytes) -> None:
    seen, error = drive(rp.ReturnPathReceiver(), data)
    assert error is not None or b"".join(part.wire for part in seen) == data


PAGES = struct.pack(">QI", 0, 4096)
WRONG_LENGTHS = [
    message(1), message(1, bytes(3)), message(1, bytes(5)),
    message(2), message(2, bytes(8)),
    message(3), message(3, PAGES), message(3, PAGES + b"\6pc.r"), message(3, PAGES + b"\2pc.ram"),
    message(4, PAGES[:-1]), message(4, PAGES + b"\0"),
    message(5), message(5, b"\7pc.ram"), message(5, b"\5pc.ram"),
    message(6, bytes(2)), message(6, bytes(512)),
    message(7, bytes(1)),
]  # fmt: skip


@pytest.mark.parametrize("data", WRONG_LENGTHS, ids=bytes.hex)
def test_another_length_than_the_message_has(data: bytes) -> None:
    error = failure(data)
    assert type(error) is RemoteProtocolError
    assert error.requirement == "LEG-RPM-004"
    assert f"header_len is {len(data) - 4}, expected" in error.message
    assert error.record == rp.MESSAGES[data[1]].__name__


@pytest.mark.parametrize("number", range(10))
def test_more_than_a_source_takes(number: int) -> None:
    error = failure(struct.pack(">HH", number, 513))
    assert error.requirement == "LEG-RPM-002"
    assert failure(struct.pack(">HH", number, 0xFFFF)).requirement == "LEG-RPM-002"


def test_the_longest_unknown_message_is_passed_over() -> None:
    data = message(0xFFFF, bytes(512)) + MESSAGES[0]
    seen, error = drive(rp.ReturnPathReceiver(), data)
    assert error is None
    assert [part.name for part in seen] == ["RpUnknown", "RpSwitchoverAck"]


@pytest.mark.parametrize("size", [1, 7, 9, (1 << 64) - 1])
def test_a_bitmap_that_is_no_multiple_of_8_bytes(size: int) -> None:
    error = failure(message(5, name("pc.ram")) + struct.pack(">Q", size))
    assert (type(error), error.requirement) == (RemoteProtocolError, "LEG-RPM-042")


def test_a_bitmap_over_the_limit_costs_nothing() -> None:
    tracemalloc.start()
    error = failure(message(5, name("pc.ram")) + struct.pack(">Q", limits.RECV_BITMAP + 8) + bytes(1 << 16))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (type(error), error.requirement) == (LimitExceeded, "LEG-RPM-040")
    assert peak < 1 << 21


def test_a_wrong_end_mark() -> None:
    error = failure(received("pc.ram", BITMAP, end=END[::-1]))
    assert (error.requirement, error.record) == ("LEG-RPM-043", "RpRecvBitmap")
    assert "end mark 0xefcdab8967452301, expected 0x123456789abcdef" in error.message


def test_names_are_bytes() -> None:
    events: list[Record] = []
    data = message(5, b"\x02\xff\x80") + bytes(8) + END
    drive(rp.ReturnPathReceiver(), data, keep=events)
    assert events == [rp.RpRecvBitmap(header_len=3, block="\udcff\udc80", bitmap=b"")]
    assert events[0].encode() == data


def test_a_writer_gets_the_same_checks() -> None:
    with pytest.raises(LocalProtocolError, match="header_len is 14, expected 15"):
        rp.RpReqPagesId(header_len=14, start=0, length=0, block="m0")
    with pytest.raises(LocalProtocolError, match="header_len is 4, expected 3"):
        rp.RpRecvBitmap(header_len=4, block="m0", bitmap=b"")
    with pytest.raises(LocalProtocolError, match="bitmap of 9 bytes"):
        rp.RpRecvBitmap(header_len=3, block="m0", bitmap=bytes(9))


def test_recorded_return_paths_are_their_messages() -> None:
    kinds: dict[str, int] = {}
    for vector in load_vectors(reader="stream"):
        for channel, content in vector.channels.items():
            if channel.split("-")[0] != "rp":
                continue
            data = content.read()
            seen, error = drive(rp.ReturnPathReceiver(), data, range(0, len(data), 11))
            assert error is None, vector.id
            assert b"".join(part.wire for part in seen) == data
            for part in seen:
                kinds[part.name] = kinds.get(part.name, 0) + 1
    assert set(kinds) >= {kind.__name__ for kind in rp.MESSAGES.values() if kind is not rp.RpSwitchoverAck}
