"""Return path: what the destination says on the main channel's connection.

Source: migration/migration.c `rp_cmd_args`, `source_return_path_thread`;
migration/ram.c `ramblock_recv_bitmap_send`, `ram_dirty_bitmap_reload`.

Rule 1: a message has its length, so one that no known version has is kept and passed
over. A known one whose length is wrong is an error, as it is for QEMU.
Rule 2: only RECV_BITMAP is longer than it says: the bitmap comes behind the message.
"""

from __future__ import annotations

import enum
from typing import ClassVar, Final

from qmig import limits
from qmig._feed import Feed, Steps
from qmig._wire import (
    CountedString,
    Int16ub,
    Int32ub,
    Int64ub,
    Prefixed,
    Raw,
    Record,
    const,
    wire,
)
from qmig.errors import LocalProtocolError, localised
from qmig.legacy.receiver import Channel
from qmig.legacy.state import StreamState

#: longest payload that a source takes (its buffer)
MAX_PAYLOAD: Final = 512
#: behind every bitmap (`RAMBLOCK_RECV_BITMAP_ENDING`)
BITMAP_END: Final = 0x0123456789ABCDEF
_HEADER: Final = 4


class RpMessage(enum.IntEnum):
    """Message numbers (`MIG_RP_MSG_*`)."""

    INVALID = 0
    SHUT = 1
    PONG = 2
    REQ_PAGES_ID = 3
    REQ_PAGES = 4
    RECV_BITMAP = 5
    RESUME_ACK = 6
    SWITCHOVER_ACK = 7


class RpHeader(Record):
    """Number and payload length of any message."""

    requirement: ClassVar[str] = "LEG-RPM-001"
    header_type: int = wire(Int16ub)
    header_len: int = wire(Int16ub, doc="bytes of payload")


class RpShut(Record):
    """The last message: how the load ended."""

    requirement: ClassVar[str] = "LEG-RPM-010"
    header_type = const(Int16ub, 1)
    header_len = const(Int16ub, 4)
    value: int = wire(Int32ub, doc="0: all was loaded; 1: error")


class RpPong(Record):
    """Answers PING."""

    requirement: ClassVar[str] = "LEG-RPM-020"
    header_type = const(Int16ub, 2)
    header_len = const(Int16ub, 4)
    value: int = wire(Int32ub, doc="that of the PING")


class RpReqPagesId(Record):
    """Asks for one host page and names its block."""

    requirement: ClassVar[str] = "LEG-RPM-030"
    header_type = const(Int16ub, 3)
    header_len: int = wire(Int16ub, doc="13 + bytes of the name")
    start: int = wire(Int64ub, doc="offset in the block, bytes")
    length: int = wire(Int32ub, doc="bytes; the block's page size")
    block: str = wire(CountedString, doc="RAMBlock idstr")

    def validate(self) -> None:
        _check_name(self.header_len, NAMED[3], self.block)


class RpReqPages(Record):
    """Asks for one host page of the block that the last REQ_PAGES_ID named."""

    requirement: ClassVar[str] = "LEG-RPM-031"
    header_type = const(Int16ub, 4)
    header_len = const(Int16ub, 12)
    start: int = wire(Int64ub, doc="offset in the block, bytes")
    length: int = wire(Int32ub, doc="bytes; the block's page size")


class RpRecvBitmap(Record):
    """Recovery: which target pages of a block have arrived. Only the name is in the message."""

    requirement: ClassVar[str] = "LEG-RPM-040"
    header_type = const(Int16ub, 5)
    header_len: int = wire(Int16ub, doc="1 + bytes of the name")
    block: str = wire(CountedString, doc="RAMBlock idstr")
    bitmap: bytes = wire(
        Prefixed(Int64ub, limits.RECV_BITMAP), doc="little-endian; bit n: target page n was received"
    )
    end = const(Int64ub, BITMAP_END, doc="end mark")

    def validate(self) -> None:
        _check_name(self.header_len, NAMED[5], self.block)
        _check_bitmap_size(len(self.bitmap))


class RpResumeAck(Record):
    """Recovery: the destination is ready to go on."""

    requirement: ClassVar[str] = "LEG-RPM-050"
    header_type = const(Int16ub, 6)
    header_len = const(Int16ub, 4)
    value: int = wire(Int32ub, doc="1")


class RpSwitchoverAck(Record):
    """The destination's devices agree to the switchover (8.1+)."""

    requirement: ClassVar[str] = "LEG-RPM-060"
    header_type = const(Int16ub, 7)
    header_len = const(Int16ub, 0)


class RpUnknown(Record):
    """A message that no known version has."""

    requirement: ClassVar[str] = "LEG-RPM-003"
    header_type: int = wire(Int16ub)
    payload: bytes = wire(Prefixed(Int16ub, MAX_PAYLOAD), doc="`header_len`, and so many bytes")


#: number -> its record
MESSAGES: Final[dict[int, type[Record]]] = {
    RpMessage.SHUT: RpShut,
    RpMessage.PONG: RpPong,
    RpMessage.REQ_PAGES_ID: RpReqPagesId,
    RpMessage.REQ_PAGES: RpReqPages,
    RpMessage.RECV_BITMAP: RpRecvBitmap,
    RpMessage.RESUME_ACK: RpResumeAck,
    RpMessage.SWITCHOVER_ACK: RpSwitchoverAck,
}


#: messages with a name: bytes of payload before it, its own length included
NAMED: Final[dict[int, int]] = {RpMessage.REQ_PAGES_ID: 13, RpMessage.RECV_BITMAP: 1}


def _check_length(number: int, message: Raw) -> None:
    """Raises `LocalProtocolError` unless `message` (its header included) is as long as its kind says."""
    kind = MESSAGES.get(number)
    if kind is None:
        return
    size = len(message) - _HEADER
    expected = NAMED.get(number, kind.minimum() - _HEADER)
    if number in NAMED and size >= expected:
        expected += message[_HEADER + expected - 1]
    if size != expected:
        raise LocalProtocolError(f"header_len is {size}, expected {expected}", requirement="LEG-RPM-004")


def _check_name(header_len: int, fixed: int, block: str) -> None:
    expected = fixed + len(block.encode("utf-8", "surrogateescape"))
    if header_len != expected:
        raise LocalProtocolError(
            f"header_len is {header_len}, expected {expected}", requirement="LEG-RPM-004"
        )


def _check_bitmap_size(size: int) -> None:
    if size % 8:
        raise LocalProtocolError(f"bitmap of {size} bytes, not a multiple of 8", requirement="LEG-RPM-042")


class ReturnPathReader:
    """Messages of one return path."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def channel(self) -> Steps[None]:
        """Messages up to the end of the channel."""
        while not (yield from self.feed.at_end()):
            yield (yield from self._message())

    def _message(self) -> Steps[Record]:
        feed = self.feed
        start = feed.offset
        feed.expect("RpHeader", RpHeader.requirement)
        header, _ = RpHeader.decode((yield from feed.need(_HEADER)))
        kind = MESSAGES.get(header.header_type, RpUnknown)
        feed.expect(kind.__name__, kind.requirement)
        if header.header_len > MAX_PAYLOAD:
            raise feed.error(
                f"message {header.header_type} of {header.header_len} bytes, at most {MAX_PAYLOAD} are taken",
                "LEG-RPM-002",
            )
        view = yield from feed.need(_HEADER + header.header_len)
        try:
            _check_length(header.header_type, view)
            if kind is RpRecvBitmap:
                view = yield from self._with_bitmap(len(view))
            record, used = kind.decode(view)
        except LocalProtocolError as error:
            raise localised(error, offset=start, record=kind.__name__) from None
        feed.skip(used)
        return record.place(start, used)

    def _with_bitmap(self, message: int) -> Steps[memoryview]:
        """The message of so many bytes and what follows it."""
        feed = self.feed
        size = int.from_bytes((yield from feed.need(message + 8))[message:], "big")
        _check_bitmap_size(size)
        if size > limits.RECV_BITMAP:
            raise feed.limit(f"bitmap of {size} bytes, the limit is {limits.RECV_BITMAP}")
        view = yield from feed.need(message + 8 + size + 8)
        end = int.from_bytes(view[-8:], "big")
        if end != BITMAP_END:
            raise feed.error(f"end mark {end:#x}, expected {BITMAP_END:#x}", "LEG-RPM-043")
        return view


class ReturnPathReceiver(Channel):
    """Reads a return path: one event per message, a RECV_BITMAP with its bitmap.

    `offset` is the absolute offset of the first byte given."""

    def __init__(self, state: StreamState | None = None, *, offset: int = 0) -> None:
        self.state = state or StreamState()
        feed = Feed(offset)
        super().__init__(feed, ReturnPathReader(feed).channel())
