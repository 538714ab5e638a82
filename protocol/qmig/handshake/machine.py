"""What both ends of a session have in common: a table that is run, a control connection that is read, output
and events in their order.

Rule 1: output that comes behind an event is held back until the user has come back for more, because what the
event asks for (a durable record, say) has to be done before the other side hears of it (HS-STA-007).
Rule 2: in a session's late states a violation counts as the end of control, because no ABORT may move the
guest there (HS-STA-004).
"""

from __future__ import annotations

import abc
import enum
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from qmig.errors import LocalProtocolError
from qmig.handshake.codes import AbortCode
from qmig.handshake.control import Control, EndOfControl, Found, Incoming
from qmig.handshake.events import NEED_DATA, Carried, Ended, HangUp, Heard, Moved, Reason, Sentinel, Told, own
from qmig.handshake.frames import HandshakeError
from qmig.handshake.messages import Abort, Bye, Ignorable, Info, Message
from qmig.handshake.preamble import Preamble
from qmig.handshake.table import Table

S = TypeVar("S", bound=enum.StrEnum)
E = TypeVar("E", bound=enum.StrEnum)
A = TypeVar("A", bound=enum.StrEnum)

#: in the facts: control cannot be spoken on now
CUT = "cut"
_LOST = "reason unknown: the control connection was lost"


@dataclass(frozen=True, kw_only=True)
class Words(Generic[S, E]):
    """What both tables have under names of their own. `deaf` are states in which control is not read."""

    preamble: E
    abort: E
    eof: E
    gone: E
    violation: E
    linger_over: E
    closing: S
    end: S
    deaf: Collection[S]
    late: Collection[S]
    #: what the peer may say in its turn
    turns: Mapping[S, tuple[type[Message], ...]]


#: an event of a message, with its detail; None: out of turn
Meaning: TypeAlias = tuple[E, Any] | None


class Machine(abc.ABC, Generic[S, E, A]):
    """Runs a table over a control connection."""

    words: ClassVar[Words[Any, Any]]

    def __init__(self, table: Table[S, E, A], state: S, control: Control) -> None:
        self.table = table
        self.state = state
        self.facts: set[str] = set()
        self.reason: Reason | None = None
        self._control = control
        self._reads = True
        self._outcome = ""
        self._queue: deque[bytes | Told] = deque()
        self._out = bytearray()

    # -- what the user does -------------------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview) -> None:
        """Bytes of control; none is its end."""
        if self._reads:
            self._control.receive_data(data)
        elif not data and CUT not in self.facts:
            self._hung_up(own(AbortCode.CONTROL_LOST, _LOST))

    def data_to_send(self) -> bytes:
        """What is to be sent on control now, once."""
        while self._queue and isinstance(head := self._queue[0], bytes):
            self._out += head
            self._queue.popleft()
        data = bytes(self._out)
        self._out.clear()
        return data

    def next_event(self) -> Told | Sentinel:
        """The next event, or NEED_DATA."""
        self._read()
        while self._queue:
            item = self._queue.popleft()
            if not isinstance(item, bytes):
                return item
            self._out += item
        return NEED_DATA

    def linger_over(self) -> None:
        """The other side did not end in time after the last message."""
        self._local(self.words.linger_over)

    def violated(self, problem: HandshakeError) -> None:
        """What `Carried` frames held breaks the rules of their streams."""
        self._broken(problem)

    def info(self, **values: Any) -> None:
        """Tells the other side how far things are (from READY on)."""
        self._say(Info(**values))

    # -- for the two ends ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def _event_of(self, found: Incoming) -> Meaning[E]:
        """What a message in its turn means."""

    @abc.abstractmethod
    def _perform(self, action: A, detail: Any) -> None:
        """Does what one word of a row says."""

    @abc.abstractmethod
    def _misbegun(self, problem: HandshakeError | None) -> bool:
        """What came, or its end (None), is no beginning; whether that was all there is to say of it."""

    def _fire(self, event: E, detail: Any = None) -> bool:
        """Something happened; whether the table has a row for it."""
        row = self.table.find(self.state, event, self.facts)
        if row is None:
            return False
        if isinstance(detail, Reason) and (self.reason is None or self.reason.code == AbortCode.CONTROL_LOST):
            self.reason = detail
        before, self.state = self.state, row.next
        if row.outcome:
            self._outcome = row.outcome
        for action in row.actions:
            self._perform(action, detail)
        if row.next is not before:
            self._tell(Moved(state=row.next))
            if row.next is self.words.end:
                self._tell(Ended(outcome=self._outcome, reason=self.reason))
            elif row.next is self.words.closing and CUT in self.facts:
                self._fire(self.words.gone)
        return True

    def _local(self, event: E, detail: Any = None) -> None:
        """Something happened on this side. Raises LocalProtocolError where it cannot have; what comes
        behind this side's last message is passed over."""
        if not self._fire(event, detail) and self.state not in {self.words.closing, self.words.end}:
            raise LocalProtocolError(
                f"'{event.value}' cannot happen in state {self.state.value}", requirement="HS-STA-001"
            )

    def _tell(self, event: Told) -> None:
        self._queue.append(event)

    def _say(self, message: Message | Ignorable) -> None:
        """Sends a message, unless control is gone."""
        if CUT not in self.facts:
            self._queue.append(self._control.message(message))

    def _say_abort(self) -> None:
        reason = self.reason or own(AbortCode.INTERNAL, "no reason was given")
        self._say(reason.message())

    def _adopt(self, control: Control) -> None:
        """The session goes on over another control connection."""
        self._control = control
        self._reads = True
        self.facts.discard(CUT)
        if self.reason is not None and self.reason.code == AbortCode.CONTROL_LOST:
            self.reason = None

    # -- what the peer says -------------------------------------------------------------------------------

    def _read(self) -> None:
        while self._reads and self.state not in self.words.deaf:
            try:
                found = self._control.next()
            except HandshakeError as problem:
                self._broken(problem)
                return
            if found is None:
                return
            self._take(found)

    def _take(self, found: Found) -> None:
        match found:
            case Preamble():
                self._fire(self.words.preamble)
            case EndOfControl():
                self._ended(found)
            case Incoming(message=Ignorable()):
                pass
            case Incoming(message=Info() as info):
                self._tell(Heard(message=info))
            case Incoming(message=Abort() as abort):
                self._fire(self.words.abort, Reason.of(abort))
            case Incoming():
                self._turn(found)
            case _:
                self._tell(Carried(frame=found, offset=self._control.reader.offset))

    def _turn(self, found: Incoming) -> None:
        message = found.message
        if self.state is self.words.closing and not isinstance(message, Bye):
            return  # discarded
        allowed = self.words.turns.get(self.state, ())
        event = self._event_of(found) if isinstance(message, allowed) else None
        if event is None or not self._fire(*event):
            self._out_of_turn(found)

    def _out_of_turn(self, found: Incoming) -> None:
        text = f"{type(found.message).__name__} in state {self.state.value}"
        self._broken(
            HandshakeError(
                AbortCode.UNEXPECTED_MESSAGE, text, requirement="HS-STA-002", offset=found.offset,
                record="message",
            )
        )  # fmt: skip

    # -- what ends control --------------------------------------------------------------------------------

    def _ended(self, end: EndOfControl) -> None:
        if end.nothing and self._misbegun(None):
            return
        self._hung_up(own(AbortCode.CONTROL_LOST, _LOST))

    def _broken(self, problem: HandshakeError) -> None:
        """The peer broke the rules; nothing more is read."""
        self._reads = False
        if problem.record == "preamble" and self._misbegun(problem):
            return
        reason = own(problem.code, str(problem))
        if self._is_late():
            self._tell(HangUp())
            self._hung_up(reason)
        else:
            self._fire(self.words.violation, reason)

    def _is_late(self) -> bool:
        return self.state in self.words.late or self.state is self.words.closing

    def _hung_up(self, reason: Reason) -> None:
        """Control is gone."""
        self._reads = False
        self.facts.add(CUT)
        self._fire(self.words.eof, None if self.state is self.words.closing else reason)

    def give_up(self, text: str = "the operator gave up control") -> None:
        """Control is given up for good: no cancel and no message helps any more, or nobody comes back."""
        self.facts.discard("retry")
        self._tell(HangUp())
        self._hung_up(own(AbortCode.CONTROL_LOST, text))
