"""Frames: what lies between the preamble and the messages.

Source: `spec/v2`, chapter "Frames" (HS-FRM) and "Limits" (HS-LIM).

Rule 1: a length is compared with its limit before anything waits for that many bytes; at most one frame and
one message are kept.
Rule 2: `FrameReader` hashes what it consumes, frame by frame, so that a message carries the transcript before
its first frame and behind its last.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

from qmig._wire import Int8ub, Int16ub, Int32ub, Record, wire
from qmig.errors import RemoteProtocolError
from qmig.handshake import limits, messages
from qmig.handshake.codes import AbortCode
from qmig.handshake.transcript import Running

#: First of the kinds that are ignored when unknown.
IGNORABLE: Final = 0x80


class Kind(enum.IntEnum):
    """What a frame is."""

    MSG = 1
    DATA = 2
    PAD = 3
    WINDOW = 4


class Flag(enum.IntEnum):
    """Bits of a frame's flags."""

    MORE = 1  # of MSG: the message goes on in the next MSG frame
    FIN = 2  # of DATA: nothing more in this direction


class FrameHeader(Record):
    """Opens every frame; `length` bytes of payload follow."""

    requirement: ClassVar[str] = "HS-FRM-001"
    kind: int = wire(Int8ub, doc="1 MSG, 2 DATA, 3 PAD, 4 WINDOW; 80 to FF are ignored")
    flags: int = wire(Int8ub, doc="bit 0 MORE (MSG), bit 1 FIN (DATA); others are ignored")
    stream: int = wire(Int16ub, doc="0 control; in the mux profile, the entry of the plan from 1 on")
    length: int = wire(Int32ub, doc="bytes of payload")


HEADER: Final = FrameHeader.minimum()


class HandshakeError(RemoteProtocolError):
    """The peer violated the protocol; `code` is what ABORT says of it."""

    def __init__(self, code: AbortCode, message: str, *, requirement: str, offset: int, record: str) -> None:
        super().__init__(message, requirement=requirement, offset=offset, record=record)
        self.code = code


@dataclass(frozen=True, slots=True)
class Item:
    """A whole message's bytes; `before` and `behind` are the direction's hash around its frames."""

    data: bytes
    before: bytes
    behind: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class DataFrame:
    """Bytes of a data channel."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class WindowFrame:
    """Credit for a stream: so many bytes more may be sent on it."""

    stream: int
    increment: int


Found: TypeAlias = Item | DataFrame | WindowFrame


class FrameReader:
    """One direction of a connection behind its preamble. `offset` counts from the connection's first byte."""

    def __init__(self, hashed: Running, *, first: int = limits.FRAME_FIRST, data: bool = False) -> None:
        self.offset = 0
        self.hashed = hashed
        #: whether DATA and WINDOW have a meaning here: mux, or a TLS data connection
        self.data = data
        #: the totals that hold until READY
        self.counted = True
        self._limit = first
        self._alone = True  # the first message is one frame
        self._buffer = bytearray()
        self._message = bytearray()
        self._started = False
        self._before = b""
        self._at = 0
        self._frames = 0
        self._bytes = 0

    def receive_data(self, data: bytes | memoryview) -> None:
        self._buffer += data

    @property
    def unread(self) -> bytes:
        """What was received and not consumed, such as the bytes of a data channel behind its CHANNEL."""
        return bytes(self._buffer)

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return self._started

    def next(self) -> Found | None:
        """What comes next; None while bytes are missing. Raises HandshakeError."""
        while len(self._buffer) >= HEADER:
            with memoryview(self._buffer) as view:
                header, _ = FrameHeader.decode(view[:HEADER])
            self._check(header)
            if len(self._buffer) < HEADER + header.length:
                return None
            found = self._take(header)
            if found is not None:
                return found
        return None

    def _check(self, header: FrameHeader) -> None:
        kind, length = header.kind, header.length
        if kind < IGNORABLE and kind not in _KINDS:
            self._fail(AbortCode.BAD_ENCODING, f"frame kind {kind}", "HS-FRM-004")
        if kind in {Kind.DATA, Kind.WINDOW} and not self.data:
            self._fail(AbortCode.UNEXPECTED_MESSAGE, f"a frame of kind {Kind(kind).name}", "HS-FRM-006")
        limit = limits.FRAME_DATA if kind == Kind.DATA else self._limit
        if length > limit:
            text = f"a frame of {length} bytes, more than {limit}"
            self._fail(AbortCode.LIMIT_EXCEEDED, text, "HS-LIM-002")
        most, frames = limits.BYTES_BEFORE_READY, limits.FRAMES_BEFORE_READY
        if self.counted and (self._bytes + HEADER + length > most or self._frames >= frames):
            text = f"more than {most} bytes or {frames} frames before READY"
            self._fail(AbortCode.LIMIT_EXCEEDED, text, "HS-LIM-003")
        if kind == Kind.MSG:
            self._check_message(header)

    def _check_message(self, header: FrameHeader) -> None:
        if header.stream:
            self._fail(AbortCode.BAD_ENCODING, f"a message on stream {header.stream}", "HS-FRM-005")
        if self._alone and header.flags & Flag.MORE:
            self._fail(AbortCode.LIMIT_EXCEEDED, "the first message goes on in another frame", "HS-FRM-003")

    def _take(self, header: FrameHeader) -> Found | None:
        size = HEADER + header.length
        frame = bytes(self._buffer[:size])
        del self._buffer[:size]
        before = self.hashed.now() if header.kind == Kind.MSG and not self._started else b""
        at = self.offset
        if self.counted:
            self.hashed.add(frame)
            self._frames += 1
            self._bytes += size
        self.offset += size
        payload = frame[HEADER:]
        match header.kind:
            case Kind.MSG:
                return self._piece(payload, header.flags, before, at)
            case Kind.DATA:
                return DataFrame(header.stream, payload, bool(header.flags & Flag.FIN))
            case Kind.WINDOW:
                if len(payload) != 4:
                    self._fail(AbortCode.BAD_ENCODING, f"a WINDOW of {len(payload)} bytes", "HS-MUX-005")
                return WindowFrame(header.stream, int.from_bytes(payload, "big"))
        return None

    def _piece(self, payload: bytes, flags: int, before: bytes, at: int) -> Item | None:
        if not self._started:
            self._started, self._before, self._at = True, before, at
        self._message += payload
        start = bytes(self._message[:4])
        if len(start) == 4 or not flags & Flag.MORE:
            most = messages.most_for(start)
            if len(self._message) > most:
                text = f"a message of more than {most} bytes"
                self._fail(AbortCode.LIMIT_EXCEEDED, text, "HS-LIM-001")
        if flags & Flag.MORE:
            return None
        item = Item(bytes(self._message), self._before, self.hashed.now(), self._at)
        self._message.clear()
        self._started = self._alone = False
        self._limit = limits.FRAME
        return item

    def _fail(self, code: AbortCode, message: str, requirement: str) -> None:
        raise HandshakeError(code, message, requirement=requirement, offset=self.offset, record="frame")


_KINDS: Final = frozenset(Kind)


def message_frames(item: bytes, piece: int = limits.FRAME) -> bytes:
    """The MSG frames of one message."""
    frames = bytearray()
    for at in range(0, len(item), piece):
        part = item[at : at + piece]
        flags = Flag.MORE if at + piece < len(item) else 0
        frames += FrameHeader(kind=Kind.MSG, flags=flags, stream=0, length=len(part)).encode() + part
    return bytes(frames)


def data_frame(stream: int, data: bytes | memoryview, *, fin: bool = False) -> bytes:
    """A DATA frame."""
    header = FrameHeader(kind=Kind.DATA, flags=Flag.FIN if fin else 0, stream=stream, length=len(data))
    return header.encode() + bytes(data)


def window_frame(stream: int, increment: int) -> bytes:
    """A WINDOW frame."""
    return FrameHeader(kind=Kind.WINDOW, flags=0, stream=stream, length=4).encode() + increment.to_bytes(
        4, "big"
    )


def pad_frame(size: int) -> bytes:
    """A PAD frame of `size` bytes in all, at least 8."""
    return FrameHeader(kind=Kind.PAD, flags=0, stream=0, length=size - HEADER).encode() + bytes(size - HEADER)
