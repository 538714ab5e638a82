"""Drives one parser over bytes in every way that bytes can come, for tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from qmig._feed import Feed, Steps
from qmig._wire import Record
from qmig.errors import RemoteProtocolError, TruncatedStream

Parser = Callable[[Feed], Steps[None]]


class Outcome(NamedTuple):
    """Events in order, the error that ended them (None: the parser returned), bytes left unread."""

    events: list[Record]
    error: RemoteProtocolError | None
    left: int


def parse(parser: Parser, data: bytes, *, cuts: Iterable[int] = (), offset: int = 0) -> Outcome:
    """Gives `data`, cut at the positions `cuts`, then the end of input."""
    feed = Feed(offset)
    steps = parser(feed)
    events: list[Record] = []
    bounds = [0, *sorted(cuts), len(data)]
    chunks = iter([bytearray(data[a:b]) for a, b in itertools.pairwise(bounds) if b > a] + [bytearray()])
    chunk = next(chunks)
    feed.give(chunk)
    try:
        for event in steps:
            if event is not None:
                events.append(type(event)(**_copied(event)).place(event.offset, event.size))
                continue
            feed.settle()
            chunk[:] = b"\xa5" * len(chunk)  # whoever still looks at the old chunk sees this
            chunk = next(chunks)
            feed.give(chunk)
    except RemoteProtocolError as error:
        return Outcome(events, error, feed.available)
    return Outcome(events, None, feed.available + sum(map(len, chunks)))


def _copied(event: Record) -> dict[str, object]:
    """The values, with views made bytes: a view lives until the next chunk only."""
    return {
        name: bytes(value) if isinstance(value, memoryview) else value
        for name, value in event.values().items()
    }


def explore(
    parser: Parser, data: bytes, *, behind: bytes = b"\x7e\0\0\0\1", offset: int = 0x1000
) -> list[Record]:
    """Holds a parser of valid `data` to what every parser promises, and returns its events:

    the events' bytes are the data, in order and without gaps; byte by byte gives the
    same; bytes `behind` are left alone; a cut anywhere yields the events before it and
    then `TruncatedStream`. Raises `AssertionError` otherwise."""
    whole = parse(parser, data + behind, offset=offset)
    assert whole.error is None, whole.error
    assert whole.left == len(behind), "bytes of the next record were taken"
    position = offset
    for event in whole.events:
        assert event.offset == position, event
        assert len(event.encode()) == event.size, event
        position += event.size
    assert b"".join(event.encode() for event in whole.events) == data
    for step in (1, 7):
        cut = parse(parser, data + behind, cuts=range(step, len(data), step), offset=offset)
        assert cut.events == whole.events
        assert cut.error is None
    for end in range(0, len(data), max(1, len(data) // 300)):
        short = parse(parser, data[:end], offset=offset)
        assert isinstance(short.error, TruncatedStream), end
        assert short.error.offset <= offset + end
        assert short.events == whole.events[: len(short.events)]
    return whole.events
