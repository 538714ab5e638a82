"""A session taken up again on another control connection (`resume.v1`, HS-RES).

Both classes lead one connection from its preamble to RESUME-ANSWER. Then `Source.resumed` and
`Destination.resumed` adopt it; until then the session knows nothing of it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from qmig import _cbor
from qmig._cbor import Value
from qmig.handshake import transcript
from qmig.handshake.binding import Credentials
from qmig.handshake.codes import AbortCode, Profile, Record
from qmig.handshake.control import Control, EndOfControl, Incoming
from qmig.handshake.events import Reason, own
from qmig.handshake.frames import DataFrame, HandshakeError, WindowFrame
from qmig.handshake.grease import Grease
from qmig.handshake.messages import (
    BOUNDS,
    Abort,
    Hello,
    Ignorable,
    Info,
    Message,
    Resume,
    ResumeAnswer,
)
from qmig.handshake.preamble import Preamble, Role

#: wire majors that this revision speaks, the preferred one first
MAJORS: Final = (2,)


def digest_of(agreed: Mapping[str, Value]) -> bytes:
    """What RESUME says of the agreed set (HS-RES-003)."""
    return transcript.sha256(_cbor.encode(dict(agreed), BOUNDS))


class _Resumption(abc.ABC):
    """One connection. `done` or `reason` is set in the end."""

    def __init__(self, control: Control, nonce: bytes, grease: Grease, majors: Sequence[int]) -> None:
        self.control = control
        self.done = False
        self.reason: Reason | None = None
        self.data = False
        self.next_secret = b""
        self.resume_hash = b""
        self._nonce = nonce
        self._grease = grease
        self._majors = tuple(majors)
        self._out = bytearray()

    def receive_data(self, data: bytes | memoryview) -> None:
        """Bytes of the connection; none is its end."""
        self.control.receive_data(data)
        while not self.done and self.reason is None:
            try:
                found = self.control.next()
            except HandshakeError as problem:
                self._refuse(own(problem.code, str(problem)))
                return
            match found:
                case None:
                    return
                case Preamble() | DataFrame() | WindowFrame() | Incoming(message=Ignorable() | Info()):
                    continue
                case EndOfControl():
                    self.reason = own(AbortCode.CONTROL_LOST, "the resumed connection was lost")
                case Incoming(message=Abort() as abort):
                    self.reason = Reason.of(abort)
                case _:
                    self._hear(found)

    def data_to_send(self) -> bytes:
        """What is to be sent now, once."""
        data = bytes(self._out)
        self._out.clear()
        return data

    @abc.abstractmethod
    def _hear(self, found: Incoming) -> None:
        """Takes a message in its turn."""

    def _refuse(self, reason: Reason) -> None:
        """Ends the connection with ABORT."""
        self.reason = reason
        self._say(reason.message())

    def _say(self, message: Message | Ignorable) -> None:
        self._out += self.control.message(message)

    def _out_of_turn(self, found: Incoming) -> None:
        text = f"{type(found.message).__name__} where a session is resumed"
        self._refuse(own(AbortCode.UNEXPECTED_MESSAGE, text))


class SourceResume(_Resumption):
    """S's end. `record` is what D's record says when it is `done`."""

    def __init__(
        self, *, session: bytes, secret: bytes, agreed: Mapping[str, Value], nonce: bytes, grease: Grease,
        data: bool, majors: Sequence[int] = MAJORS,
    ) -> None:  # fmt: skip
        super().__init__(
            Control(Role.SOURCE, Role.DESTINATION, reserved=grease.reserved()), nonce, grease, majors
        )
        self.data = data
        self.record = ""
        self._session = session
        self._secret = secret
        self._agreed = digest_of(agreed)
        self._peer: Hello | None = None
        self._out += self.control.preamble()
        self._say(
            Hello(
                majors=(*self._majors, grease.major()), session=session, nonce=nonce,
                profile=Profile.RESUME.value, extra=grease.key(),
            )
        )  # fmt: skip

    def _hear(self, found: Incoming) -> None:
        match found.message:
            case Hello() as hello if self._peer is None and hello.session == self._session:
                self._peer = hello
                self._say(self._grease.message())
                hashes = self.control.sent.now(), found.behind
                proof = transcript.proof(self._secret, transcript.RESUME_SOURCE, *hashes)
                self._say(Resume(mode=int(self.data), proof=proof, agreed=self._agreed))
                self.resume_hash = self.control.sent.now()
            case ResumeAnswer() as answer if self._peer is not None:
                self._answered(answer, found.before, self._peer.nonce)
            case _:
                self._out_of_turn(found)

    def _answered(self, answer: ResumeAnswer, before: bytes, nonce: bytes) -> None:
        expected = transcript.proof(self._secret, transcript.RESUME_DESTINATION, self.resume_hash, before)
        if not transcript.same(answer.proof, expected):
            self._refuse(own(AbortCode.RESUME_REFUSED, "the destination does not prove who it is"))
        elif answer.record not in _KNOWN:
            self._refuse(own(AbortCode.RESUME_REFUSED, f"record {answer.record} says nothing"))
        else:
            self.record = answer.record
            self.next_secret = transcript.next_secret(self._secret, self._nonce, nonce)
            if not self.data:
                self.control.stop_counting()
            self.done = True


#: what D's record can be
_KNOWN: Final = frozenset({Record.LOADING, Record.HELD, Record.TAKEN, Record.RAN, Record.RETURNED})
#: the credentials and the agreed set of a session, if it is there and can be resumed
Find = Callable[[bytes], "tuple[Credentials, Mapping[str, Value]] | None"]


class DestinationResume(_Resumption):
    """D's end, for every control connection that comes while a session lives or can be resumed: one of
    another profile is `busy`. `find` tells what a session has to prove."""

    def __init__(self, find: Find, *, nonce: bytes, grease: Grease, majors: Sequence[int] = MAJORS) -> None:
        super().__init__(
            Control(Role.DESTINATION, Role.SOURCE, reserved=grease.reserved()), nonce, grease, majors
        )
        self.session = b""
        self._find = find
        self._source_nonce = b""
        self._greeted = False
        self._known: tuple[Credentials, Mapping[str, Value]] | None = None

    def _hear(self, found: Incoming) -> None:
        match found.message:
            case Hello() as hello if not self.session:
                self._hello(hello)
            case Resume() as resume if self._known is not None:
                self._resume(resume, self._known, found)
            case _:
                self._out_of_turn(found)

    def _hello(self, hello: Hello) -> None:
        self.session = hello.session
        if not set(hello.majors) & set(self._majors):
            self._refuse(own(AbortCode.VERSION_UNSUPPORTED, "no common major", majors=self._majors))
        elif hello.profile != Profile.RESUME:
            self._refuse(own(AbortCode.BUSY, "another migration is coming in"))
        else:
            self._known = self._find(hello.session)
            if self._known is None:
                self._refuse(own(AbortCode.SESSION_UNKNOWN, "no session of that name can be resumed"))
                return
            self._source_nonce = hello.nonce
            self._greet()
            self._say(Hello(majors=self._majors, session=hello.session, nonce=self._nonce))

    def _resume(
        self, resume: Resume, known: tuple[Credentials, Mapping[str, Value]], found: Incoming
    ) -> None:
        credentials, agreed = known
        hashes = found.before, self.control.sent.now()
        expected = transcript.proof(credentials.secret, transcript.RESUME_SOURCE, *hashes)
        if not transcript.same(resume.proof, expected):
            self._refuse(own(AbortCode.RESUME_REFUSED, "the source does not prove who it is"))
        elif resume.agreed != digest_of(agreed):
            self._refuse(own(AbortCode.RESUME_REFUSED, "the session has agreed on something else"))
        else:
            self.data = bool(resume.mode)
            self.resume_hash = found.behind
            self.next_secret = transcript.next_secret(credentials.secret, self._source_nonce, self._nonce)
            self._secret = credentials.secret
            self.done = True

    def answer(self, record: Record) -> tuple[bytes, ...]:
        """The frames of RESUME-ANSWER, for `Destination.resumed`."""
        grease = self.control.message(self._grease.message())
        proof = transcript.proof(
            self._secret, transcript.RESUME_DESTINATION, self.resume_hash, self.control.sent.now()
        )
        return grease, self.control.message(ResumeAnswer(proof=proof, record=record.value))

    def _refuse(self, reason: Reason) -> None:
        self._greet()
        super()._refuse(reason)

    def _greet(self) -> None:
        if not self._greeted:
            self._greeted = True
            self._out += self.control.preamble()

    _secret = b""


def busy(majors: Sequence[int] = MAJORS) -> bytes:
    """What a second control connection is answered where no session can be resumed (HS-PRE-030)."""
    control = Control(Role.DESTINATION, Role.SOURCE)
    reason = own(AbortCode.BUSY, "another migration is coming in", majors=tuple(majors))
    return control.preamble() + control.message(reason.message())
