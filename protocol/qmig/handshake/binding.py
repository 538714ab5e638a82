"""One data connection's beginning: CHANNEL and CHANNEL-OK, which bind it to its session.

Source: `spec/v2`, chapter "Channels" (HS-CHN). Behind them a plain connection carries the legacy channel's
bytes as they are; bytes that came early are in `rest`.
"""

from __future__ import annotations

from dataclasses import dataclass

from qmig.handshake import limits, transcript
from qmig.handshake.codes import AbortCode
from qmig.handshake.control import Control, EndOfControl, Incoming
from qmig.handshake.events import Reason, own
from qmig.handshake.frames import HandshakeError
from qmig.handshake.messages import Abort, Channel, ChannelOk
from qmig.handshake.preamble import Role


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What binds a connection: the session and its secret; `exporter` is the connection's own, if agreed."""

    session: bytes
    secret: bytes
    exporter: bytes = b""

    def token(self, kind: str, index: int, label: bytes) -> bytes:
        return transcript.token(self.secret, self.session, kind, index, label=label, exporter=self.exporter)


class SourceBinding:
    """S's end. `bound` becomes true with a right CHANNEL-OK, `reason` is set with anything else."""

    def __init__(self, credentials: Credentials, kind: str, index: int) -> None:
        self.kind = kind
        self.index = index
        self.bound = False
        self.reason: Reason | None = None
        self._credentials = credentials
        self._control = Control(Role.CHANNEL, None, first=limits.FRAME_CHANNEL)

    def hello(self) -> bytes:
        """What S says first on the connection."""
        token = self._credentials.token(self.kind, self.index, transcript.CHANNEL)
        message = Channel(session=self._credentials.session, kind=self.kind, index=self.index, token=token)
        return self._control.preamble() + self._control.message(message)

    @property
    def rest(self) -> bytes:
        """Bytes of the channel itself that came behind CHANNEL-OK."""
        return self._control.reader.unread

    def receive_data(self, data: bytes) -> bool:
        """Takes D's bytes (none: its end); whether the answer is complete."""
        self._control.receive_data(data)
        try:
            found = self._control.next()
        except HandshakeError as problem:
            self.reason = own(problem.code, str(problem))
            return True
        match found:
            case None:
                return False
            case Incoming(message=ChannelOk() as answer):
                self._check(answer)
            case Incoming(message=Abort() as abort):
                self.reason = Reason.of(abort)
            case EndOfControl():
                text = f"the connection for {self.kind}/{self.index} ended before it was bound"
                self.reason = own(AbortCode.CHANNEL_MISSING, text)
            case _:
                self.reason = own(AbortCode.UNEXPECTED_MESSAGE, "CHANNEL-OK was due")
        return True

    def _check(self, answer: ChannelOk) -> None:
        expected = self._credentials.token(self.kind, self.index, transcript.CHANNEL_OK)
        if (answer.kind, answer.index) == (self.kind, self.index) and transcript.same(answer.token, expected):
            self.bound = True
        else:
            self.reason = own(
                AbortCode.BAD_BINDING, f"the answer for {self.kind}/{self.index} is not its own"
            )


class DestinationBinding:
    """D's end, for a connection whose preamble says `C`: reads the one frame CHANNEL and no byte behind it.

    The caller looks `request` up in its session and calls `accept` or `refuse`."""

    def __init__(self) -> None:
        self._control = Control(Role.DESTINATION, Role.CHANNEL, first=limits.FRAME_CHANNEL)
        self.request: Channel | None = None
        self.reason: Reason | None = None

    @property
    def rest(self) -> bytes:
        """Bytes of the channel itself that came behind CHANNEL."""
        return self._control.reader.unread

    def receive_data(self, data: bytes) -> bool:
        """Takes S's bytes (none: its end); whether the request is complete, or there will be none."""
        self._control.receive_data(data)
        try:
            found = self._control.next()
            if found is not None and not isinstance(found, Incoming | EndOfControl):
                found = self._control.next()  # behind the preamble
        except HandshakeError as problem:
            self.reason = own(problem.code, str(problem))
            return True
        match found:
            case None:
                return False
            case Incoming(message=Channel() as request):
                self.request = request
            case EndOfControl():
                self.reason = own(AbortCode.CHANNEL_MISSING, "a data connection ended before CHANNEL")
            case _:
                self.reason = own(AbortCode.UNEXPECTED_MESSAGE, "CHANNEL was due")
        return True

    def accept(self, credentials: Credentials) -> bytes | None:
        """CHANNEL-OK; None, with `reason` set, if the token is wrong."""
        assert self.request is not None
        kind, index = self.request.kind, self.request.index
        expected = credentials.token(kind, index, transcript.CHANNEL)
        if self.request.session != credentials.session or not transcript.same(self.request.token, expected):
            self.reason = own(AbortCode.BAD_BINDING, "the connection does not belong to this session")
            return None
        token = credentials.token(kind, index, transcript.CHANNEL_OK)
        return self._control.message(ChannelOk(kind=kind, index=index, token=token))

    def refuse(self, reason: Reason) -> bytes:
        """The ABORT for this connection only; the session lives on."""
        self.reason = reason
        return self._control.message(reason.message())
