"""A source that a real QEMU, waiting for a migration, takes its guest from.

    image = collector.finish()                           # qmig.legacy.machine_image
    settings = SourceSettings.for_machine(image.machine, return_path=True, multifd_channels=4)
    async with open_source(parse_address("unix:/run/m.sock"), MigrationSource(image, settings)) as source:
        outcome = await source.migrate()
        while outcome.phase is SourcePhase.PAUSED:       # a postcopy whose connection was lost
            outcome = await source.recover(parse_address("unix:/run/again.sock"))

Life cycle: nothing is connected before `migrate` or `recover`, and nothing is left of their connections when
they return or raise; a paused migration keeps its memory only. Each can be cancelled at any await, whatever
the destination does or does not do. Nothing ends by a clock: `waiting_for` says what it waits for.
Outcome: what the destination reports (SHUT) where there is a return path, else that all was taken; a lost or
refused connection is an outcome too. Only what the destination may not say raises: `RemoteProtocolError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Container, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from qmig._nursery import background
from qmig.errors import EnvironmentProblem
from qmig.legacy.source import Connect, End, MigrationSource, Output, Send
from qmig.legacy.source_table import SourcePhase
from qmig.peers.address import Address
from qmig.peers.channel import Channel, ChannelBroken
from qmig.peers.tls import TlsChannel, TlsCredentials
from qmig.peers.transport import connect

#: Bytes that wait for one channel before what follows is held back.
OUTBOX: Final = 1 << 20
#: Bytes of the return path that are read at once; its messages are small but for bitmaps.
_BUFFER: Final = 64 << 10


class SourceCore(Protocol):
    """What decides: `qmig.legacy.source.MigrationSource`, or `qmig.legacy.replay.Replay`."""

    error: str
    hungry: bool
    sent: dict[str, int]
    shut: int | None
    phase: SourcePhase

    @property
    def ended(self) -> bool: ...
    def next_output(self, ready: Container[str]) -> Output | None: ...
    def receive_data(self, data: bytes | memoryview) -> None: ...
    def waiting_for(self) -> str: ...
    def delivered(self) -> None: ...
    def lost(self, why: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a migration, or one attempt at its recovery, ended."""

    #: COMPLETED, FAILED, or PAUSED: `Source.recover` may then be called
    phase: SourcePhase
    #: why it is not completed
    error: str
    #: what the destination said at its end; None: nothing, or there is no return path
    shut: int | None
    #: bytes handed out, by channel
    sent: Mapping[str, int] = field(repr=False)


class Source:
    """One migration; made by `open_source`."""

    def __init__(self, address: Address, core: SourceCore, tls: TlsCredentials | None) -> None:
        self.core = core
        self._address = address
        self._tls = tls
        self._lines: dict[str, _Line] = {}
        self._connecting = ""
        self._wake = trio.Event()  # something happened that the next output may depend on
        self._changed = trio.Event()  # the same, for the callers of `until`
        self._hunger = trio.Event()  # the core takes answers again
        self._running = False

    @property
    def state(self) -> SourcePhase:
        """Where the migration stands."""
        return self.core.phase

    def waiting_for(self) -> str:
        """One sentence: what has to happen before it goes on; empty while it is busy or has ended."""
        found = [self._connecting] if self._connecting else []
        for line in self._lines.values():
            if line.unsent:
                found.append(f"{line.name}: {line.unsent} bytes that the destination does not take")
        if not found and (answer := self.core.waiting_for()):
            found.append(answer)
        return f"waits for {'; '.join(found)}" if found else ""

    async def migrate(self) -> Outcome:
        """Migrates, up to an end or a pause. Raises `RemoteProtocolError` for answers that make no sense."""
        return await self._attempt()

    async def recover(self, address: Address) -> Outcome:
        """Takes a paused postcopy up again, at an address where the destination listens anew
        (`migrate-recover`)."""
        assert isinstance(self.core, MigrationSource)  # a replay does not pause
        self.core.resume()
        self._address = address
        return await self._attempt()

    async def until(self, reached: Callable[[], bool]) -> None:
        """Waits until something is so, looked at whenever anything was sent or answered, or there is nothing
        to send."""
        while not reached():
            await self._changed.wait()

    def _note(self) -> None:
        """Something happened."""
        self._wake.set()
        self._look()

    def _look(self) -> None:
        """Whoever waits for something looks again."""
        self._changed.set()
        self._changed = trio.Event()

    def cut(self) -> None:
        """Ends all connections at once, as a failing network would: in postcopy the migration pauses."""
        self.core.lost("the connections were cut")
        for line in self._lines.values():
            line.channel.abort()
        self._note()

    async def aclose(self) -> None:
        """Ends whatever is left; a migration that another task still runs has then failed, or is paused."""
        self.cut()
        await self._abandon()

    async def _attempt(self) -> Outcome:
        if self._running:
            raise RuntimeError("a migration runs in one task at a time")
        self._running = True
        try:
            async with background() as nursery:
                await self._pump(nursery)
            await self._close()
        finally:
            self._running = False
            self._connecting = ""
            self.core.lost("given up by the caller")
            await self._abandon()
        core = self.core
        return Outcome(core.phase, core.error, core.shut, dict(core.sent))

    async def _pump(self, nursery: trio.Nursery) -> None:
        """Outputs to channels until nothing more happens."""
        core = self.core
        while not core.ended:
            output = core.next_output(_Ready(self._lines, core))
            if core.hungry:
                self._hunger.set()
            if output is None:
                if self._lines and all(line.done for line in self._lines.values()):
                    core.delivered()
                    if core.next_output(()) is None and core.ended:
                        return
                self._wake = trio.Event()
                self._look()
                await self._wake.wait()
            elif isinstance(output, Connect):
                await self._connect(output.channel, nursery)
            elif isinstance(output, Send):
                self._lines[output.channel].put(output.data)
                await trio.lowlevel.checkpoint()
            else:
                assert isinstance(output, End)
                self._lines[output.channel].end()

    async def _connect(self, name: str, nursery: trio.Nursery) -> None:
        self._connecting = f"a connection to {self._address} ({name})"
        try:
            channel = await connect(self._address, tls=self._tls)
            line = self._lines[name] = _Line(name, channel)
            if isinstance(channel, TlsChannel):
                # The destination tells channels apart by the order of their handshakes.
                await channel.handshake()
        except EnvironmentProblem as problem:
            self.core.lost(str(problem))
            return
        finally:
            self._connecting = ""
        nursery.start_soon(self._write, line)
        if self.core.hungry and name.startswith("main"):
            if not channel.duplex:
                self.core.lost(f"{channel.name}: nothing comes back on it, so there is no return path")
                return
            line.read = True
            nursery.start_soon(self._read, line)

    async def _write(self, line: _Line) -> None:
        try:
            while await line.something():
                await line.flush()
                self._note()
            await line.channel.send_eof()
            await line.channel.aclose()
            line.done = True
        except trio.ClosedResourceError:  # cut
            return
        except ChannelBroken as problem:
            line.drop()
            # The destination may have said why on the return path, whose end comes in any case.
            if not line.read:
                self.core.lost(f"{line.name}: {problem}")
        self._note()

    async def _read(self, line: _Line) -> None:
        buffer = memoryview(bytearray(_BUFFER))
        size = 1
        while size and not self.core.ended:
            while not self.core.hungry:
                self._hunger = trio.Event()
                await self._hunger.wait()
            try:
                size = await line.channel.receive_into(buffer)
            except trio.ClosedResourceError:  # cut
                return
            except ChannelBroken as problem:
                self.core.lost(f"{line.name}: {problem}")
                break
            self.core.receive_data(buffer[:size])
            self._note()
        line.read = False
        self._note()

    async def _close(self) -> None:
        """Says goodbye on the channels of a completed migration."""
        if self.core.phase is SourcePhase.COMPLETED:
            for line in self._lines.values():
                with suppress(ChannelBroken):  # the guest runs there, whatever becomes of the connection
                    await line.channel.aclose()

    async def _abandon(self) -> None:
        lines, self._lines = self._lines, {}
        with trio.CancelScope(shield=True):  # none of these waits for anybody
            for line in lines.values():
                line.channel.abort()
                with suppress(ChannelBroken):
                    await line.channel.aclose()


class _Line:
    """One channel and what waits to be sent on it."""

    def __init__(self, name: str, channel: Channel) -> None:
        self.name = name
        self.channel = channel
        self.unsent = 0  # bytes, those included that the channel is just taking
        self.read = False  # a task reads its other direction
        self.done = False  # closed behind its last byte
        self._outbox: list[bytes] = []
        self._ending = False
        self._broken = False
        self._wake = trio.Event()

    def put(self, data: bytes) -> None:
        if not self._broken:
            self._outbox.append(data)
            self.unsent += len(data)
            self._wake.set()

    def end(self) -> None:
        self._ending = True
        self._wake.set()

    def drop(self) -> None:
        """Forgets what cannot be sent any more, and what will come."""
        self._broken = True
        self._outbox.clear()
        self.unsent = 0

    async def something(self) -> bool:
        """Waits for bytes to send; False: there will be none."""
        while not self._outbox and not self._ending:
            self._wake = trio.Event()
            await self._wake.wait()
        return bool(self._outbox)

    async def flush(self) -> None:
        pieces, self._outbox = self._outbox, []
        size = sum(map(len, pieces))
        await self.channel.send_all(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        self.unsent -= size


class _Ready:
    """The channels that take more. Once pages are asked for, main gets no more than it is taking: what is
    in its outbox goes before what is asked for next."""

    def __init__(self, lines: Mapping[str, _Line], core: SourceCore) -> None:
        self._lines = lines
        self._most = 1 if core.phase is SourcePhase.POSTCOPY else OUTBOX

    def __contains__(self, name: object) -> bool:
        line = self._lines.get(str(name))
        return line is not None and line.unsent < self._most


@asynccontextmanager
async def open_source(
    address: Address, core: SourceCore, *, tls: TlsCredentials | None = None
) -> AsyncIterator[Source]:
    """A source that will migrate to `address`; `core` says what."""
    source = Source(address, core, tls)
    try:
        yield source
    finally:
        await source.aclose()
