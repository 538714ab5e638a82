"""TLS: records listed, contents left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig._wire import Record
from qmig.errors import LimitExceeded, RemoteProtocolError, TruncatedStream
from qmig.legacy.tls import TlsContentType, TlsReceiver, TlsRecord
from qmig.testing.channels import drive

RECORDS = [
    bytes.fromhex("16 0301 0006 01 000002 0303"),
    bytes.fromhex("14 0303 0001 01"),
    bytes.fromhex("17 0303 0005") + b"\xa5" * 5,
    bytes.fromhex("17 0303 4800") + bytes(18432),
    bytes.fromhex("15 0303 0000"),
]
DATA = b"".join(RECORDS)


def test_records() -> None:
    events: list[Record] = []
    seen, error = drive(TlsReceiver(), DATA, keep=events)
    assert error is None
    assert [part.wire for part in seen] == RECORDS
    first = events[0]
    assert isinstance(first, TlsRecord)
    assert (first.content_type, first.version, first.length) == (TlsContentType.HANDSHAKE, 0x0301, 6)


@given(st.lists(st.integers(1, len(DATA) - 1), max_size=20))
def test_any_chunking_is_the_same(cuts: list[int]) -> None:
    seen, error = drive(TlsReceiver(), DATA, cuts)
    assert error is None
    assert [part.wire for part in seen] == RECORDS


def test_a_cut_delivers_what_came() -> None:
    edges = [sum(map(len, RECORDS[:at])) for at in range(len(RECORDS) + 1)]
    for end in [*range(edges[3] + 9), *range(edges[4] - 1, edges[5] + 1)]:
        seen, error = drive(TlsReceiver(offset=9), DATA[:end])
        whole = max(at for at, edge in enumerate(edges) if edge <= end)
        assert [part.wire for part in seen] == RECORDS[:whole]
        assert (error is None) is (end in edges)
        assert error is None or (type(error) is TruncatedStream and error.offset == 9 + edges[whole])


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ("19 0303", RemoteProtocolError, "content type 25"),
        ("00 0303", RemoteProtocolError, "content type 0"),
        ("17 0403", RemoteProtocolError, "version 0x0403"),
        ("17 0303 4801", LimitExceeded, "18433"),
    ],
)
def test_what_is_no_record(data: str, kind: type[RemoteProtocolError], message: str) -> None:
    """It is told as soon as it shows, not when a record's length has come."""
    seen, error = drive(TlsReceiver(), RECORDS[0] + bytes.fromhex(data))
    assert len(seen) == 1
    assert type(error) is kind
    assert error.requirement == "LEG-CHN-020"
    assert error.offset == len(RECORDS[0])
    assert message in error.message
