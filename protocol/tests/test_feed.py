"""`_feed`: chunks of any size read as one piece, with nothing kept that was not asked for."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig._feed import Feed, Steps
from qmig.errors import LimitExceeded, RemoteProtocolError, TruncatedStream
from qmig.legacy.header import Configuration
from qmig.legacy.sections import SectionStart


def run(steps: Generator[Any, None, Any]) -> tuple[str, Any]:
    """Runs until data are needed or a value is there."""
    try:
        assert next(steps) is None
    except StopIteration as stop:
        return "value", stop.value
    return "need", None


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(1, 20)), sizes=st.lists(st.integers(0, 30)))
def test_taken_pieces_are_the_stream(data: bytes, cuts: list[int], sizes: list[int]) -> None:
    feed = Feed(1000)
    left, position = data, 0
    chunks = [*cuts, 200]
    for size in sizes:
        steps = feed.take(size)
        while True:
            state, view = run(steps)
            if state == "value":
                break
            if not left:
                return
            scratch = bytearray(left[: chunks[0]])
            left, chunks = left[chunks[0] :], chunks[1:] or [200]
            feed.give(scratch)
            feed.settle()
            scratch[:] = bytes(len(scratch))  # the caller reuses its buffer
        assert bytes(view) == data[position : position + size]
        position += size
        assert feed.offset == 1000 + position


def test_a_chunk_is_read_in_place() -> None:
    chunk = bytes(range(200))
    feed = Feed()
    feed.give(chunk)
    _, view = run(feed.take(100))
    assert view.obj is chunk
    assert feed.window().obj is chunk


def test_drain_and_unread_lose_nothing() -> None:
    feed = Feed()
    feed.give(b"abc")
    run(feed.need(4))
    feed.settle()
    feed.give(b"def")
    view = feed.drain()
    assert (bytes(view), feed.offset, feed.available) == (b"abcdef", 6, 0)
    feed.unread(view[2:])
    assert feed.offset == 2
    assert bytes(run(feed.take(4))[1]) == b"cdef"
    feed.give(b"xy")
    assert bytes(feed.drain()) == b"xy"


def test_window_joins_what_came_late() -> None:
    feed = Feed()
    feed.give(b"ab")
    feed.settle()
    assert bytes(feed.window()) == b"ab"


def test_end_of_input() -> None:
    feed = Feed()
    steps = feed.at_end()
    assert run(steps) == ("need", None)
    feed.give(b"")
    assert run(steps) == ("value", True)
    feed = Feed()
    feed.give(b"x")
    assert run(feed.at_end()) == ("value", False)


def test_truncation_names_record_offset_and_shortfall() -> None:
    feed = Feed(16)
    feed.give(b"\x01\0\0\0\x05\x03ra")
    steps: Steps[Any] = feed.read(SectionStart)
    assert run(steps)[0] == "need"
    feed.give(b"")
    with pytest.raises(TruncatedStream, match=r"input ends at 0x18, at least 6 bytes short") as caught:
        run(steps)
    error = caught.value
    assert (error.offset, error.record, error.requirement) == (16, "SectionStart", "LEG-SEC-010")
    assert str(error) == (
        "offset 0x10, SectionStart: input ends at 0x18, at least 6 bytes short [LEG-SEC-010]"
    )


def test_codec_complaints_become_remote() -> None:
    feed = Feed()
    feed.give(b"\x04" + bytes(20))
    with pytest.raises(RemoteProtocolError, match="section_type is 4, expected 1"):
        run(feed.read(SectionStart))
    feed = Feed()
    feed.give(b"\x07\xff\xff\xff\xff")
    with pytest.raises(LimitExceeded, match="over the limit"):
        run(feed.read(Configuration))


def test_an_error_names_the_channel_when_there_are_several() -> None:
    error = RemoteProtocolError("odd", requirement="LEG-GEN-001", offset=1, record="X", channel="rp")
    assert str(error) == "rp: offset 0x1, X: odd [LEG-GEN-001]"
