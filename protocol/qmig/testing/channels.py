"""Drives the reader of any channel, and packets to drive it with, for tests.

The builders here are written with `struct` from the layout tables, not with the records
that they test.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from qmig._wire import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy.receiver import CLOSED, Channel


class Seen(NamedTuple):
    """What stays of an event when its views are gone."""

    name: str
    offset: int
    wire: bytes


def drive(
    receiver: Channel, data: bytes, cuts: Iterable[int] = (), *, keep: list[Record] | None = None
) -> tuple[list[Seen], RemoteProtocolError | None]:
    """Everything `receiver` says of `data`, given in pieces cut at `cuts` and then ended; and the error
    that ended it. The buffer of each piece is overwritten once it was taken. `keep` gets the events."""
    seen: list[Seen] = []
    try:
        pieces = [data[start:end] for start, end in itertools.pairwise([0, *sorted(cuts), len(data)])]
        for piece in map(bytearray, [*filter(None, pieces), b""]):
            receiver.receive_data(piece)
            while isinstance(event := receiver.next_event(), Record):
                seen.append(Seen(type(event).__name__, event.offset, event.encode()))
                assert event.size == len(seen[-1].wire)
                if keep is not None:
                    keep.append(event)
            if keep is None:
                piece[:] = bytes(len(piece))
        assert event is CLOSED
    except RemoteProtocolError as error:
        return seen, error
    return seen, None


def hello(number: int = 0, *, uuid: bytes = bytes(16)) -> bytes:
    """The first 64 bytes of a multifd channel."""
    return struct.pack(">II16sB7x32x", 0x11223344, 1, uuid, number)


def packet(
    *,
    flags: int = 0,
    block: str = "pc.ram",
    normal: Sequence[int] = (),
    zero: Sequence[int] = (),
    payload: bytes = b"",
    packet_num: int = 0,
    page_size: int = 4096,
    pages_alloc: int | None = None,
    next_packet_size: int | None = None,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """A RAM packet. `pages_alloc`, `next_packet_size` and the `counts` of normal and zero pages are
    those that fit, unless they are given."""
    room = 524288 // page_size
    offsets = [*normal, *zero]
    return (
        struct.pack(
            ">IIIIIIQI28x256s",
            0x11223344,
            1,
            flags,
            room if pages_alloc is None else pages_alloc,
            len(normal) if counts is None else counts[0],
            len(payload) if next_packet_size is None else next_packet_size,
            packet_num,
            len(zero) if counts is None else counts[1],
            block.encode(),
        )
        + struct.pack(f">{room}Q", *offsets, *[0] * (room - len(offsets)))
        + payload
    )


def sync(*, packet_num: int = 0, page_size: int = 4096) -> bytes:
    """A pure SYNC packet (9.0+)."""
    return packet(flags=1, block="", pages_alloc=0, packet_num=packet_num, page_size=page_size)


def device_state(
    data: bytes, *, flags: int = 0x40, idstr: bytes = b"0000:00:02.0/vfio", size: int | None = None
) -> bytes:
    """A device-state packet (10.0+)."""
    length = len(data) if size is None else size
    return struct.pack(">III256sII", 0x11223344, 1, flags, idstr, 0, length) + data
