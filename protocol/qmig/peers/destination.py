"""A destination that a real QEMU migrates into.

    async with serve_destination("unix:/run/m.sock", multifd_channels=2) as destination:
        await vm.migrate(destination.uri)
        await destination.completed()
        print(destination.ram.digest("pc.ram"))

Life cycle: inside the block it listens. `completed` returns when everything was loaded and the source has
closed its connections; `paused` when a postcopy was interrupted: the source recovers it over a new connection
to the same `uri` (or to one of `listen`). Leaving the block, however that happens, ends everything: no task,
socket, file or process stays. Every await can be cancelled, nothing ends by a clock, and `waiting_for` says
what it waits for at any time; what it was when the block was left by a cancel or an exception stays in
`was_waiting_for`, and the exception carries it as a note.

Rule 1: nothing is read from a channel that the story cannot use yet, so a source meets the same back-pressure
as with QEMU, and memory stays at one buffer per channel.
Rule 2: connections are told apart by their first bytes, not by their order. Only a preempt channel has none
of its own: it is what is left when main and all multifd channels are there.
Rule 3: a `file:` is read as it is: it is for a source that has completed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Final

import trio

from qmig._nursery import background
from qmig.errors import LocalProtocolError, QmigError, RemoteProtocolError, TruncatedStream, localised
from qmig.legacy.connection import Told
from qmig.legacy.destination import IN_FLIGHT, Incoming, Phase
from qmig.legacy.lines import COMMAND
from qmig.legacy.multifd import MULTIFD_MAGIC
from qmig.legacy.ramimage import OpenBlock
from qmig.legacy.rebuild import Rebuild
from qmig.legacy.session import MigrationSession
from qmig.peers.accepted import WORKERS, Connection, Expected, Story, Tap, unusable
from qmig.peers.address import Address, parse_address
from qmig.peers.channel import ChannelBroken
from qmig.peers.ram import Ram, RamFolder, RamMemory
from qmig.peers.tls import TlsCredentials
from qmig.peers.transport import Listener, listen

_MULTIFD: Final = MULTIFD_MAGIC.to_bytes(4, "big")
#: where a multifd channel's first packet has its number
_ID: Final = 24


class MigrationFailed(QmigError):
    """The load was refused or lost. The message is the reason."""


@asynccontextmanager
async def serve_destination(
    address: str | Address | Listener,
    *,
    multifd_channels: int = 0,
    preempt: bool = False,
    switchover_ack: bool = False,
    legacy_ack: bool | None = None,
    postcopy_ram: bool | None = None,
    tls: TlsCredentials | None = None,
    ram: Path | OpenBlock | None = None,
    in_flight: int = IN_FLIGHT,
    page_size: int | None = None,
    story: Story | None = None,
    tap: Tap | None = None,
) -> AsyncIterator[Destination]:
    """A destination for the time of the block, listening at `address` (a listener is used and not closed).

    `multifd_channels`, `preempt`, `switchover_ack` are as on the source: nothing on the wire says them;
    `postcopy_ram` may be, to be held to it. `ram` is a folder for one sparse file per block, or a function
    that gives memory; without it RAM is in memory of our own. An OSError of any of them refuses the load.
    `in_flight` bounds page requests. `story` sees every event in order (views in it are valid during the call
    only) and refuses the load by a RemoteProtocolError, `tap` sees the raw bytes of channels as they come;
    what else they raise goes through. Raises EnvironmentProblem if it cannot listen."""
    async with AsyncExitStack() as stack:
        memory: OpenBlock
        if callable(ram):
            memory = ram
        else:
            kept = stack.enter_context(RamMemory() if ram is None else RamFolder(ram))
            memory = kept.open_block
        incoming = Incoming(
            Rebuild(memory),
            switchover_ack=switchover_ack,
            legacy_ack=legacy_ack,
            postcopy_ram=postcopy_ram,
            in_flight=in_flight,
        )
        session = MigrationSession(live=True, page_size=page_size)
        nursery = await stack.enter_async_context(background())
        expected = Expected(multifd_channels=multifd_channels, preempt=preempt, tls=tls, story=story, tap=tap)
        destination = Destination(incoming, session, nursery, expected)
        if isinstance(address, Listener):
            destination.uri = address.uri
            nursery.start_soon(destination._accept, address)  # noqa: SLF001 - same module
        else:
            await destination.listen(address)
        try:
            yield destination
        except BaseException as error:
            destination.was_waiting_for = destination.waiting_for()
            error.add_note(f"destination at {destination.uri}: {destination.was_waiting_for}")
            raise


class Destination:
    """A running destination; made by `serve_destination`."""

    def __init__(
        self,
        incoming: Incoming,
        session: MigrationSession,
        nursery: trio.Nursery,
        expected: Expected,
    ) -> None:
        #: what to give QEMU's ``migrate``; of the last address it listens at
        self.uri = ""
        #: what it answers and where it stands
        self.incoming = incoming
        self.session = session
        #: the rebuilt memory
        self.ram = Ram(incoming.memory.image)
        #: what `waiting_for` said when the block was left by an exception or a cancel; empty otherwise
        self.was_waiting_for = ""
        #: connections that ended before their first byte, and those that nobody expected
        self.strays = 0
        self._nursery, self._expected = nursery, expected
        self._number = 1  # of the connection that is used, or that a recovery will make
        self._connections: list[Connection] = []
        self._outbox: list[bytes] = []
        self._sending = trio.Lock()
        self._moved = trio.lowlevel.ParkingLot()
        self._workers = trio.Semaphore(WORKERS)

    # -- what its user calls ------------------------------------------------------------------------------

    @property
    def phase(self) -> Phase:
        """Where it stands, in QEMU's words."""
        return self.incoming.phase

    async def listen(self, address: str | Address) -> str:
        """Listens at a further address, for a recovery say; returns its URI."""
        where = parse_address(address) if isinstance(address, str) else address
        self.uri = await self._nursery.start(self._listen, where)
        return self.uri

    async def completed(self) -> None:
        """Waits until all was loaded and the source has closed. Raises MigrationFailed.

        A pause is waited through: the source may recover."""
        await self.until(lambda: self.phase is Phase.COMPLETED and not any(c.name for c in self._connections))

    async def paused(self) -> str:
        """Waits until a postcopy is interrupted; returns the reason. Raises MigrationFailed."""
        await self.until(lambda: self.phase is Phase.PAUSED)
        return self.incoming.reason

    async def until(self, true: Callable[[], bool]) -> None:
        """Waits for what comes with an event, a connection or the end of one. Raises MigrationFailed."""
        while not true():
            if self.phase is Phase.FAILED:
                raise MigrationFailed(self.incoming.reason)
            await self._moved.park()
        await trio.lowlevel.checkpoint()

    def interrupt(self, reason: str = "cut on this side") -> None:
        """Cuts all connections, as a network that breaks does."""
        self._break(reason)

    def waiting_for(self) -> str:
        """Where it stands and what it waits for, in one sentence."""
        reason = f" ({self.incoming.reason})" if self.incoming.reason else ""
        if self.phase is Phase.FAILED:
            return f"failed{reason}"
        parts = [f"{c.channel.name}: its first bytes" for c in self._connections if not c.name]
        begun = self._name_of("main") in {line.name for line in self.session.lines()}
        if not begun and self.phase is not Phase.COMPLETED:
            parts.append(f"a connection of main at {self.uri}")
        elif missing := self._missing():
            parts.append(f"connections of {', '.join(missing)}")
        parts += self.session.waiting_for()
        if self.incoming.wanted is not None and self.incoming.wanted.left:
            parts.append(f"pages: {self.incoming.wanted.summary()}")
        return f"{self.phase.value}{reason}, waiting for {'; '.join(parts) or 'nothing'}"

    # -- accepting ----------------------------------------------------------------------------------------

    async def _listen(self, address: Address, *, task_status: trio.TaskStatus[str]) -> None:
        async with listen(address, tls=self._expected.tls) as listener:
            task_status.started(listener.uri)
            await self._accept(listener)

    async def _accept(self, listener: Listener) -> None:
        while True:
            connection = Connection(await listener.accept(), self._number)
            self._connections.append(connection)
            self._adopt()
            self._nursery.start_soon(self._run, connection)

    async def _run(self, connection: Connection) -> None:
        """One connection, to its end."""
        try:
            if self.incoming.over or not await self._identify(connection):
                self.strays += 1
            else:
                await self._converse(connection)
                await connection.channel.aclose()
        except ChannelBroken as problem:
            self._lost(connection, str(problem))
        except trio.ClosedResourceError:
            pass  # by ourselves
        except RemoteProtocolError as error:
            await self._refuse(error)
        finally:
            if connection.works:
                self._workers.release()
            connection.channel.abort()
            with trio.CancelScope(shield=True), suppress(ChannelBroken):
                await connection.channel.aclose()
            self._connections.remove(connection)
            self._wake()

    async def _identify(self, connection: Connection) -> bool:
        """Finds the channel's name by its first bytes; whether it has one."""
        buffer = connection.buffer
        while connection.size < 4:
            got = await connection.channel.receive_into(buffer[connection.size :])
            if not got:
                return bool(connection.name) or self._nothing_said(connection)
            connection.size += got
        while not connection.name and bytes(buffer[:4]) == _MULTIFD and connection.size <= _ID:
            got = await connection.channel.receive_into(buffer[connection.size :])
            if not got:
                return self._nothing_said(connection)
            connection.size += got
        if not connection.name:
            name = self._name(bytes(buffer[: _ID + 1]))
            if name:
                self._open(connection, name)
                self._adopt()
        return bool(connection.name)

    def _nothing_said(self, connection: Connection) -> bool:
        """A connection has ended: false if without a byte, as one that only looks whether we are there."""
        if connection.size:
            raise unusable(f"it ended after {connection.size} bytes, before it said what it is", connection)
        return False

    def _name(self, head: bytes) -> str:
        """What a connection that begins so is; empty if nobody expects it."""
        recovering = self.phase in {Phase.PAUSED, Phase.RECOVER}
        if head[:4] == _MULTIFD and not recovering:
            name = f"multifd-{head[_ID]}"
            if name not in self._missing():
                why = (
                    "is there already"
                    if self._named(name)
                    else f"is none of {self._expected.multifd_channels}"
                )
                raise RemoteProtocolError(
                    f"channel {head[_ID]} {why}", requirement="LEG-MFD-003", offset=_ID, record="MultifdHello"
                )
            return name
        if self._named("main") is None:
            if recovering and head[0] != COMMAND:
                raise RemoteProtocolError(
                    f"begins with {head[:4]!r}; a recovery begins with a command",
                    requirement="LEG-SES-010", offset=0, record="connection",
                )  # fmt: skip
            return "main"
        return "preempt" if self._expected.preempt and self._named("preempt") is None else ""

    def _adopt(self) -> None:
        """A connection that says nothing is the preempt channel, once everything else is there."""
        if not self._expected.preempt or self._missing() or not self._named("main") or self._named("preempt"):
            return
        for connection in self._connections:
            if not connection.name and not connection.size and connection.number == self._number:
                self._open(connection, "preempt")
                return

    def _open(self, connection: Connection, kind: str) -> None:
        name = self._name_of(kind)
        try:
            self.session.open(name)
        except LocalProtocolError as error:
            raise localised(error, offset=0, record="connection") from None
        connection.kind, connection.name = kind, name
        self.incoming.channel_opened(name)
        self._wake()

    def _name_of(self, kind: str) -> str:
        """What a channel of the connection in use is called in the session."""
        return kind if self._number == 1 else f"{kind}-{self._number}"

    def _named(self, kind: str) -> Connection | None:
        """The connection in use of this kind."""
        for connection in self._connections:
            if connection.kind == kind and connection.number == self._number:
                return connection
        return None

    def _missing(self) -> list[str]:
        """Multifd channels that have yet to connect. A recovery has none."""
        numbers = range(self._expected.multifd_channels if self._number == 1 else 0)
        there = {line.name for line in self.session.lines()}
        return [name for name in map("multifd-{}".format, numbers) if name not in there]

    # -- reading and answering ----------------------------------------------------------------------------

    async def _converse(self, connection: Connection) -> None:
        """Reads one channel to its end, no faster than the story wants it."""
        name, buffer, size = connection.name, connection.buffer, connection.size
        while connection.kind == "main" and self._missing() and not self._gone(connection):
            await connection.turn.park()
        connection.begun = True
        while not self._gone(connection):
            chunk = buffer[:size]
            if self._expected.tap is not None:
                self._expected.tap(name, chunk)
            await self._at_work(connection)
            if self._gone(connection):
                break
            connection.ended = not size
            self.session.receive_data(name, chunk)
            self._tell()
            self._rest(connection)
            if connection.ended and not self._gone(connection):
                self.incoming.channel_ended(name)
            await self._answer()
            if connection.ended:
                return
            while not self._gone(connection) and not self.session.is_wanted(name):
                await connection.turn.park()
            if not self._gone(connection):
                size = await connection.channel.receive_into(buffer)
        if self.phase is Phase.FAILED and connection.kind == "main" and self.incoming.told_failure:
            # The source has to read why before it sees us go.
            while await connection.channel.receive_into(buffer):
                pass

    async def _at_work(self, connection: Connection) -> None:
        """Waits until the channel may begin a packet: one that is begun is finished before a fifth one is, so
        that what is gathered stays in the cache. The rest of it depends on its own channel only."""
        if connection.kind.startswith("multifd") and not connection.works:
            await self._workers.acquire()
            connection.works = True

    def _rest(self, connection: Connection) -> None:
        """The channel's packet is whole, or nobody wants more of it now."""
        name = connection.name
        if connection.works and not (self.session.is_wanted(name) and self.session.is_begun(name)):
            connection.works = False
            self._workers.release()

    def _wake(self) -> None:
        """Something has changed: who waits for that goes on; of the channels, those whose turn it is."""
        self._moved.unpark_all()
        for connection in self._connections:
            if connection.turn and (self._gone(connection) or self._may_read(connection)):
                connection.turn.unpark_all()

    def _may_read(self, connection: Connection) -> bool:
        if connection.kind == "main" and not connection.begun:
            return not self._missing()
        return self.session.is_wanted(connection.name)

    def _gone(self, connection: Connection) -> bool:
        """Whether nobody is interested in this connection any more."""
        return connection.number != self._number or self.phase is Phase.FAILED

    def _tell(self) -> None:
        """Takes what can be told."""
        while self.phase is not Phase.FAILED:
            try:
                told = self.session.next_event()
                if not isinstance(told, Told):
                    break
                self.incoming.take(told)
                if self._expected.story is not None:
                    self._expected.story(told)
            except TruncatedStream as error:
                self._break(str(error))
                break
            except RemoteProtocolError as error:
                self._fail(str(error))
                break
            except OSError as problem:
                self._fail(f"no memory for RAM: {problem.strerror or problem}")
                break
        self._wake()

    async def _answer(self) -> None:
        """Sends what is due, in order, whichever channel it is due to."""
        self._outbox += [answer.message.encode() for answer in self.incoming.answers()]
        if not self._outbox:
            return
        async with self._sending:
            batch, self._outbox = self._outbox, []
            main = self._named("main")
            if batch and main is not None:
                await main.channel.send_all(b"".join(batch))

    # -- bad ends -----------------------------------------------------------------------------------------

    def _lost(self, connection: Connection, reason: str) -> None:
        """A connection broke."""
        if connection.number != self._number or not connection.name:
            return
        if self.incoming.over:  # nothing more was wanted from it
            self._end_lines([connection])
        else:
            self._break(reason)

    def _break(self, reason: str) -> None:
        """The connection is gone: all its channels end where they are."""
        self._end_lines(self._connections)
        self.incoming.broken(reason)
        self._cut()

    async def _refuse(self, error: RemoteProtocolError) -> None:
        self._fail(str(error))
        with suppress(ChannelBroken, trio.ClosedResourceError):
            await self._answer()

    def _fail(self, reason: str) -> None:
        """The load is refused; in a recovery only this attempt at it, and behind RUN only the connection."""
        if self.phase is Phase.POSTCOPY:
            self._break(reason)
            return
        self.incoming.refuse(reason)
        if self.phase is Phase.PAUSED:
            self._end_lines(self._connections)
            self._cut()
        elif self.phase is Phase.FAILED:
            for connection in self._connections:
                if connection.kind != "main" or not self.incoming.told_failure:
                    connection.channel.abort()
        self._wake()

    def _end_lines(self, connections: Iterable[Connection]) -> None:
        """Ends channels in the story; what was whole is taken, the rest is let go."""
        for connection in connections:
            if connection.name and connection.number == self._number and not connection.ended:
                connection.ended = True
                self.session.receive_data(connection.name, b"")
        while True:
            try:
                told = self.session.next_event()
                if not isinstance(told, Told):
                    return
                self.incoming.take(told)
            except (RemoteProtocolError, OSError):
                continue  # cut in the middle, or not worth a second reason
            if self._expected.story is not None:
                self._expected.story(told)

    def _cut(self) -> None:
        used = [connection for connection in self._connections if connection.number == self._number]
        for connection in used:
            connection.channel.abort()
        if any(connection.name for connection in used):
            self._number += 1
        self._outbox.clear()
        self._wake()
