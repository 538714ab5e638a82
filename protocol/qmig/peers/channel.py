"""One connection of a migration: bytes there and, if it is duplex, bytes back.

Life cycle: open from the start, ended by `aclose`. `abort` wakes whoever waits on it and makes `aclose` wait
for nobody; both may be called again. Every await can be cancelled; a cancelled `send_all` leaves an unknown
part sent, so that nothing may be sent behind it. One task may receive while another one sends.
Errors: `ChannelBroken` when the other side or the way to it is gone, `trio.ClosedResourceError` when we
have closed it ourselves.
"""

from __future__ import annotations

import os
import signal
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, TypeAlias

import trio

from qmig.errors import EnvironmentProblem

Data: TypeAlias = bytes | bytearray | memoryview

#: A regular file is read and written in a thread, at most so much at a time, so that a cancel is heard.
_PIECE: Final = 4 << 20


class ChannelBroken(EnvironmentProblem):
    """A connection ended otherwise than by its end: reset, refused to take more, unreadable."""


class Channel(ABC):
    """A connection; `name` says of which kind and to where, for messages."""

    #: whether bytes can come back on it: what a return path needs
    duplex: bool = True

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @abstractmethod
    async def receive_into(self, buffer: memoryview) -> int:
        """Reads at least one byte into `buffer`; how many; 0 at the end."""

    @abstractmethod
    async def send_all(self, data: Data) -> None:
        """Sends all of it, waiting while the other side does not take it."""

    @abstractmethod
    async def send_eof(self) -> None:
        """Says that nothing more comes, where the kind of connection can say so."""

    @abstractmethod
    def abort(self) -> None:
        """Ends both directions now: nothing is flushed, and every task that waits on it goes on."""

    @abstractmethod
    async def aclose(self) -> None:
        """Closes it; what was sent is still delivered."""

    @contextmanager
    def _breaking(self) -> Iterator[None]:
        """System errors and trio's words for a lost connection, as `ChannelBroken`."""
        try:
            yield
        except trio.BrokenResourceError as problem:
            cause = problem.__cause__
            reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else "connection lost"
            raise ChannelBroken(f"{self.name}: {reason}") from problem
        except OSError as problem:
            raise ChannelBroken(f"{self.name}: {problem.strerror or problem}") from problem


class SocketChannel(Channel):
    """A connected stream socket."""

    def __init__(self, name: str, sock: trio.socket.SocketType) -> None:
        super().__init__(name)
        self.stream = trio.SocketStream(sock)

    async def receive_into(self, buffer: memoryview) -> int:
        self._check_open()
        with self._breaking():
            return await self.stream.socket.recv_into(buffer)

    async def send_all(self, data: Data) -> None:
        with self._breaking():
            await self.stream.send_all(data)

    async def send_eof(self) -> None:
        with self._breaking():
            await self.stream.send_eof()

    def abort(self) -> None:
        with suppress(OSError):  # not connected any more, or closed
            self.stream.socket.shutdown(socket.SHUT_RDWR)
        self.stream.socket.close()

    async def aclose(self) -> None:
        await self.stream.aclose()

    def _check_open(self) -> None:
        if self.stream.socket.fileno() < 0:
            raise trio.ClosedResourceError("the channel is closed")


class PipeChannel(Channel):
    """One end, or two, of pipes. `process` is the command behind them."""

    def __init__(
        self,
        name: str,
        *,
        reader: trio.lowlevel.FdStream | None = None,
        writer: trio.lowlevel.FdStream | None = None,
        process: trio.Process | None = None,
    ) -> None:
        super().__init__(name)
        self.duplex = False
        self._reader = reader
        self._writer = writer
        self._process = process

    async def receive_into(self, buffer: memoryview) -> int:
        if self._reader is None:
            raise ChannelBroken(f"{self.name}: nothing can be read from it")
        with self._breaking():
            piece = await self._reader.receive_some(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)

    async def send_all(self, data: Data) -> None:
        if self._writer is None:
            raise ChannelBroken(f"{self.name}: nothing can be written to it")
        with self._breaking():
            await self._writer.send_all(data)

    async def send_eof(self) -> None:
        if self._writer is not None:
            await self._writer.aclose()

    def abort(self) -> None:
        self._kill()
        for stream in (self._reader, self._writer):
            if stream is not None:
                stream.close()

    async def aclose(self) -> None:
        """Closes the pipes and waits for the command, killed on cancel; ChannelBroken if it fails."""
        for stream in (self._writer, self._reader):
            if stream is not None:
                stream.close()
        if self._process is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            status = await self._process.wait()
        except BaseException:
            self._kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()
            raise
        # A command that had more to say than we wanted to hear did not fail.
        if status > 0 and status != 128 + signal.SIGPIPE:
            raise ChannelBroken(f"{self.name}: the command ended with status {status}")

    def _kill(self) -> None:
        """The command and what it started: it has a process group of its own."""
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)


class FileChannel(Channel):
    """A regular file, from where its descriptor stands. It is read up to the end that it has then."""

    def __init__(self, name: str, fd: int) -> None:
        super().__init__(name)
        self.duplex = False
        self._fd = fd
        self._busy = 0
        self._closed = False

    async def receive_into(self, buffer: memoryview) -> int:
        return await self._in_thread(lambda fd: os.readv(fd, [buffer[:_PIECE]]))

    async def send_all(self, data: Data) -> None:
        rest = memoryview(data).cast("B")
        while rest:
            rest = rest[await self._in_thread(partial(_write, rest[:_PIECE])) :]

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()

    def abort(self) -> None:
        self._closed = True
        if not self._busy and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def aclose(self) -> None:
        self.abort()
        await trio.lowlevel.checkpoint()

    async def _in_thread(self, work: Callable[[int], int]) -> int:
        """A descriptor is not closed under a thread that uses it: its number may be another file's then."""
        if self._closed:
            raise trio.ClosedResourceError("the channel is closed")
        self._busy += 1
        try:
            with self._breaking():
                return await trio.to_thread.run_sync(work, self._fd)
        finally:
            self._busy -= 1
            if self._closed:
                self.abort()


def _write(data: memoryview, fd: int) -> int:
    return os.write(fd, data)
