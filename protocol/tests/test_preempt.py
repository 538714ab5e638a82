"""Preempt channel: bare RAM records, ended by EOS or by the end of the connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig._wire import Record
from qmig.errors import RemoteProtocolError, TruncatedStream
from qmig.legacy.preempt import PreemptReceiver
from qmig.legacy.ram import RamFlag, RamPages
from qmig.legacy.receiver import LegacyReceiver
from qmig.legacy.state import RamBlock, StreamState
from qmig.testing import load_vectors
from qmig.testing.channels import drive

PAGE = bytes(range(256)) * 16
EOS = bytes(7) + b"\x10"


def record(address: int, flags: int, content: bytes, block: str = "") -> bytes:
    name = bytes([len(block)]) + block.encode() if block else b""
    return (address | flags).to_bytes(8, "big") + name + content


RECORDS = [
    record(0x1000, 0x08, PAGE, "pc.ram"),
    record(0x2000, 0x28, PAGE),
    record(0x3000, 0x22, b"\0"),
    record(0x1000, 0x02, b"\0", "m1"),
    record(0x2000, 0x28, PAGE),
]
DATA = b"".join(RECORDS)


def state(page_size: int | None = 4096) -> StreamState:
    known = StreamState(page_size=page_size)
    for name in ("pc.ram", "m1"):
        known.blocks[name] = RamBlock(name, 0x10000, None, None)
    return known


@pytest.mark.parametrize("end", [b"", EOS])
@pytest.mark.parametrize("page_size", [None, 4096])
@pytest.mark.parametrize("cuts", [(), range(len(DATA))])
def test_records_up_to_eos_or_the_end(end: bytes, page_size: int | None, cuts: range | tuple[()]) -> None:
    events: list[Record] = []
    seen, error = drive(PreemptReceiver(state(page_size)), DATA + end, cuts, keep=events)
    assert error is None
    assert b"".join(part.wire for part in seen) == DATA + end
    assert [part.name for part in seen if part.name != "RamPages"] == (["RamEos"] if end else [])
    batches = [event for event in events if isinstance(event, RamPages)]
    assert {batch.block for batch in batches} == {"pc.ram", "m1"}


def test_a_channel_without_a_request_is_empty() -> None:
    assert drive(PreemptReceiver(state()), b"") == ([], None)
    seen, error = drive(PreemptReceiver(state(None)), EOS)
    assert ([part.name for part in seen], error) == (["RamEos"], None)


def test_what_comes_behind_eos_is_not_read() -> None:
    seen, error = drive(PreemptReceiver(state(), offset=50), EOS + b"what is this?")
    assert error is None
    assert [(part.name, part.offset) for part in seen] == [("RamEos", 50), ("TrailingBytes", 58)]


@given(st.lists(st.integers(1, len(DATA) - 1), max_size=20))
def test_any_chunking_is_the_same_bytes(cuts: list[int]) -> None:
    seen, error = drive(PreemptReceiver(state()), DATA, cuts)
    assert error is None
    assert b"".join(part.wire for part in seen) == DATA


def test_a_cut_anywhere_delivers_what_came() -> None:
    edges = [sum(map(len, RECORDS[:at])) for at in range(len(RECORDS) + 1)]
    for end in sorted({*range(0, len(DATA), 5), *(e + d for e in edges[1:] for d in (-1, 0) if e + d)}):
        seen, error = drive(PreemptReceiver(state()), DATA[:end])
        whole = max(edge for edge in edges if edge <= end)
        assert b"".join(part.wire for part in seen) == DATA[:whole]
        assert (error is None) is (end == whole)
        assert error is None or (type(error) is TruncatedStream and error.offset == whole)


@pytest.mark.parametrize(
    "flag", sorted(set(RamFlag) - {RamFlag.PAGE, RamFlag.ZERO, RamFlag.EOS, RamFlag.CONTINUE})
)
def test_no_other_record_belongs_here(flag: RamFlag) -> None:
    seen, error = drive(PreemptReceiver(state()), RECORDS[0] + record(0x2000, flag, b"\0" * 9))
    assert b"".join(part.wire for part in seen) == RECORDS[0]
    assert error is not None
    assert (error.requirement, error.offset) == ("LEG-PRE-003", len(RECORDS[0]))


def test_the_first_record_names_its_block() -> None:
    """Whatever main named last (LEG-PRE-002)."""
    _, error = drive(PreemptReceiver(state()), RECORDS[1])
    assert error is not None
    assert error.requirement == "LEG-RAM-041"


def test_a_block_that_main_did_not_list() -> None:
    _, error = drive(PreemptReceiver(), RECORDS[0])
    assert error is not None
    assert error.requirement == "LEG-RAM-040"


def test_recorded_channels_are_their_records() -> None:
    channels = set()
    for vector in load_vectors(reader="stream"):
        names = [name for name in vector.channels if name.startswith("preempt")]
        if not names:
            continue
        main = LegacyReceiver()
        main.receive_data(vector.channels["main"].read())
        main.receive_data(b"")
        try:
            while isinstance(main.next_event(), Record):
                pass
        except RemoteProtocolError as error:
            assert isinstance(error, TruncatedStream)  # noqa: PT017 - a recovery: main breaks off
        for name in names:
            data = vector.channels[name].read()
            seen, problem = drive(PreemptReceiver(main.state), data, range(0, len(data), 40009))
            assert problem is None, vector.id
            assert b"".join(part.wire for part in seen) == data
            channels.add((vector.id.split("#")[1][:4], seen[-1].name))
    assert {("7.2-", "RamEos"), ("11.1", "RamPages")} <= channels
