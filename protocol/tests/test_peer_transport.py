"""Connections of every kind: both directions, their ends, breaks and cancels."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from qmig.errors import EnvironmentProblem
from qmig.peers.address import AddressError, FdAddress, TcpAddress, UnixAddress, parse_address
from qmig.peers.channel import Channel, ChannelBroken, FileChannel
from qmig.peers.tls import TlsChannel, TlsCredentials
from qmig.peers.transport import connect, listen, listen_pair

DATA = bytes(range(256)) * 5000  # more than any buffer on the way holds
DUPLEX = ("tcp:127.0.0.1:0", "tcp:[::1]:0", "unix:{folder}/s")


def descriptors() -> dict[str, str]:
    """What is open: number -> what it is."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = str(entry.readlink())
        except FileNotFoundError:
            continue  # the listing's own
    return found


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


async def read_all(channel: Channel) -> bytes:
    buffer, got = memoryview(bytearray(1 << 16)), bytearray()
    while size := await channel.receive_into(buffer):
        got += buffer[:size]
    return bytes(got)


@asynccontextmanager
async def pair(text: str, folder: Path, tls: TlsCredentials | None = None) -> AsyncIterator[list[Channel]]:
    """Both ends of one connection: who connected, who was connected to."""
    async with listen(parse_address(text.format(folder=folder)), tls=tls) as listener:
        ours = await connect(parse_address(listener.uri), tls=tls)
        theirs = await listener.accept()
        yield [ours, theirs]
        ours.abort()
        theirs.abort()


async def both(*work: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for one in work:
            nursery.start_soon(one)


@pytest.mark.parametrize("text", DUPLEX)
async def test_bytes_go_both_ways_and_end(text: str, tmp_path: Path) -> None:
    async with pair(text, tmp_path) as (ours, theirs):
        assert ours.duplex

        async def there() -> None:
            await ours.send_all(DATA)
            await ours.send_eof()
            assert await read_all(ours) == DATA[::-1]

        async def back() -> None:
            assert await read_all(theirs) == DATA
            await theirs.send_all(DATA[::-1])
            await theirs.aclose()

        await both(there, back)


async def test_no_host_is_every_address_of_this_machine() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    async with listen(TcpAddress("", port)) as listener:
        assert listener.uri == f"tcp:localhost:{port}"
        for host in ("127.0.0.1", "::1"):
            client = await connect(TcpAddress(host, port))
            server = await listener.accept()
            await client.send_all(b"x")
            assert await server.receive_into(memoryview(bytearray(4))) == 1
            await client.aclose()
            await server.aclose()


async def test_a_socket_pair_for_getfd() -> None:
    async with listen_pair() as (listener, theirs):
        channel = await listener.accept()
        theirs.sendall(b"hello")
        buffer = memoryview(bytearray(16))
        assert await channel.receive_into(buffer) == 5
        await channel.send_all(b"there")
        assert theirs.recv(16) == b"there"
        with trio.move_on_after(0):
            await listener.accept()
            pytest.fail("a second connection")
        await channel.aclose()


async def test_a_pair_that_nobody_took_is_closed() -> None:
    async with listen_pair():
        await trio.lowlevel.checkpoint()


async def test_an_inherited_socket() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        channel = await connect(FdAddress(ours.detach()))
        assert channel.duplex
        await channel.send_all(b"x")
        assert theirs.recv(4) == b"x"
        await channel.aclose()
        assert theirs.recv(4) == b""


async def test_inherited_pipes_have_one_direction() -> None:
    reader, writer = os.pipe()
    sender = await connect(FdAddress(writer))
    async with listen(FdAddress(reader)) as listener:
        receiver = await listener.accept()
        assert not sender.duplex
        assert not receiver.duplex
        with pytest.raises(ChannelBroken, match="nothing can be read"):
            await sender.receive_into(memoryview(bytearray(1)))
        with pytest.raises(ChannelBroken, match="nothing can be written"):
            await receiver.send_all(b"x")

        async def there() -> None:
            await sender.send_all(DATA)
            await sender.send_eof()
            await sender.aclose()

        async def here() -> None:
            assert await read_all(receiver) == DATA

        await both(there, here)
        await receiver.send_eof()
        await receiver.aclose()


async def test_a_file_is_written_and_read_from_its_offset(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"HEAD" + b"old" * 5000)
    target = parse_address(f"file:{path},offset=4")
    channel = await connect(target)
    await channel.send_all(DATA)
    await channel.send_eof()
    await channel.aclose()
    assert path.read_bytes() == b"HEAD" + DATA
    async with listen(target) as listener:
        back = await listener.accept()
        assert not back.duplex
        assert await read_all(back) == DATA
        await back.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await back.receive_into(memoryview(bytearray(1)))


async def test_an_inherited_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    channel = await connect(FdAddress(os.open(path, os.O_WRONLY | os.O_CREAT)))
    await channel.send_all(b"abc")
    await channel.aclose()
    assert path.read_bytes() == b"abc"


async def test_a_file_is_not_closed_under_a_reader(tmp_path: Path) -> None:
    """The reader's thread sits in a pipe's end here, where a regular file would not keep it."""
    reader, writer = os.pipe()
    channel = FileChannel("pipe", reader)
    got: list[int] = []

    async def read() -> None:
        got.append(await channel.receive_into(memoryview(bytearray(4))))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        channel.abort()
        os.fstat(reader)  # still open
        os.write(writer, b"x")
    assert got == [1]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)
    os.close(writer)


async def test_a_command_is_written_to(tmp_path: Path) -> None:
    channel = await connect(parse_address(f"exec:cat > {tmp_path}/out"))
    await channel.send_all(DATA)
    await channel.aclose()
    assert (tmp_path / "out").read_bytes() == DATA


async def test_a_command_is_read_from() -> None:
    async with listen(parse_address("exec:printf hello; exit 0")) as listener:
        channel = await listener.accept()
        assert await read_all(channel) == b"hello"
        await channel.aclose()


async def test_a_command_that_fails_says_so() -> None:
    async with listen(parse_address("exec:exit 3")) as listener:
        channel = await listener.accept()
        assert await read_all(channel) == b""
        with pytest.raises(ChannelBroken, match="ended with status 3"):
            await channel.aclose()


async def test_a_command_that_had_more_to_say_did_not_fail() -> None:
    async with listen(parse_address("exec:yes")) as listener:
        channel = await listener.accept()
        assert await channel.receive_into(memoryview(bytearray(4))) == 4
        await channel.aclose()


async def test_a_command_goes_with_its_children_when_it_is_cancelled(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The child holds the fifo open for writing until it ends.
    channel = await connect(parse_address(f"exec:exec 3> {fifo}; sleep 1000 & wait"))
    with fifo.open("rb") as ended:
        with trio.move_on_after(0) as scope:
            await channel.aclose()
        assert scope.cancelled_caught
        assert ended.read() == b""


async def test_a_command_nobody_took_is_killed() -> None:
    async with listen(parse_address("exec:sleep 1000")):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("text", DUPLEX)
async def test_abort_wakes_whoever_waits(text: str, tmp_path: Path) -> None:
    async with pair(text, tmp_path) as (ours, theirs):

        async def receiver() -> None:
            with pytest.raises((trio.ClosedResourceError, ChannelBroken)):
                await ours.receive_into(memoryview(bytearray(8)))

        async def sender() -> None:
            with pytest.raises((trio.ClosedResourceError, ChannelBroken)):
                await ours.send_all(DATA * 20)

        async def killer() -> None:
            await trio.testing.wait_all_tasks_blocked()
            ours.abort()
            ours.abort()

        await both(receiver, sender, killer)
        with pytest.raises(trio.ClosedResourceError):
            await ours.receive_into(memoryview(bytearray(8)))
        with pytest.raises((trio.ClosedResourceError, ChannelBroken)):
            await theirs.send_all(DATA * 10)


async def test_a_reset_is_a_break_and_not_an_end(tmp_path: Path) -> None:
    async with pair("tcp:127.0.0.1:0", tmp_path) as (ours, theirs):
        await ours.send_all(b"unread")
        await trio.testing.wait_all_tasks_blocked()
        await theirs.aclose()  # with bytes unread: a reset
        with pytest.raises(ChannelBroken, match=r"tcp:127.0.0.1:\d+: Connection reset by peer"):
            await read_all(ours)


@pytest.mark.parametrize("text", ["tcp:127.0.0.1:1", "unix:{folder}/none", "file:{folder}/none/x", "fd:999"])
async def test_what_cannot_be_connected_to(text: str, tmp_path: Path) -> None:
    address = parse_address(text.format(folder=tmp_path))
    with pytest.raises(EnvironmentProblem) as problem:
        await connect(address)
    assert f"{address}: " in str(problem.value)
    assert "all attempts" not in str(problem.value)


@pytest.mark.parametrize("text", ["unix:{folder}/none/x", "tcp:no-such-host.invalid:1", "file:{folder}/none"])
async def test_what_cannot_be_listened_at(text: str, tmp_path: Path) -> None:
    address = parse_address(text.format(folder=tmp_path))
    with pytest.raises(EnvironmentProblem) as problem:
        async with listen(address):
            pytest.fail("it listens")
    assert str(address) in str(problem.value)


async def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(EnvironmentProblem, match="not a regular file"):
        async with listen(parse_address(f"file:{tmp_path}/fifo")):
            pytest.fail("it listens")


async def test_unix_sockets_left_behind_are_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "s"
    address = UnixAddress(str(path))
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    async with listen(address):
        with pytest.raises(EnvironmentProblem, match="Address already in use"):
            async with listen(address):
                pytest.fail("two at one address")
    assert not path.exists()
    path.write_bytes(b"a file")
    with pytest.raises(EnvironmentProblem, match="Address already in use"):
        async with listen(address):
            pytest.fail("it listens at a file")
    assert path.read_bytes() == b"a file"


async def test_a_successors_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with listen(UnixAddress(str(path))):
        path.unlink()
        path.write_bytes(b"of somebody else")
    assert path.exists()


@pytest.fixture
def credentials(x509: Path) -> TlsCredentials:
    return TlsCredentials(x509)


@pytest.mark.parametrize("text", ["tcp:127.0.0.1:0"])
async def test_tls_goes_both_ways_and_ends(text: str, tmp_path: Path, credentials: TlsCredentials) -> None:
    async with pair(text, tmp_path, credentials) as (ours, theirs):
        assert isinstance(ours, TlsChannel)
        assert isinstance(theirs, TlsChannel)

        async def there() -> None:
            await ours.send_all(DATA)
            await ours.send_eof()
            assert await read_all(ours) == b"ok"
            await ours.aclose()

        async def back() -> None:
            await theirs.handshake()
            got = bytearray()
            buffer = memoryview(bytearray(1 << 16))
            while len(got) < len(DATA):
                got += buffer[: await theirs.receive_into(buffer)]
            assert bytes(got) == DATA
            await theirs.send_all(b"ok")
            await theirs.aclose()

        await both(there, back)
        assert not ours.cut


async def test_tls_without_a_goodbye_is_an_end_that_is_remembered(
    tmp_path: Path, credentials: TlsCredentials
) -> None:
    async with pair("tcp:127.0.0.1:0", tmp_path, credentials) as (ours, theirs):
        assert isinstance(ours, TlsChannel)

        async def leave() -> None:
            await theirs.send_all(b"x")
            theirs.abort()

        async def stay() -> None:
            assert await read_all(ours) == b"x"
            assert ours.cut

        await both(leave, stay)
        await ours.aclose()


async def test_tls_of_a_stranger_is_refused(x509: Path, tmp_path: Path) -> None:
    stranger = TlsCredentials(x509, hostname="elsewhere.invalid")
    async with listen(parse_address("tcp:127.0.0.1:0"), tls=TlsCredentials(x509)) as listener:
        ours = await connect(parse_address(listener.uri), tls=stranger)
        theirs = await listener.accept()

        async def client() -> None:
            with pytest.raises(ChannelBroken, match="certificate verify failed"):
                await ours.send_all(b"x")
            ours.abort()

        async def server() -> None:
            with pytest.raises(ChannelBroken):
                await read_all(theirs)
            theirs.abort()

        await both(client, server)


def test_tls_credentials_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match=f"TLS credentials of a server in {tmp_path}: No such file"):
        TlsCredentials(tmp_path).context(server=True)


def test_a_server_may_let_anybody_in(x509: Path) -> None:
    assert TlsCredentials(x509, verify_peer=False).context(server=True).verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize("text", ["fd:0", "exec:true", "file:/x"])
async def test_tls_needs_a_socket(text: str, credentials: TlsCredentials) -> None:
    address = parse_address(text)
    with pytest.raises(AddressError, match="TLS needs a socket"):
        await connect(address, tls=credentials)
    with pytest.raises(AddressError, match="TLS needs a socket"):
        async with listen(address, tls=credentials):
            pytest.fail("it listens")


@pytest.fixture
def vsock() -> None:
    try:
        with (
            socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as probe,
            socket.socket(socket.AF_VSOCK) as two,
        ):
            probe.bind((1, 0xFFFFFFFF))
            probe.listen()
            two.connect(probe.getsockname())
    except OSError as problem:
        pytest.skip(f"no vsock loopback here: {problem}")


@pytest.mark.usefixtures("vsock")
async def test_vsock(tmp_path: Path) -> None:
    async with pair("vsock:1:51234", tmp_path) as (ours, theirs):
        await ours.send_all(b"x")
        assert await theirs.receive_into(memoryview(bytearray(4))) == 1


async def test_vsock_that_is_not_there() -> None:
    with pytest.raises(EnvironmentProblem, match="cannot connect to vsock:3:1"):
        await connect(parse_address("vsock:3:1"))
