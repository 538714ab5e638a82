"""The source peer over sockets, pipes and files: outcomes, what it waits for, cancel at every await, no
leftovers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from qmig.errors import RemoteProtocolError
from qmig.legacy import requests
from qmig.legacy import returnpath as rp
from qmig.legacy.multifd import MULTIFD_MAGIC, MultifdHello
from qmig.legacy.replay import Replay
from qmig.legacy.source import Connect, End, MigrationSource, Send
from qmig.legacy.source_settings import Postcopy, SourceSettings
from qmig.legacy.source_table import SourcePhase
from qmig.peers.address import parse_address
from qmig.peers.channel import ChannelBroken, SocketChannel
from qmig.peers.source import Source, open_source
from qmig.peers.tls import TlsCredentials
from qmig.peers.transport import Listener, listen
from qmig.testing import load_vectors
from qmig.testing.answerer import Answerer
from qmig.testing.images import recorded
from qmig.testing.leaks import Held


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Afterwards there is no descriptor, process or thread that was not there before."""
    before = Held.now()
    yield
    assert Held.now() == before


def core(**given: Any) -> MigrationSource:
    return MigrationSource(recorded(), SourceSettings.for_machine(recorded().machine, **given))


class Destination:
    """Accepts connections and gives what comes to an `Answerer`."""

    def __init__(self, listener: Listener, answerer: Answerer, multifd_channels: int) -> None:
        self.listener = listener
        self.answerer = answerer
        self.multifd_channels = multifd_channels
        self.connection = 1
        self._main: Any = None
        self._others = trio.Semaphore(0)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(self._serve, await self.listener.accept())

    async def _serve(self, channel: Any) -> None:
        buffer = memoryview(bytearray(1 << 20))
        suffix = "" if self.connection == 1 else f"-{self.connection}"
        name = ""
        try:
            while True:
                size = await channel.receive_into(buffer)
                data = bytes(buffer[:size])
                if not name and not size:
                    return
                if not name:
                    name = self._name(data) + suffix
                    self.answerer.take(Connect(name))
                    self._main = channel if name.startswith("main") else self._main
                    await self._all_channels(name)
                said = self.answerer.take(Send(name, data) if size else End(name))
                if said:
                    await self._main.send_all(said)
                if not size:
                    return
        except (ChannelBroken, RemoteProtocolError):
            return
        finally:
            channel.abort()
            with trio.CancelScope(shield=True):
                await channel.aclose()

    async def _all_channels(self, name: str) -> None:
        """Main is not looked at before the multifd channels are there."""
        if name.startswith("multifd"):
            self._others.release()
        elif name == "main":
            for _ in range(self.multifd_channels):
                await self._others.acquire()

    def _name(self, data: bytes) -> str:
        if data[:4] == MULTIFD_MAGIC.to_bytes(4, "big"):
            return f"multifd-{MultifdHello.decode(memoryview(data))[0].id}"
        return "main" if data[:4] == b"QEVM" or data[:1] == b"\x08" else "preempt"


@asynccontextmanager
async def destination(
    uri: str, answerer: Answerer, multifd_channels: int = 0, tls: TlsCredentials | None = None
) -> AsyncIterator[Destination]:
    async with listen(parse_address(uri), tls=tls) as listener, trio.open_nursery() as nursery:
        there = Destination(listener, answerer, multifd_channels)
        nursery.start_soon(there.run)
        yield there
        nursery.cancel_scope.cancel()


def same_memory(answerer: Answerer) -> None:
    for block in recorded().blocks:
        assert answerer.memory[block.idstr] == block.read(0, block.used_length), block.idstr


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "return path": {"return_path": True},
    "multifd": {"multifd_channels": 3},
    "multifd and return path": {"multifd_channels": 2, "return_path": True, "rewritten": 5},
    "postcopy": {"return_path": True, "postcopy": Postcopy.STARTED},
    "preempt": {"return_path": True, "postcopy": Postcopy.STARTED, "postcopy_preempt": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("transport", ["unix", "tcp"])
async def test_over_sockets(way: str, transport: str, tmp_path: Path) -> None:
    answerer = Answerer(asks=[("pc.ram", 64 * 4096, 4096), ("pc.ram", 40 * 4096, 4096)])
    uri = f"unix:{tmp_path}/m" if transport == "unix" else "tcp:127.0.0.1:0"
    async with (
        destination(uri, answerer, WAYS[way].get("multifd_channels", 0)) as there,
        open_source(parse_address(there.listener.uri), core(**WAYS[way])) as source,
    ):
        outcome = await source.migrate()
        assert outcome.phase is source.state is SourcePhase.COMPLETED
        assert outcome.error == source.waiting_for() == ""
        assert outcome.shut == (0 if WAYS[way].get("return_path") else None)
        while len(answerer.memory) < len(recorded().blocks) or not all_ended(answerer):
            await trio.testing.wait_all_tasks_blocked()
    same_memory(answerer)
    for channel, size in outcome.sent.items():
        came = [o.data for o in answerer.outputs if isinstance(o, Send) and o.channel == channel]
        assert sum(map(len, came)) == size


def all_ended(answerer: Answerer) -> bool:
    connected = {output.channel for output in answerer.outputs if isinstance(output, Connect)}
    return connected == {output.channel for output in answerer.outputs if isinstance(output, End)}


async def test_with_tls(tmp_path: Path, x509: Path) -> None:
    answerer = Answerer()
    credentials = TlsCredentials(x509, hostname="localhost")
    async with (
        destination("tcp:127.0.0.1:0", answerer, 2, credentials) as there,
        open_source(
            parse_address(there.listener.uri), core(multifd_channels=2, return_path=True), tls=credentials
        ) as source,
    ):
        outcome = await source.migrate()
    assert outcome.phase is SourcePhase.COMPLETED, outcome
    same_memory(answerer)


async def test_into_a_file_and_a_command(tmp_path: Path) -> None:
    for uri, offset in ((f"file:{tmp_path}/f,offset=0x1000", 0x1000), (f"exec:cat > {tmp_path}/f", 0)):
        mapped = bool(offset)
        async with open_source(parse_address(uri), core(mapped_ram=mapped, file_offset=offset)) as source:
            assert (await source.migrate()).phase is SourcePhase.COMPLETED
        answerer = Answerer()
        data = (tmp_path / "f").read_bytes()[offset:]
        answerer.take(Connect("main"))
        answerer.take(Send("main", data))
        answerer.take(End("main"))
        same_memory(answerer)


async def test_a_recording_as_it_is(tmp_path: Path) -> None:
    (vector,) = [v for v in load_vectors("legacy/recordings") if v.id.endswith("#11.1-multifd-rounds-2")]
    channels = {name: vector.data(name) for name in vector.channels if name != "rp"}
    answerer = Answerer()
    async with (
        destination(f"unix:{tmp_path}/m", answerer, 2) as there,
        open_source(parse_address(there.listener.uri), Replay(channels)) as source,
    ):
        outcome = await source.migrate()
    assert (outcome.phase, outcome.shut) == (SourcePhase.COMPLETED, 0)
    carried: dict[str, bytes] = {}
    for output in answerer.outputs:
        if isinstance(output, Send):
            carried[output.channel] = carried.get(output.channel, b"") + output.data
    assert carried == channels


@pytest.mark.parametrize("preempt", [False, True])
async def test_cut_and_recovered(preempt: bool, tmp_path: Path) -> None:
    asks = [("pc.ram", 4096 * number, 4096) for number in range(16, 48)]
    answerer = Answerer(asks=asks)
    given = {"return_path": True, "postcopy": Postcopy.STARTED, "postcopy_preempt": preempt}
    async with (
        destination(f"unix:{tmp_path}/m", answerer) as there,
        open_source(
            parse_address(there.listener.uri), core(**given, postcopy_chunk=8 * 4096, background_after=16)
        ) as source,
    ):

        async def interrupt() -> None:
            assert isinstance(source.core, MigrationSource)
            migration = source.core
            await source.until(lambda: migration.requests_served >= 4)
            source.cut()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            outcome = await source.migrate()
        assert (outcome.phase, outcome.error) == (SourcePhase.PAUSED, "the connections were cut")
        while not all_ended(answerer):
            await trio.testing.wait_all_tasks_blocked()
            answerer.cut()
        there.connection = 2
        outcome = await source.recover(parse_address(there.listener.uri))
        assert outcome.phase is SourcePhase.COMPLETED
    same_memory(answerer)


async def test_nobody_listens(tmp_path: Path) -> None:
    async with open_source(parse_address(f"unix:{tmp_path}/none"), core()) as source:
        outcome = await source.migrate()
    assert outcome.phase is SourcePhase.FAILED
    assert "cannot connect to unix:" in outcome.error


async def test_a_command_that_fails(tmp_path: Path) -> None:
    async with open_source(parse_address("exec:exit 3"), core()) as source:
        outcome = await source.migrate()
    assert outcome.phase is SourcePhase.FAILED


async def test_no_return_path_through_a_pipe(tmp_path: Path) -> None:
    async with open_source(parse_address("exec:cat > /dev/null"), core(return_path=True)) as source:
        outcome = await source.migrate()
    assert outcome.phase is SourcePhase.FAILED
    assert "no return path" in outcome.error


Behaviour = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def behaving(folder: Path, behaviour: Behaviour, **given: Any) -> AsyncIterator[Source]:
    """A source of ours, and a destination that does as it likes with the first connection."""
    async with (
        listen(parse_address(f"unix:{folder}/m")) as listener,
        trio.open_nursery() as nursery,
        open_source(parse_address(f"unix:{folder}/m"), core(**given)) as source,
    ):

        async def accept() -> None:
            channel = await listener.accept()
            assert isinstance(channel, SocketChannel)
            async with channel.stream:
                await behaviour(channel.stream)

        nursery.start_soon(accept)
        yield source
        nursery.cancel_scope.cancel()


async def never(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def test_a_destination_that_takes_nothing_is_named_and_left(tmp_path: Path) -> None:
    async with behaving(tmp_path, never, return_path=True, multifd_channels=2) as source:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.migrate)
            await trio.testing.wait_all_tasks_blocked()
            assert source.waiting_for().startswith("waits for main: ")
            assert "bytes that the destination does not take" in source.waiting_for()
            with pytest.raises(RuntimeError, match="one task at a time"):
                await source.migrate()
            nursery.cancel_scope.cancel()
        assert (source.waiting_for(), source.state) == ("", SourcePhase.FAILED)
        assert source.core.error == "given up by the caller"


@pytest.mark.parametrize("time", range(20))  # trio wakes tasks in an order of its own
async def test_a_destination_that_says_nothing_is_named(time: int, tmp_path: Path) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    async with behaving(tmp_path, silent, return_path=True) as source, trio.open_nursery() as nursery:
        nursery.start_soon(source.migrate)
        await source.until(lambda: "SHUT" in source.waiting_for())
        assert source.waiting_for() == "waits for SHUT on the return path"
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("time", range(20))
async def test_a_destination_that_does_not_agree_is_named(time: int, tmp_path: Path) -> None:
    async def silent(stream: trio.SocketStream) -> None:
        async for _ in stream:
            pass

    given = {"return_path": True, "switchover_ack": True, "switchover_ack_legacy": True}
    async with behaving(tmp_path, silent, **given) as source, trio.open_nursery() as nursery:
        nursery.start_soon(source.migrate)
        await source.until(lambda: "SWITCHOVER_ACK" in source.waiting_for())
        nursery.cancel_scope.cancel()


async def test_a_destination_that_goes_away(tmp_path: Path) -> None:
    async def gone(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)

    for given in ({}, {"return_path": True}):
        folder = tmp_path / str(len(given))
        folder.mkdir()
        async with behaving(folder, gone, **given) as source:
            outcome = await source.migrate()
        assert outcome.phase is SourcePhase.FAILED
        assert outcome.error


async def test_the_reason_comes_before_the_broken_pipe(tmp_path: Path) -> None:
    """A destination that fails says SHUT 1 and closes: that is what counts, not what our writing meets."""

    async def refuses(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(rp.RpShut(value=1).encode())

    async with behaving(tmp_path, refuses, return_path=True) as source:
        outcome = await source.migrate()
    assert (outcome.phase, outcome.shut) == (SourcePhase.FAILED, 1)
    assert "SHUT 1" in outcome.error


async def test_nonsense_on_the_return_path_raises(tmp_path: Path) -> None:
    async def talks(stream: trio.SocketStream) -> None:
        await stream.receive_some(1000)
        await stream.send_all(rp.RpPong(value=1).encode() + b"\0\x63\0\0")
        async for _ in stream:
            pass

    async with behaving(tmp_path, talks, return_path=True) as source:
        with pytest.raises(RemoteProtocolError) as caught:
            await source.migrate()
        assert (caught.value.requirement, caught.value.offset) == ("LEG-RPM-003", 8)
        assert source.state is SourcePhase.FAILED


async def test_a_flood_of_requests_holds_the_reading_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The return path is not read while its requests wait, and is read on behind that."""
    monkeypatch.setattr(requests, "MOST", 16)
    answerer = Answerer(asks=[("pc.ram", 4096 * number, 4096) for number in range(600)])
    given = {"return_path": True, "postcopy": Postcopy.STARTED, "background_after": 101}
    async with (
        destination(f"unix:{tmp_path}/m", answerer) as there,
        open_source(parse_address(there.listener.uri), core(**given)) as source,
    ):
        outcome = await source.migrate()
        assert isinstance(source.core, MigrationSource)
        assert source.core.requests_served > 100
    assert outcome.phase is SourcePhase.COMPLETED
    same_memory(answerer)


class Steps(trio.abc.Instrument):
    """Cancels a scope at the so-manyth step of any task."""

    def __init__(self, at: int, scope: trio.CancelScope) -> None:
        self.left = at
        self._scope = scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if not self.left:
            self._scope.cancel()


@pytest.mark.parametrize("way", ["multifd and return path", "preempt"])
async def test_cancelled_at_any_await_nothing_is_left(way: str, tmp_path: Path) -> None:
    finished = False
    at = 1
    while not finished:
        folder = tmp_path / str(at)
        folder.mkdir()
        before = Held.now()
        async with (
            destination(f"unix:{folder}/m", Answerer(), WAYS[way].get("multifd_channels", 0)) as there,
            open_source(parse_address(there.listener.uri), core(**WAYS[way])) as source,
        ):
            with trio.CancelScope() as scope:
                steps = Steps(at, scope)
                trio.lowlevel.add_instrument(steps)
                try:
                    await source.migrate()
                finally:
                    trio.lowlevel.remove_instrument(steps)
            finished = not scope.cancelled_caught
            assert source.waiting_for() == ""
        assert Held.now() == before
        at += 1 + at // 4
    assert source.state is SourcePhase.COMPLETED
    assert at > 20
