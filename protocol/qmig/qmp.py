"""A thin trio adapter over the QEMU project's own QMP library, `qemu.qmp`.

    async with open_qmp("/run/vm/qmp.sock") as qmp:
        print(qmp.version)                                     # (10, 0, 13)
        with qmp.events("MIGRATION") as events:                # subscribe first, then cause
            await qmp.execute("migrate", {"uri": "file:/tmp/vm.mig"})
            async for event in events:
                if event["data"]["status"] in ("completed", "failed"):
                    break

Rules: every await can be cancelled; nothing here ends by a clock. A command ends by its answer, by the end
of the connection (`QmpClosed`) or by the caller's cancel. An error answer is a `QmpCommandError` that keeps
request and reply. A subscriber learns of the end of the connection as well: its iteration raises `QmpClosed`.
Closing does not wait for a QEMU that has stopped reading its monitor.

`qemu.qmp` is asyncio code. Each connection runs it in a trio-asyncio loop of its own, in a helper task.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any

import trio
import trio_asyncio
from qemu.qmp import ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.events import EventListener
from qemu.qmp.message import Message
from qemu.qmp.protocol import ConnectError, StateError

from qmig._nursery import background, essence
from qmig.errors import EnvironmentProblem

Event = Mapping[str, Any]

#: Events kept for diagnosis, the newest ones.
RECENT_EVENTS = 256
#: Events that a subscriber may leave unread before its subscription fails.
UNREAD_EVENTS = 65_536
#: Longest line of a monitor: a whole `query-qmp-schema` is 0.4 MB.
LONGEST_LINE = 16 << 20


class QmpError(EnvironmentProblem):
    """A monitor did not do what it was asked."""


class QmpConnectError(QmpError):
    """No QMP session could be had at an address. `by_peer` tells whether the other side closed first."""

    def __init__(self, message: str, *, by_peer: bool = False) -> None:
        super().__init__(message)
        self.by_peer = by_peer


class QmpClosed(QmpError):
    """The connection ended. `request` is the command that was left without an answer: nobody knows whether
    it was carried out. `by_peer` tells whether the other side closed."""

    def __init__(
        self, message: str, *, request: Mapping[str, Any] | None = None, by_peer: bool = False
    ) -> None:
        super().__init__(message)
        self.request, self.by_peer = request, by_peer


class QmpCommandError(QmpError):
    """QEMU answered a command with an error.

    `request` and `reply` are the two messages; `error_class` and `desc` the error's members.
    """

    def __init__(self, request: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        error = reply.get("error")
        members = error if isinstance(error, Mapping) else {}
        self.error_class = str(members.get("class", ""))
        self.desc = str(members.get("desc", ""))
        self.request, self.reply = request, reply
        command = request.get("execute") or request.get("exec-oob")
        super().__init__(f"{command}: {self.desc}")


def _quiet_logger() -> logging.Logger:
    # The library reports by exceptions as well; without this, a cancelled command's late answer would print
    # a line to stderr through logging's handler of last resort.
    logger = logging.Logger("qmig.qmp")
    logger.addHandler(logging.NullHandler())
    return logger


class EventStream:
    """What one subscriber has not read yet. Iterate over it, or `get` one event."""

    def __init__(self, names: frozenset[str], ended: Callable[[], QmpClosed]) -> None:
        self._names, self._ended = names, ended
        self._in, self._out = trio.open_memory_channel[Event](inf)
        self._overrun = False

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> Event:
        return await self.get()

    async def get(self) -> Event:
        """The next event; QmpClosed once the connection has ended and all events have been read."""
        try:
            return await self._out.receive()
        except trio.EndOfChannel:
            if self._overrun:
                raise QmpError(f"more than {UNREAD_EVENTS} events were left unread") from None
            raise self._ended() from None

    def unread(self) -> list[Event]:
        """Takes what is there, without waiting."""
        taken: list[Event] = []
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                taken.append(self._out.receive_nowait())
        return taken

    def put(self, event: Event) -> None:
        """Called by the connection."""
        if self._names and event.get("event") not in self._names:
            return
        if self._in.statistics().current_buffer_used >= UNREAD_EVENTS:
            self._overrun = True
            self.close()
        with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            self._in.send_nowait(event)

    def close(self) -> None:
        """Called by the connection: no more events will come."""
        self._in.close()


class _Tap(EventListener):
    """Hands events of the asyncio side on to a function."""

    def __init__(self, take: Callable[[Event], None]) -> None:
        super().__init__()
        self._take = take

    async def put(self, event: Message) -> None:
        self._take(dict(event))


class Qmp:
    """One QMP session; made by `open_qmp`."""

    def __init__(self, client: QMPClient, loop: trio_asyncio.TrioEventLoop, sock: socket.socket) -> None:
        self._client, self._loop, self._socket = client, loop, sock
        self._streams: list[EventStream] = []
        self._end: QmpClosed | None = None
        self._ended = trio.Event()
        #: the newest events, oldest first
        self.recent: deque[Event] = deque(maxlen=RECENT_EVENTS)
        client.register_listener(_Tap(self._on_event))

    @property
    def greeting(self) -> Mapping[str, Any]:
        """The ``QMP`` member of the greeting: version and capabilities."""
        greeting = self._client.greeting
        return dict(greeting.QMP._raw) if greeting else {}  # noqa: SLF001 - the models have no public view

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's version from the greeting."""
        numbers = self.greeting["version"]["qemu"]
        return numbers["major"], numbers["minor"], numbers["micro"]

    @property
    def package(self) -> str:
        """The packager's version from the greeting; may be empty."""
        return str(self.greeting["version"].get("package", ""))

    @property
    def closed(self) -> bool:
        return self._end is not None

    async def execute(
        self, command: str, arguments: Mapping[str, Any] | None = None, *, oob: bool = False
    ) -> Any:
        """Run a command and return its ``return`` member.

        Raises QmpCommandError for an error answer, QmpClosed if the connection ends first. A cancelled
        command may still be carried out by QEMU; its late answer is dropped.
        """
        request = {"exec-oob" if oob else "execute": command}
        if arguments is not None:
            request["arguments"] = dict(arguments)  # type: ignore[assignment]
        if self._end is not None:
            await trio.lowlevel.checkpoint()
            raise self._how_it_ended(request)
        try:
            execute = trio_asyncio.aio_as_trio(self._client.execute, loop=self._loop)
            return await execute(command, arguments, oob)
        except ExecuteError as problem:
            raise QmpCommandError(dict(problem.sent), dict(problem.received)) from problem
        except (ExecInterruptedError, StateError):
            await self._ended.wait()
            raise self._how_it_ended(request) from None
        except QMPError as problem:
            raise QmpError(f"{command}: {problem}") from problem

    @contextmanager
    def events(self, *names: str) -> Iterator[EventStream]:
        """Subscribe to events of these names (none: all) from now to the end of the block."""
        stream = EventStream(frozenset(names), self._how_it_ended)
        self._streams.append(stream)
        if self._end is not None:
            stream.close()
        try:
            yield stream
        finally:
            self._streams.remove(stream)
            stream.close()

    def send_fd(self, fd: int) -> None:
        """Pass a file descriptor to QEMU, for the next ``getfd`` or ``add-fd``; the caller keeps its own."""
        if self._end is not None:
            raise self._how_it_ended()
        try:
            self._client.send_fd_scm(fd)
        except (QMPError, OSError) as problem:
            raise QmpError(f"cannot pass a file descriptor: {problem}") from problem

    async def wait_closed(self) -> QmpClosed:
        """Wait for the end of the connection and return the reason."""
        await self._ended.wait()
        return self._how_it_ended()

    def _on_event(self, event: Event) -> None:
        self.recent.append(event)
        for stream in list(self._streams):
            stream.put(event)

    def _how_it_ended(self, request: Mapping[str, Any] | None = None) -> QmpClosed:
        assert self._end is not None
        command = (request.get("execute") or request.get("exec-oob")) if request else None
        prefix = f"{command}: " if command else ""
        return QmpClosed(f"{prefix}{self._end}", request=request, by_peer=self._end.by_peer)

    def _finish(self, end: QmpClosed) -> None:
        if self._end is None:
            self._end = end
            self._ended.set()
            for stream in self._streams:
                stream.close()

    async def _watch(self) -> None:
        """Asyncio side: comes back when the connection has ended by itself."""
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()

    async def _disconnect(self) -> None:
        """Asyncio side: collect the library's tasks and the reason. Never waits for the peer."""
        with suppress(OSError):  # closed already
            # With the socket shut down there is nothing to flush: a QEMU that does not read cannot hold us.
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            await self._client.disconnect()
        except EOFError:
            self._finish(QmpClosed("QEMU closed the monitor connection", by_peer=True))
        except OSError as problem:
            by_peer = problem.errno in (errno.ECONNRESET, errno.EPIPE)
            reason = f"monitor connection failed: {problem.strerror or problem}"
            self._finish(QmpClosed(reason, by_peer=by_peer))
        except Exception as problem:  # noqa: BLE001 - what the library makes of bytes that are no QMP is open
            what = str(problem) if isinstance(problem, QMPError) else f"{type(problem).__name__}: {problem}"
            self._finish(QmpClosed(f"monitor connection ended by what was received: {what[:300]}"))
        self._finish(QmpClosed("monitor connection was closed"))

    async def _live(self, task_status: trio.TaskStatus[Qmp]) -> None:
        """Trio side: from the established session to its end, by the peer or by cancel."""
        try:
            task_status.started(self)
            await trio_asyncio.aio_as_trio(self._watch, loop=self._loop)()
        finally:
            with trio.CancelScope(shield=True):
                await trio_asyncio.aio_as_trio(self._disconnect, loop=self._loop)()


@asynccontextmanager
async def open_qmp(address: str | Path | socket.socket) -> AsyncIterator[Qmp]:
    """A QMP session at `address`: a path or ``unix:PATH``, ``tcp:HOST:PORT``, or a connected socket.

    A socket is taken over and closed. Waits for the greeting and negotiates capabilities (out-of-band
    execution where QEMU offers it). Raises QmpConnectError. The connection is closed at the end of the block,
    whatever the other side does.
    """
    async with background() as nursery:
        qmp: Qmp = await nursery.start(_run, address)
        try:
            yield qmp
        finally:
            qmp._finish(QmpClosed("monitor connection was closed by its user"))  # noqa: SLF001


async def _run(address: str | Path | socket.socket, *, task_status: trio.TaskStatus[Qmp]) -> None:
    sock = address if isinstance(address, socket.socket) else await _connect(str(address))
    try:
        async with trio_asyncio.open_loop() as loop:
            client = QMPClient(readbuflen=LONGEST_LINE)
            client.logger = _quiet_logger()
            client.events.event_filter = lambda event: False  # it would keep every event for ever
            try:
                await trio_asyncio.aio_as_trio(client.connect)(sock)
            except ConnectError as problem:
                by_peer = isinstance(problem.exc, (EOFError, ConnectionError))
                text = f"{_shown(address)}: no QMP session: {_cause(problem)}"
                raise QmpConnectError(text, by_peer=by_peer) from problem
            await Qmp(client, loop, sock)._live(task_status)  # noqa: SLF001
    except BaseExceptionGroup as group:
        raise essence(group) from None
    finally:
        sock.close()


def _shown(address: str | Path | socket.socket) -> str:
    return "monitor" if isinstance(address, socket.socket) else str(address)


def _cause(problem: ConnectError) -> str:
    if isinstance(problem.exc, EOFError):
        return "the other side closed before its greeting"
    return str(problem.exc) or type(problem.exc).__name__


async def _connect(address: str) -> socket.socket:
    kind, _, rest = address.partition(":")
    try:
        if kind == "tcp":
            host, _, port = rest.rpartition(":")
            stream = await trio.open_tcp_stream(host.strip("[]"), int(port))
            raw = stream.socket
        else:
            raw = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                await raw.connect(rest if kind == "unix" else address)
            except BaseException:
                raw.close()
                raise
        plain = socket.socket(fileno=raw.detach())
    except ValueError as problem:
        raise QmpConnectError(f"{address}: not an address such as unix:PATH or tcp:HOST:PORT") from problem
    except OSError as problem:
        raise QmpConnectError(f"{address}: {problem.strerror or problem}") from problem
    plain.setblocking(False)
    return plain
