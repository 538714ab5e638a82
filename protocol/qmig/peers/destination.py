"""A destination that a real QEMU migrates into: precopy, with or without return path, multifd.

    listener = await listen_unix("/tmp/m.sock")
    async with trio.open_nursery() as nursery:
        arrival = await receive(listener, story=collect.append)

Rule 1: nothing is read from a channel that the story cannot use yet, so a source meets
the same back-pressure as with QEMU, and memory stays at one buffer per channel.
Rule 2: no clock. It ends when every connection has ended, by the caller's cancel, or by
the first error, which is answered with SHUT 1 if there is a return path.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Final

import trio

from qmig._nursery import background
from qmig._wire import Record
from qmig.errors import QmigError, RemoteProtocolError
from qmig.legacy.commands import OpenReturnPath, Ping
from qmig.legacy.connection import Told
from qmig.legacy.multifd import MULTIFD_MAGIC, MultifdHello
from qmig.legacy.receiver import CLOSED, NEED_DATA
from qmig.legacy.returnpath import RpPong, RpShut
from qmig.legacy.sections import EndOfFile
from qmig.legacy.session import MigrationSession

#: One reused buffer per channel: 1 MiB halves the CPU of 64 KiB (peers, measured).
BUFFER: Final = 1 << 20

Story = Callable[[Told], None]
Tap = Callable[[str, memoryview], None]


async def listen_unix(path: str | os.PathLike[str], *, backlog: int = 64) -> trio.SocketListener:
    """A listener on a new unix socket at `path`."""
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    await sock.bind(os.fspath(path))
    sock.listen(backlog)
    return trio.SocketListener(sock)


async def receive(
    listener: trio.SocketListener,
    *,
    story: Story | None = None,
    tap: Tap | None = None,
    session: MigrationSession | None = None,
    multifd_channels: int = 0,
) -> MigrationSession:
    """Accepts one migration on `listener` and reads it to its end.

    Main is not read before `multifd_channels` others have come: nothing on the wire says how many there
    are, and a page on a late one could be taken for newer than it is (QEMU waits likewise, LEG-MFD).
    `story` sees every event in order (views in it are valid during the call only); `tap` sees the
    raw bytes of each channel as they come. Raises the reader's error after answering SHUT 1;
    closes the listener and every connection in any case."""
    peer = _Destination(session or MigrationSession(live=True), story, tap, multifd_channels)
    async with listener:
        await peer.run(listener)
    return peer.session


class _Destination:
    def __init__(
        self, session: MigrationSession, story: Story | None, tap: Tap | None, multifd_channels: int
    ) -> None:
        self.session = session
        self._story = story
        self._tap = tap
        self._main: trio.SocketStream | None = None
        self._answers: list[Record] = []
        self._returns = False
        self._loaded = False
        self._open = 0
        self._missing = multifd_channels
        self._moved = trio.Condition()
        self._done = trio.Event()

    async def run(self, listener: trio.SocketListener) -> None:
        async with background() as nursery:
            nursery.start_soon(self._accept, listener, nursery)
            await self._done.wait()

    async def _accept(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        while True:
            stream = await listener.accept()
            self._open += 1
            nursery.start_soon(self._connection, stream)

    async def _connection(self, stream: trio.SocketStream) -> None:
        async with stream:
            buffer = memoryview(bytearray(BUFFER))
            try:
                channel, size = await self._identify(stream, buffer)
                await self._channel(channel, stream, buffer, size)
            except QmigError:
                await self._refuse()
                raise
        self._open -= 1
        if not self._open and self._main is not None:  # channels may come and go before main
            self._done.set()

    async def _identify(self, stream: trio.SocketStream, buffer: memoryview) -> tuple[str, int]:
        """The channel's name by its first bytes, and how many of them were read."""
        size = await _fill(stream, buffer, 0, 4)
        if bytes(buffer[:4]) != MULTIFD_MAGIC.to_bytes(4, "big"):
            self._main = stream
            return "main", size
        size = await _fill(stream, buffer, size, MultifdHello.minimum())
        hello, _ = MultifdHello.decode(buffer[:size])
        return f"multifd-{hello.id}", size

    async def _channel(self, name: str, stream: trio.SocketStream, buffer: memoryview, size: int) -> None:
        self.session.open(name)
        async with self._moved:
            self._missing -= name != "main"
            self._moved.notify_all()
            while name == "main" and self._missing > 0:
                await self._moved.wait()
        while True:
            chunk = buffer[:size]
            if self._tap is not None:
                self._tap(name, chunk)
            self.session.receive_data(name, chunk)
            await self._tell()
            if not size:
                return
            async with self._moved:
                while name not in self.session.wants():
                    await self._moved.wait()
            size = await stream.socket.recv_into(buffer)

    async def _tell(self) -> None:
        """Tells what can be told, then answers the source."""
        while isinstance(told := self.session.next_event(), Told):
            self._note(told.event)
            if self._story is not None:
                self._story(told)
        assert told in {NEED_DATA, CLOSED}
        async with self._moved:
            self._moved.notify_all()
        answers, self._answers = self._answers, []
        if answers and self._main is not None:
            await self._main.send_all(b"".join(answer.encode() for answer in answers))

    def _note(self, event: Record) -> None:
        if isinstance(event, OpenReturnPath):
            self._returns = True
        elif isinstance(event, Ping) and self._returns:
            self._answers.append(RpPong(value=event.value))
        elif isinstance(event, EndOfFile) and self._returns:
            # The description may still be on its way; the source waits for this answer behind it.
            self._loaded = True
            self._answers.append(RpShut(value=0))

    async def _refuse(self) -> None:
        """Tells the source that loading failed, if it can be told."""
        if self._returns and not self._loaded and self._main is not None:
            with trio.CancelScope(shield=False):
                try:
                    await self._main.send_all(RpShut(value=1).encode())
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._main = None  # gone: it knows


async def _fill(stream: trio.SocketStream, buffer: memoryview, size: int, wanted: int) -> int:
    """Reads until `wanted` bytes are there, or the end."""
    while size < wanted:
        got = await stream.socket.recv_into(buffer[size:])
        if not got:
            raise RemoteProtocolError(
                f"a connection ended after {size} bytes, before it said what it is",
                requirement="LEG-MFD-001",
                offset=size,
                record="connection",
            )
        size += got
    return size
