"""Breaks one thing in a stream, everything else stays as it was.

All functions take and return plain bytes; the structure-aware ones take the events that
a reader found in them (`Record.offset`, `Record.size`), whole streams only.
"""

from __future__ import annotations

from collections.abc import Sequence

from qmig._wire import Record


def boundaries(events: Sequence[Record]) -> list[int]:
    """Every offset where a record begins or ends, in order."""
    return sorted({edge for event in events for edge in (event.offset, event.offset + event.size)})


def fields(event: Record) -> list[tuple[str, int, int]]:
    """(name, absolute offset, bytes) of the fixed-size fields of one event's record."""
    places = []
    at = event.offset
    for row in event.fields_layout():
        if row.offset is None or not row.size.isdigit():
            break
        places.append((row.name, at + row.offset, int(row.size)))
    return places


def replace(data: bytes, at: int, new: bytes) -> bytes:
    """Overwrites bytes."""
    return data[:at] + new + data[at + len(new) :]


def remove(data: bytes, event: Record) -> bytes:
    """Leaves one record out."""
    return data[: event.offset] + data[event.offset + event.size :]


def repeat(data: bytes, event: Record) -> bytes:
    """Sends one record twice."""
    end = event.offset + event.size
    return data[:end] + data[event.offset : end] + data[end:]


def swap(data: bytes, first: Record, second: Record) -> bytes:
    """Exchanges two records; `first` lies before `second`."""
    a, b = first.offset, first.offset + first.size
    c, d = second.offset, second.offset + second.size
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def insert(data: bytes, at: int, extra: bytes) -> bytes:
    """Puts bytes in between."""
    return data[:at] + extra + data[at:]
