"""A destination of few lines without a socket, to try sources with: it reads what they send, keeps the
memory, and answers as it must.

    answerer = Answerer()
    drive(source, answerer)
    assert answerer.memory["pc.ram"] == …
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from qmig._wire import Record
from qmig.errors import RemoteProtocolError
from qmig.legacy import commands as cmd
from qmig.legacy import returnpath as rp
from qmig.legacy.channels import parse_name
from qmig.legacy.connection import Told
from qmig.legacy.mappedram import bitmap_size
from qmig.legacy.rebuild import Rebuild
from qmig.legacy.sections import EndOfFile
from qmig.legacy.session import MigrationSession
from qmig.legacy.source import Connect, End, MigrationSource, Output, Send
from qmig.legacy.verify import Known, Report, Verifier

#: what a guest asks for: (block, offset, length) in bytes
Asked = tuple[str, int, int]


class Answerer:
    """`asks` are requested when the guest may run, and again behind a recovery. `answers` may change what is
    said: a message in, messages out."""

    def __init__(
        self,
        *,
        known: Known | None = None,
        asks: Iterable[Asked] = (),
        answers: Callable[[Record], Iterable[Record]] = lambda message: (message,),
    ) -> None:
        self.memory: dict[str, bytearray] = {}
        self.told: list[tuple[str, Record]] = []
        #: what happened to the channels, in order
        self.outputs: list[Output] = []
        self.page_size = 4096
        self._asks = list(asks)
        self._answers = answers
        self._session = MigrationSession(live=True)
        self._verifier = Verifier(known)
        self._rebuild = Rebuild(self._open)
        self._said: list[Record] = []
        self._path_open = False

    def _open(self, idstr: str, length: int) -> bytearray:
        self.memory[idstr] = bytearray(length)
        return self.memory[idstr]

    def take(self, output: Output) -> bytes:
        """Takes one output; what is said on the return path."""
        self.outputs.append(output)
        match output:
            case Connect(channel):
                self._session.open(channel)
            case Send(channel, data):
                self._session.receive_data(channel, data)
            case End(channel):
                self._session.receive_data(channel, b"")
        while isinstance(told := self._session.next_event(), Told):
            self._hear(told)
        said, self._said = self._said, []
        return b"".join(message.encode() for message in said)

    def _hear(self, told: Told) -> None:
        event = told.event
        self.told.append((told.channel, event))
        self._rebuild.apply(told)
        self._verifier.check(told.channel, event)
        match event:
            case cmd.OpenReturnPath():
                self._path_open = True
            case _ if not self._path_open:
                return
            case cmd.Ping(value=value):
                self._say(rp.RpPong(value=value))
            case cmd.PostcopyRun():
                self._ask()
            case cmd.RecvBitmap(block=block):
                self._say(self._bitmap(block))
            case cmd.PostcopyResume():
                self._say(rp.RpResumeAck(value=1))
                self._ask()
            case EndOfFile():
                self._say(rp.RpShut(value=0))

    def _say(self, message: Record) -> None:
        for said in self._answers(message):
            self._said.append(said)
            connections = [parse_name(output.channel).connection for output in self.outputs]
            self._verifier.check(f"rp-{max(connections)}" if max(connections) > 1 else "rp", said)

    def _ask(self) -> None:
        last = ""
        for block, start, length in self._asks:
            if block == last:
                self._say(rp.RpReqPages(start=start, length=length))
            else:
                named = 13 + len(block)
                self._say(rp.RpReqPagesId(header_len=named, start=start, length=length, block=block))
            last = block

    def _bitmap(self, block: str) -> rp.RpRecvBitmap:
        """What has come of a block and was not taken back."""
        image = self._rebuild.image.block(block)
        bits = 0
        for first, count in image.sent.ranges():
            bits |= ((1 << count) - 1) << first
        for first, count in image.stale.ranges():
            bits &= ~(((1 << count) - 1) << first)
        size = bitmap_size(image.length, self.page_size)
        return rp.RpRecvBitmap(header_len=1 + len(block), block=block, bitmap=bits.to_bytes(size, "little"))

    def cut(self) -> None:
        """Every channel that is still open ends where it is."""
        connected = {output.channel: None for output in self.outputs if isinstance(output, Connect)}
        ended = {output.channel for output in self.outputs if isinstance(output, End)}
        for channel in connected:
            if channel not in ended:
                try:
                    self.take(End(channel))
                except RemoteProtocolError as error:
                    self._verifier.failed(channel, error)

    def finish(self) -> Report:
        """What `verify` has to say of it all, when every channel has ended."""
        self.cut()
        return self._verifier.finish()


class _Everything:
    def __contains__(self, name: object) -> bool:
        return True


#: channels that take whatever comes
EVERYTHING: Final = _Everything()


def drive(
    source: MigrationSource,
    answerer: Answerer,
    *,
    until: Callable[[Output], bool] = lambda output: False,
) -> None:
    """Runs a source into an answerer until it ends, waits for something that will not come, or an output is
    what `until` waits for: that one is lost."""
    while not source.ended:
        output = source.next_output(EVERYTHING)
        if output is None:
            if source.waiting_for() != "the channels to take all that was sent":
                return
            source.delivered()
            continue
        if until(output):
            return
        said = answerer.take(output)
        if said:
            source.receive_data(said)
