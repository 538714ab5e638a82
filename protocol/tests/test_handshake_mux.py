"""Streams with credit on one pipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qmig.errors import LocalProtocolError
from qmig.handshake import limits
from qmig.handshake.frames import (
    DataFrame,
    FrameHeader,
    FrameReader,
    HandshakeError,
    WindowFrame,
    message_frames,
)
from qmig.handshake.messages import Info
from qmig.handshake.mux import Mux, StreamData
from qmig.handshake.transcript import Running

HELLO = message_frames(b"\x82\x01\xa0")


def reader() -> FrameReader:
    made = FrameReader(Running(), data=True)
    made.receive_data(HELLO)
    made.next()
    return made


def kinds(data: bytes) -> list[tuple[int, int, int]]:
    """Kind, stream and length of each frame."""
    found = []
    while data:
        header, _ = FrameHeader.decode(memoryview(data)[:8])
        found.append((header.kind, header.stream, header.length))
        data = data[8 + header.length :]
    return found


@given(
    st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=40)), max_size=30),
    st.integers(1, 60),
    st.integers(1, 60),
)
def test_all_bytes_arrive_in_order_within_the_credit(
    pieces: list[tuple[int, bytes]], window: int, most: int
) -> None:
    ours = Mux(3, ours=1, theirs=window, urgent=frozenset({3}))
    theirs = Mux(3, ours=window, theirs=1)
    expected = {number: b"".join(data for stream, data in pieces if stream == number) for number in (1, 2, 3)}
    for stream, data in pieces:
        ours.send(stream, data)
    for number in expected:
        ours.finish(number)
    frames, back = reader(), reader()
    got: dict[int, bytes] = dict.fromkeys(expected, b"")
    ended: set[int] = set()
    while len(ended) < 3:
        frames.receive_data(ours.data_to_send(most))
        while isinstance(frame := frames.next(), DataFrame):
            arrived = theirs.receive(frame, 0)
            assert isinstance(arrived, StreamData)
            got[arrived.stream] += arrived.data
            theirs.consumed(arrived.stream, len(arrived.data))
            ended |= {arrived.stream} if arrived.fin else set()
        back.receive_data(theirs.data_to_send())
        while isinstance(frame := back.next(), WindowFrame):
            ours.receive(frame, 0)
    assert got == expected
    assert all(ours.queued(number) == 0 for number in expected)


def test_messages_go_first_then_credit_then_what_is_urgent() -> None:
    """HS-MUX-009."""
    mux = Mux(3, ours=10, theirs=1 << 20, urgent=frozenset({3}))
    mux.send(1, b"a")
    mux.send(2, b"b")
    mux.send(3, b"c")
    mux.receive(DataFrame(1, b"0123456789", fin=False), 0)
    mux.consumed(1, 10)
    mux.control(message_frames(Info(bytes=1).encode()))
    assert [kind[:2] for kind in kinds(mux.data_to_send())] == [(4, 1), (1, 0), (2, 3), (2, 1), (2, 2)]


def test_a_frame_is_not_longer_than_it_may_be_and_streams_take_turns() -> None:
    """HS-MUX-009, HS-LIM-002."""
    mux = Mux(2, ours=1, theirs=1 << 30)
    mux.send(1, bytes(2 * limits.FRAME_DATA + 5))
    mux.send(2, b"x")
    assert kinds(mux.data_to_send(1 << 20)) == [
        (2, 1, limits.FRAME_DATA), (2, 2, 1), (2, 1, limits.FRAME_DATA), (2, 1, 5),
    ]  # fmt: skip


def test_a_stream_without_credit_does_not_stop_another() -> None:
    """HS-MUX-008."""
    mux = Mux(2, ours=1, theirs=4)
    mux.send(1, b"123456")
    assert kinds(mux.data_to_send()) == [(2, 1, 4)]
    mux.send(2, b"ab")
    mux.finish(1)
    assert kinds(mux.data_to_send()) == [(2, 2, 2)]
    mux.receive(WindowFrame(1, 9), 0)
    assert kinds(mux.data_to_send()) == [(2, 1, 2)]
    assert mux.data_to_send() == b""


def test_opening_and_finishing_need_no_credit() -> None:
    """HS-MUX-006, HS-MUX-011."""
    mux = Mux(1, ours=1, theirs=0)
    mux.open(1)
    mux.send(1, b"")
    mux.finish(1)
    assert mux.data_to_send().hex() == "0200000100000000" + "0202000100000000"
    acts: list[Callable[[], object]] = [
        lambda: mux.finish(1),
        lambda: mux.send(1, b"x"),
        lambda: mux.open(1),
        lambda: mux.send(7, b"x"),
    ]
    for act in acts:
        with pytest.raises(LocalProtocolError):
            act()


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([DataFrame(0, b"x", fin=False)], "channel-unexpected"),
        ([DataFrame(3, b"x", fin=False)], "channel-unexpected"),
        ([WindowFrame(0, 1)], "channel-unexpected"),
        ([DataFrame(1, bytes(11), fin=False)], "limit-exceeded"),
        ([DataFrame(1, bytes(10), fin=False), DataFrame(1, b"x", fin=False)], "limit-exceeded"),
        ([DataFrame(1, b"", fin=True), DataFrame(1, b"", fin=False)], "unexpected-message"),
        ([WindowFrame(1, limits.CREDIT_MOST)], "limit-exceeded"),
    ],
)
def test_frames_that_break_the_rules(frames: list[Any], code: str) -> None:
    """HS-MUX-003, HS-MUX-004."""
    mux = Mux(2, ours=10, theirs=1)
    for frame in frames[:-1]:
        mux.receive(frame, 0)
    with pytest.raises(HandshakeError) as problem:
        mux.receive(frames[-1], 5)
    assert (problem.value.code, problem.value.offset) == (code, 5)


def test_no_credit_is_given_for_a_stream_that_has_ended() -> None:
    mux = Mux(1, ours=2, theirs=1)
    mux.receive(DataFrame(1, b"ab", fin=True), 0)
    mux.consumed(1, 2)
    assert mux.data_to_send() == b""
