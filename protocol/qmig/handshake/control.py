"""One end of a control connection: bytes in, messages out; messages in, bytes out. No decisions.

Both directions are hashed from the preamble's first byte to READY (`Transcript`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from qmig.handshake import limits, messages
from qmig.handshake.codes import AbortCode
from qmig.handshake.frames import (
    DataFrame,
    FrameReader,
    HandshakeError,
    Item,
    WindowFrame,
    message_frames,
)
from qmig.handshake.messages import Ignorable, Message, MessageError
from qmig.handshake.preamble import FRAMING, MAGIC, SIZE, Preamble, Role, is_altered
from qmig.handshake.transcript import Running


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message, with the hashes of its direction before its first frame and behind its last."""

    message: Message | Ignorable
    before: bytes
    behind: bytes
    offset: int


@dataclass(frozen=True, slots=True)
class EndOfControl:
    """The other side says nothing more. `clean` is false where a preamble, a frame or a message was cut."""

    clean: bool
    nothing: bool  # not one byte had come


Found: TypeAlias = Preamble | Incoming | DataFrame | WindowFrame | EndOfControl


class Control:
    """`role` is what our preamble says; `peer` what the other one's must."""

    def __init__(
        self, role: Role, peer: Role | None, *, first: int = limits.FRAME_FIRST, reserved: bytes = bytes(6)
    ) -> None:
        self.role = role
        self._peer = peer
        self._reserved = reserved
        self.received = Running()
        self.sent = Running()
        self._start = bytearray()
        self.reader = FrameReader(self.received, first=first)
        self._met = peer is None  # whether the peer's preamble was read
        self._eof = False
        self._ended = False

    # -- out ----------------------------------------------------------------------------------------------

    def preamble(self) -> bytes:
        """Our preamble."""
        return self._sent(Preamble(framing=FRAMING, role=self.role, reserved=self._reserved).encode())

    def message(self, message: Message | Ignorable) -> bytes:
        """The frames of a message."""
        return self._sent(message_frames(message.encode()))

    def _sent(self, data: bytes) -> bytes:
        if self.reader.counted:
            self.sent.add(data)
        return data

    def stop_counting(self, *, carries: bool = False) -> None:
        """READY was sent or received: the transcript and the totals end. `carries`: from now on frames of
        data channels may come (mux profile)."""
        self.reader.counted = False
        self.reader.data = carries

    # -- in -----------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> None:
        """Takes bytes; none is the end."""
        if not data:
            self._eof = True
        elif self._met:
            self.reader.receive_data(data)
        else:
            self._start += data

    def next(self) -> Found | None:
        """What comes next; None while bytes are missing. Raises HandshakeError, after which nothing is
        read."""
        if self._ended:
            return None
        try:
            found = self._next()
        except HandshakeError:
            self._ended = True
            raise
        if found is None and self._eof:
            self._ended = True
            whole = not self._start and not self.reader.unread and not self.reader.in_message
            return EndOfControl(whole and self._met, not self._met and not self._start)
        return found

    def _next(self) -> Found | None:
        if not self._met:
            return self._preamble()
        found = self.reader.next()
        if not isinstance(found, Item):
            return found
        try:
            message = messages.decode(found.data)
        except MessageError as problem:
            raise HandshakeError(
                AbortCode(problem.code), problem.message, requirement=problem.requirement,
                offset=found.offset, record="message",
            ) from None  # fmt: skip
        return Incoming(message, found.before, found.behind, found.offset)

    def _preamble(self) -> Preamble | None:
        start = bytes(self._start[:SIZE])
        if is_altered(start):
            self._refuse(
                AbortCode.TRANSPORT_NOT_TRANSPARENT, "the preamble was changed on its way", "HS-PRE-006"
            )
        if not MAGIC.startswith(start[:8]):
            self._refuse(AbortCode.NOT_QMH, f"the other side says {start[:8].hex(' ')}", "HS-PRE-005")
        if len(start) < SIZE:
            return None
        preamble, _ = Preamble.decode(memoryview(start))
        if preamble.framing != FRAMING:
            text = f"framing version {preamble.framing}, not {FRAMING}"
            self._refuse(AbortCode.VERSION_UNSUPPORTED, text, "HS-PRE-007")
        if preamble.role != self._peer:
            self._refuse(AbortCode.VERSION_UNSUPPORTED, f"role {preamble.role:#04x}", "HS-PRE-008")
        self._met = True
        self.received.add(start)
        self.reader.offset = SIZE
        self.reader.receive_data(bytes(self._start[SIZE:]))
        self._start.clear()
        return preamble.place(0, SIZE)

    def _refuse(self, code: AbortCode, text: str, requirement: str) -> None:
        raise HandshakeError(code, text, requirement=requirement, offset=0, record="preamble")
