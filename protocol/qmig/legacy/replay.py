"""A recording sent again, byte for byte: a source that composes nothing and waits where the protocol waits.

    replay = Replay({"main": data, "multifd-0": …})

Rule 1: every channel goes at its own pace: what has to come before what is up to the receiver, which stops
reading a channel until the others have come as far.
Rule 2: a preempt channel is connected behind PONG 1, or in the setup where it ends with EOS (LEG-PRE-006,
007).
With a return path, SHUT is waited for; page requests are not answered, for all pages come anyway.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from qmig._wire import Raw, Record
from qmig.errors import LocalProtocolError, RemoteProtocolError, TruncatedStream
from qmig.legacy.channels import parse_name
from qmig.legacy.commands import OpenReturnPath
from qmig.legacy.compose import PING_OPENING
from qmig.legacy.ram import RamEos
from qmig.legacy.receiver import NEED_DATA, LegacyReceiver, Sentinel
from qmig.legacy.returnpath import ReturnPathReceiver, RpPong, RpShut
from qmig.legacy.sections import SectionStart
from qmig.legacy.source import Connect, End, Output, Send
from qmig.legacy.source_table import SourcePhase

#: bytes of one output
PIECE = 256 << 10
#: bytes of main in which the return path must have been opened
_HEAD = 64 << 10
_LIVE = (SourcePhase.SETUP, SourcePhase.PRECOPY, SourcePhase.FINISHING)


class Replay:
    """One connection's channels. Raises `LocalProtocolError` for channels that no source has."""

    def __init__(self, channels: Mapping[str, Raw]) -> None:
        self.phase = SourcePhase.SETUP
        self.error = ""
        self.sent: dict[str, int] = dict.fromkeys(channels, 0)
        self.pongs: list[int] = []
        self.shut: int | None = None
        self._left = {name: memoryview(data).cast("B") for name, data in channels.items()}
        self._order = _connecting(channels)
        self.return_path = _opens_return_path(self._left["main"])
        self.hungry = self.return_path
        self._path = ReturnPathReceiver()
        self._connected: list[str] = []
        self._turn = 0
        self._delivered = False

    @property
    def ended(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.phase not in _LIVE

    def waiting_for(self) -> str:
        """What has to come before anything more can be sent."""
        if self._order and self._waits_for_pong():
            return "PONG 1 on the return path"
        if self.phase is SourcePhase.FINISHING:
            return "SHUT on the return path" if self.return_path else "the channels to take all that was sent"
        return ""

    def _waits_for_pong(self) -> bool:
        early = bytes(self._left["preempt"][-8:]) == RamEos().encode() if self._order == ["preempt"] else True
        return not early and PING_OPENING not in self.pongs

    def next_output(self, ready: Container[str]) -> Output | None:
        """The next output that a channel in `ready` can take."""
        if self.ended:
            return None
        if self._order and not self._waits_for_pong():
            name = self._order.pop(0)
            self._connected.append(name)
            return Connect(name)
        for _ in self._connected:
            name = self._connected[self._turn % len(self._connected)]
            self._turn += 1
            if name in ready and self._left[name]:
                return self._piece(name)
        return next(self._ends(), None)

    def _piece(self, name: str) -> Send:
        self.phase = SourcePhase.PRECOPY
        data, self._left[name] = bytes(self._left[name][:PIECE]), self._left[name][PIECE:]
        self.sent[name] += len(data)
        return Send(name, data)

    def _ends(self) -> Iterator[Output]:
        """All was sent: says so on every channel, unless an answer is to come."""
        if self._order or any(len(data) for data in self._left.values()):
            return
        self.phase = SourcePhase.FINISHING
        if self._connected and not self.return_path:
            yield End(self._connected.pop())
        elif self._delivered:
            self.phase = SourcePhase.COMPLETED

    def delivered(self) -> None:
        """The channels have taken all that was handed out, their ends included."""
        self._delivered = True

    def lost(self, why: str) -> None:
        """A connection broke."""
        if not self.ended:
            self.error, self.phase = why, SourcePhase.FAILED

    def receive_data(self, data: Raw | bytearray) -> None:
        """The next bytes of the return path, `b""` for its end. Raises `RemoteProtocolError`."""
        self._path.receive_data(data)
        try:
            while not self.ended:
                event = self._path.next_event()
                if isinstance(event, Sentinel):
                    self.hungry = event is NEED_DATA and self.return_path
                    break
                self._answered(event)
        except TruncatedStream as error:
            self.lost(f"the return path ends inside a message: {error.message}")
        except RemoteProtocolError as error:
            error.channel = "rp"
            self.lost(str(error))
            raise
        if not data:
            self.lost("the destination closed the return path")

    def _answered(self, event: Record) -> None:
        if isinstance(event, RpPong):
            self.pongs = [*self.pongs, event.value][-8:]
        elif isinstance(event, RpShut):
            self.shut = event.value
            self.phase = SourcePhase.FAILED if event.value else SourcePhase.COMPLETED
            self.error = f"the destination reports an error (SHUT {event.value})" if event.value else ""


def _connecting(channels: Mapping[str, Raw]) -> list[str]:
    """The channels in the order of their connecting."""
    names = {name: parse_name(name) for name in channels}
    kinds = {"main": 0, "multifd": 1, "preempt": 2}
    if "main" not in names or any(n.kind not in kinds or n.connection != 1 for n in names.values()):
        raise LocalProtocolError(
            f"channels {', '.join(names)}: a replay takes main, multifd-N and preempt of one connection",
            requirement="LEG-SES-001",
        )
    return sorted(names, key=lambda name: (kinds[names[name].kind], names[name].number))


def _opens_return_path(main: memoryview) -> bool:
    """Whether the source that was recorded opened a return path: before any live handler started."""
    receiver = LegacyReceiver()
    receiver.receive_data(main[:_HEAD])
    while not isinstance(event := receiver.next_event(), Sentinel | SectionStart):
        if isinstance(event, OpenReturnPath):
            return True
    return False
