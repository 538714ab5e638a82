"""Data channels over the control connection: streams with credit (HS-MUX).

Stream i is entry i of the plan, from 1. What is received is bounded by the credit that was given; control
has no credit and goes first. Here are the frames and the accounts; the bytes' owners are the caller's
business.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from qmig.errors import LocalProtocolError
from qmig.handshake import limits
from qmig.handshake.codes import AbortCode
from qmig.handshake.frames import DataFrame, HandshakeError, WindowFrame, data_frame, window_frame


@dataclass(frozen=True, slots=True)
class StreamData:
    """Bytes of a stream; `fin`: nothing more comes on it. Tell `Mux.consumed` when they have been passed
    on."""

    stream: int
    data: bytes
    fin: bool


class _Stream:
    __slots__ = ("credit", "due", "ended", "fin_due", "finished", "granted", "owed", "waiting")

    def __init__(self, credit: int, granted: int) -> None:
        self.credit = credit  # what we may still send
        self.granted = granted  # what the peer may still send
        self.owed = 0  # consumed and not granted again yet
        self.waiting: deque[memoryview] = deque()
        self.due = 0  # bytes in `waiting`
        self.fin_due = False
        self.finished = False  # we sent FIN
        self.ended = False  # the peer did


class Mux:
    """The streams of one session, either end. `ours` is the credit that we give at first, `theirs` the
    peer's; `urgent` are the streams that go before the others (preempt)."""

    def __init__(self, count: int, *, ours: int, theirs: int, urgent: frozenset[int] = frozenset()) -> None:
        self._streams = {number: _Stream(theirs, ours) for number in range(1, count + 1)}
        self._window = ours
        self._urgent = urgent
        self._turn: deque[int] = deque(self._streams)
        self._control: deque[bytes] = deque()

    # -- in -----------------------------------------------------------------------------------------------

    def receive(self, frame: DataFrame | WindowFrame, offset: int) -> StreamData | None:
        """Takes a frame. Raises HandshakeError for one that breaks the rules."""
        stream = self._streams.get(frame.stream)
        if stream is None:
            raise _violation(AbortCode.CHANNEL_UNEXPECTED, f"stream {frame.stream} is not planned", offset)
        if isinstance(frame, WindowFrame):
            stream.credit += frame.increment
            if stream.credit > limits.CREDIT_MOST:
                raise _violation(AbortCode.LIMIT_EXCEEDED, f"stream {frame.stream}: too much credit", offset)
            return None
        if stream.ended:
            raise _violation(AbortCode.UNEXPECTED_MESSAGE, f"stream {frame.stream} has ended", offset)
        if len(frame.data) > stream.granted:
            text = f"stream {frame.stream}: {len(frame.data)} bytes with a credit of {stream.granted}"
            raise _violation(AbortCode.LIMIT_EXCEEDED, text, offset)
        stream.granted -= len(frame.data)
        stream.ended = frame.fin
        return StreamData(frame.stream, frame.data, frame.fin)

    def consumed(self, stream: int, size: int) -> None:
        """So many bytes of a stream have been passed on: the peer may send as many again."""
        state = self._streams[stream]
        state.owed += size
        if not state.ended and state.owed * 2 >= self._window:
            state.granted += state.owed
            self._control.append(window_frame(stream, state.owed))
            state.owed = 0

    # -- out ----------------------------------------------------------------------------------------------

    def send(self, stream: int, data: bytes | memoryview) -> None:
        """Queues bytes; they must not change until they are sent. Keep `queued` small: nothing here does."""
        state = self._open(stream)
        if data:
            state.waiting.append(memoryview(data).cast("B"))
            state.due += len(data)

    def open(self, stream: int) -> None:
        """Says with an empty frame that the stream has begun, as a later channel does."""
        self._open(stream)
        self._control.append(data_frame(stream, b""))

    def finish(self, stream: int) -> None:
        """Nothing more is sent on a stream, behind what is queued."""
        self._open(stream).fin_due = True

    def queued(self, stream: int) -> int:
        """Bytes that wait for credit or for their turn."""
        return self._streams[stream].due

    def control(self, frames: bytes) -> None:
        """Queues frames of messages, which go first."""
        self._control.append(frames)

    def data_to_send(self, most: int = 4 * limits.FRAME_DATA) -> bytes:
        """Frames to be sent now, about `most` bytes: control and credit, urgent streams, the others in
        turn."""
        out = bytearray()
        while self._control:
            out += self._control.popleft()
        while len(out) < most:
            number = self._next()
            if number is None:
                break
            out += self._piece(number)
        return bytes(out)

    def _next(self) -> int | None:
        for number in self._urgent:
            if self._ready(number):
                return number
        for _ in range(len(self._turn)):
            number = self._turn[0]
            self._turn.rotate(-1)
            if number not in self._urgent and self._ready(number):
                return number
        return None

    def _ready(self, number: int) -> bool:
        state = self._streams[number]
        if state.finished:
            return False
        return bool(state.due and state.credit) or (state.fin_due and not state.due)

    def _piece(self, number: int) -> bytes:
        state = self._streams[number]
        data = b""
        if state.due:
            head = state.waiting.popleft()
            size = min(len(head), state.credit, limits.FRAME_DATA)
            data = bytes(head[:size])
            if size < len(head):
                state.waiting.appendleft(head[size:])
            state.due -= size
            state.credit -= size
        state.finished = state.fin_due and not state.due
        return data_frame(number, data, fin=state.finished)

    def _open(self, stream: int) -> _Stream:
        state = self._streams.get(stream)
        if state is None or state.fin_due:
            raise LocalProtocolError(f"nothing can be sent on stream {stream}", requirement="HS-MUX-002")
        return state


def _violation(code: AbortCode, message: str, offset: int) -> HandshakeError:
    return HandshakeError(code, message, requirement="HS-MUX-003", offset=offset, record="frame")
