"""What a destination knows of one accepted connection, and of the source that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import trio

from qmig.errors import RemoteProtocolError
from qmig.legacy.connection import Told
from qmig.peers.channel import Channel
from qmig.peers.tls import TlsCredentials

#: One reused buffer per channel, as much as a unix socket holds: less costs calls, more of many channels is
#: more than fits into a core's cache (measured).
BUFFER: Final = 1 << 18
#: Multifd channels whose packets are gathered at a time; a packet is half a MiB.
WORKERS: Final = 4

Story = Callable[[Told], None]
Tap = Callable[[str, memoryview], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the caller said of the source, and what it wants to see."""

    multifd_channels: int
    preempt: bool
    tls: TlsCredentials | None
    story: Story | None
    tap: Tap | None


class Connection:
    """One accepted connection."""

    def __init__(self, channel: Channel, number: int) -> None:
        self.channel = channel
        self.number = number  # 2 for the first recovery
        self.kind = ""  # main, multifd-N, preempt; empty until it is known
        self.name = ""  # the session's name of it
        self.size = 0  # bytes read before that
        self.works = False  # is one of those that may gather a packet
        self.begun = False  # in the story
        self.ended = False
        self.buffer = memoryview(bytearray(BUFFER))
        self.turn = trio.lowlevel.ParkingLot()  # where it waits until the story wants its next bytes


def unusable(problem: str, connection: Connection) -> RemoteProtocolError:
    return RemoteProtocolError(
        problem, requirement="LEG-MFD-001", offset=connection.size, record="connection"
    )
