"""Connecting and listening at the addresses that QEMU knows.

    channel = await connect(parse_address("tcp:localhost:4444"))

    async with listen(parse_address("unix:/run/m.sock")) as listener:
        await vm.migrate(listener.uri)
        channel = await listener.accept()

A listener is closed with its block; the channels that were accepted are their taker's. What cannot be had is
an `EnvironmentProblem` that names the address; nothing here ends by a clock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from math import inf
from pathlib import Path
from typing import Final, TypeAlias

import trio

from qmig._nursery import background
from qmig.errors import EnvironmentProblem
from qmig.peers.address import (
    Address,
    AddressError,
    ExecAddress,
    FdAddress,
    FileAddress,
    TcpAddress,
    UnixAddress,
    VsockAddress,
)
from qmig.peers.channel import Channel, FileChannel, PipeChannel, SocketChannel
from qmig.peers.tls import TlsChannel, TlsCredentials

_Accept: TypeAlias = Callable[[], Awaitable[trio.SocketStream]]

#: Connections that may wait to be accepted: more than a multifd source opens at once.
BACKLOG: Final = 512


class Listener:
    """Where connections come in. `uri` is what the other side connects to, as QEMU writes it."""

    def __init__(self, uri: str, accept: Callable[[], Awaitable[Channel]]) -> None:
        self.uri = uri
        self._accept = accept

    async def accept(self) -> Channel:
        """The next connection. An address that gives one only has no second: it waits to be cancelled."""
        return await self._accept()


async def connect(address: Address, *, tls: TlsCredentials | None = None) -> Channel:
    """A new connection to `address`, as a source makes it: a command is started, a file is made anew (what it
    held before `offset` is kept), a descriptor is taken over."""
    match address:
        case TcpAddress(host=host, port=port):
            sock = await _connected(address, lambda: trio.open_tcp_stream(host or "localhost", port))
        case UnixAddress(path=path):
            sock = await _connected(address, lambda: trio.open_unix_socket(path))
        case VsockAddress(cid=cid, port=port):
            sock = await _connected(address, lambda: _open_vsock(cid, port))
        case _ if tls is not None:
            raise AddressError(f"{address}: TLS needs a socket's address")
        case FdAddress():
            return _adopt(address)
        case ExecAddress():
            return await _run(address, writing=True)
        case FileAddress():
            return _open_file(address, os.O_WRONLY | os.O_CREAT)
    if tls is None:
        return sock
    host = address.host if isinstance(address, TcpAddress) else ""
    return TlsChannel(sock, tls.context(server=False), server=False, hostname=tls.hostname or host)


@asynccontextmanager
async def listen(
    address: Address, *, backlog: int = BACKLOG, tls: TlsCredentials | None = None
) -> AsyncIterator[Listener]:
    """Waits for connections at `address`, as a destination does: a command is started and read from, a file
    is read from `offset` on, a descriptor is taken over."""
    if isinstance(address, TcpAddress | UnixAddress | VsockAddress):
        context = tls.context(server=True) if tls is not None else None
        async with _bound(address, backlog) as (listeners, uri), _arrivals(listeners) as arrival:

            async def accept() -> Channel:
                sock = SocketChannel(uri, (await arrival()).socket)
                return sock if context is None else TlsChannel(sock, context, server=True)

            yield Listener(uri, accept)
        return
    if tls is not None:
        raise AddressError(f"{address}: TLS needs a socket's address")
    async with _only(str(address), await _single(address)) as listener:
        yield listener


@asynccontextmanager
async def listen_pair() -> AsyncIterator[tuple[Listener, socket.socket]]:
    """A listener that has its one connection already, and the socket at the other end of it: to be handed to
    a QEMU with ``getfd``, which then knows it as ``fd:NAME``. It may be closed when it has been handed over,
    and is with the block."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        async with _only("fd", SocketChannel("fd", trio.socket.from_stdlib_socket(ours))) as listener:
            yield listener, theirs
    finally:
        theirs.close()


@asynccontextmanager
async def _only(uri: str, channel: Channel) -> AsyncIterator[Listener]:
    waiting = [channel]

    async def accept() -> Channel:
        if not waiting:
            await trio.sleep(inf)
        await trio.lowlevel.checkpoint()
        return waiting.pop()

    try:
        yield Listener(uri, accept)
    finally:
        for left in waiting:
            left.abort()
            with trio.CancelScope(shield=True):
                await left.aclose()


async def _single(address: Address) -> Channel:
    match address:
        case ExecAddress():
            return await _run(address, writing=False)
        case FileAddress():
            return _open_file(address, os.O_RDONLY)
        case _:
            assert isinstance(address, FdAddress)
            return _adopt(address)


# -- sockets ------------------------------------------------------------------------------------------------


async def _connected(address: Address, opening: Callable[[], Awaitable[trio.SocketStream]]) -> SocketChannel:
    try:
        stream = await opening()
    except OSError as problem:
        raise EnvironmentProblem(f"cannot connect to {address}: {_reason(problem)}") from problem
    return SocketChannel(str(address), stream.socket)


async def _open_vsock(cid: int, port: int) -> trio.SocketStream:
    sock = trio.socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    try:
        await sock.connect((cid, port))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(sock)


@asynccontextmanager
async def _bound(
    address: TcpAddress | UnixAddress | VsockAddress, backlog: int
) -> AsyncIterator[tuple[list[trio.SocketListener], str]]:
    """The listening sockets (a TCP host may have several addresses) and their common URI."""
    async with AsyncExitStack() as stack:
        try:
            match address:
                case TcpAddress(host=host, port=port):
                    # One family only where the system chooses the port: it would choose two.
                    listeners = await trio.open_tcp_listeners(port, host=host or None, backlog=backlog)
                    for extra in listeners[1:] if port == 0 else []:
                        await extra.aclose()
                    del listeners[1 if port == 0 else len(listeners) :]
                    port = listeners[0].socket.getsockname()[1]
                    uri = str(TcpAddress(host or "localhost", port))
                case UnixAddress(path=path):
                    listeners = [trio.SocketListener(await _bind_unix(path, backlog))]
                    uri = str(address)
                    stack.callback(_remove, path, Path(path).stat())
                case VsockAddress(cid=cid, port=port):
                    sock = trio.socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
                    stack.callback(sock.close)
                    await sock.bind((cid, port))
                    sock.listen(backlog)
                    listeners = [trio.SocketListener(sock)]
                    uri = str(address)
        except OSError as problem:
            raise EnvironmentProblem(f"cannot listen at {address}: {_reason(problem)}") from problem
        for listener in listeners:
            stack.push_async_callback(listener.aclose)
        yield listeners, uri


async def _bind_unix(path: str, backlog: int) -> trio.socket.SocketType:
    """A socket that somebody left behind is replaced; one that is listened at, or another file, is not."""
    sock = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            await sock.bind(path)
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE or not _is_left_behind(path):
                raise
            Path(path).unlink(missing_ok=True)
            await sock.bind(path)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _is_left_behind(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED and stat.S_ISSOCK(os.lstat(path).st_mode)


def _remove(path: str, made: os.stat_result) -> None:
    """Removes the socket that we made, if it is still the one at `path`."""
    with suppress(FileNotFoundError):
        there = Path(path).lstat()
        if (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino):
            Path(path).unlink()


@asynccontextmanager
async def _arrivals(listeners: list[trio.SocketListener]) -> AsyncIterator[_Accept]:
    """One queue of connections for several listeners."""
    if len(listeners) == 1:
        yield listeners[0].accept
        return
    send, receive = trio.open_memory_channel[trio.SocketStream](0)
    async with background() as nursery:
        for listener in listeners:
            nursery.start_soon(_forward, listener, send)
        yield receive.receive


async def _forward(listener: trio.SocketListener, send: trio.MemorySendChannel[trio.SocketStream]) -> None:
    while True:
        stream = await listener.accept()
        try:
            await send.send(stream)
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise


# -- descriptors, commands, files ---------------------------------------------------------------------------


def _adopt(address: FdAddress) -> Channel:
    """Takes an inherited descriptor over. Nobody else may use it from now on."""
    fd, name = address.number, str(address)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            sock = socket.socket(fileno=fd)
            sock.setblocking(False)
            return SocketChannel(name, trio.socket.from_stdlib_socket(sock))
        if stat.S_ISREG(mode):
            return FileChannel(name, fd)
        access = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError as problem:
        raise EnvironmentProblem(f"cannot use {name}: {_reason(problem)}") from problem
    stream = trio.lowlevel.FdStream(fd)
    return PipeChannel(
        name,
        reader=stream if access != os.O_WRONLY else None,
        writer=stream if access != os.O_RDONLY else None,
    )


async def _run(address: ExecAddress, *, writing: bool) -> Channel:
    """The command in a session of its own, so that it goes as a whole when we end it."""
    try:
        process = await trio.lowlevel.open_process(
            ["/bin/sh", "-c", address.command],
            stdin=subprocess.PIPE if writing else subprocess.DEVNULL,
            stdout=subprocess.PIPE if not writing else None,
            start_new_session=True,
        )
    except OSError as problem:
        raise EnvironmentProblem(f"cannot start {address}: {_reason(problem)}") from problem
    pipe = process.stdin if writing else process.stdout
    assert isinstance(pipe, trio.lowlevel.FdStream)
    ends = {"writer" if writing else "reader": pipe}
    return PipeChannel(str(address), process=process, **ends)


def _open_file(address: FileAddress, flags: int) -> Channel:
    with ExitStack() as stack:
        try:
            # A pipe would make us wait here, and is no file.
            fd = os.open(address.path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
            stack.callback(os.close, fd)
            regular = stat.S_ISREG(os.fstat(fd).st_mode)
            if regular and flags & os.O_WRONLY:
                os.ftruncate(fd, address.offset)
            if regular:
                os.lseek(fd, address.offset, os.SEEK_SET)
        except OSError as problem:
            raise EnvironmentProblem(f"cannot open {address}: {_reason(problem)}") from problem
        if not regular:
            raise EnvironmentProblem(f"cannot open {address}: not a regular file")
        stack.pop_all()
    return FileChannel(str(address), fd)


def _reason(problem: OSError) -> str:
    if isinstance(problem.__cause__, ExceptionGroup):  # one attempt for each address of a host
        problem = next((one for one in problem.__cause__.exceptions if isinstance(one, OSError)), problem)
    return os.strerror(problem.errno) if problem.errno and problem.errno > 0 else str(problem)
