"""The receiving side against a source played by the test: answers, refusals, back-pressure, no leftovers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from qmig._wire import Record
from qmig.legacy import commands as c
from qmig.legacy.connection import Told
from qmig.legacy.destination import Phase
from qmig.legacy.multifd import MultifdHello
from qmig.legacy.returnpath import RpPong, RpShut
from qmig.legacy.sections import EndOfFile, VmDescription
from qmig.legacy.session import MigrationSession
from qmig.peers.destination import MigrationFailed, serve_destination
from qmig.testing import load_vectors
from qmig.testing.streams import HEAD, PLAIN, TAIL, to_bytes

WITH_RETURN_PATH = [*HEAD, c.OpenReturnPath(), c.Ping(value=1), *PLAIN[len(HEAD) :]]


async def exchange(
    folder: Path,
    source: Callable[[Callable[[], Awaitable[trio.SocketStream]]], Awaitable[None]],
    multifd_channels: int = 0,
) -> tuple[list[Told], dict[str, bytes], MigrationSession]:
    """Runs a destination and `source`, which connects as often as it likes."""
    told: list[Told] = []
    raw: dict[str, bytearray] = {}
    path = folder / "socket"

    async def connect() -> trio.SocketStream:
        return await trio.open_unix_socket(path)

    def tap(channel: str, chunk: memoryview) -> None:
        raw.setdefault(channel, bytearray()).extend(chunk)

    async with (
        serve_destination(
            f"unix:{path}", story=told.append, tap=tap, multifd_channels=multifd_channels
        ) as destination,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(source, connect)
        await destination.completed()
    return told, {name: bytes(data) for name, data in raw.items()}, destination.session


async def read_all(stream: trio.SocketStream) -> bytes:
    data = bytearray()
    while piece := await stream.receive_some(4096):
        data += piece
    return bytes(data)


async def test_a_stream_without_return_path_gets_no_answer(tmp_path: Path) -> None:
    answers = []

    async def source(connect: Callable[[], Awaitable[trio.SocketStream]]) -> None:
        async with await connect() as main:
            await main.send_all(to_bytes(PLAIN))
            await main.send_eof()
            answers.append(await read_all(main))

    told, raw, _ = await exchange(tmp_path, source)
    assert answers == [b""]
    assert raw == {"main": to_bytes(PLAIN)}
    assert isinstance(told[-1].event, VmDescription)
    assert {item.channel for item in told} == {"main"}


async def test_pings_are_answered_and_success_is_told(tmp_path: Path) -> None:
    answers = []

    async def source(connect: Callable[[], Awaitable[trio.SocketStream]]) -> None:
        async with await connect() as main:
            data = to_bytes(WITH_RETURN_PATH)
            opening = len(to_bytes([*HEAD, *WITH_RETURN_PATH[2:4]]))
            await main.send_all(data[:opening])
            answers.append(await main.receive_some(100))
            await main.send_all(data[opening:])  # a source goes on only when the PONG is there
            answers.append(await main.receive_some(100))
            await main.send_eof()

    await exchange(tmp_path, source)
    assert answers == [RpPong(value=1).encode(), RpShut(value=0).encode()]


async def test_a_bad_stream_is_refused_over_the_return_path(tmp_path: Path) -> None:
    async with serve_destination(f"unix:{tmp_path}/s") as destination:
        async with await trio.open_unix_socket(tmp_path / "s") as main:
            await main.send_all(to_bytes(WITH_RETURN_PATH[:4]) + b"\x55")
            with pytest.raises(MigrationFailed, match="LEG-SEC-002"):
                await destination.completed()
            await main.send_eof()
            assert await read_all(main) == RpPong(value=1).encode() + RpShut(value=1).encode()
        assert destination.phase is Phase.FAILED
        assert "failed (" in destination.waiting_for()


async def test_a_connection_that_ends_too_early_is_refused(tmp_path: Path) -> None:
    async with (
        serve_destination(f"unix:{tmp_path}/s") as destination,
        await trio.open_unix_socket(tmp_path / "s") as main,
    ):
        await main.send_all(b"QE")
        await main.send_eof()
        with pytest.raises(MigrationFailed, match="before it said what it is"):
            await destination.completed()


async def test_a_connection_that_says_nothing_changes_nothing(tmp_path: Path) -> None:
    async with serve_destination(f"unix:{tmp_path}/s") as destination:
        async with await trio.open_unix_socket(tmp_path / "s"):
            pass
        async with await trio.open_unix_socket(tmp_path / "s") as main:
            await main.send_all(to_bytes(PLAIN))
            await main.send_eof()
            await destination.completed()
        assert destination.strays == 1


async def test_it_says_what_it_waits_for(tmp_path: Path) -> None:
    data = to_bytes(PLAIN)
    async with serve_destination(f"unix:{tmp_path}/s", multifd_channels=2) as destination:
        assert destination.waiting_for() == (f"setup, waiting for a connection of main at unix:{tmp_path}/s")
        async with await trio.open_unix_socket(tmp_path / "s") as main:
            await trio.testing.wait_all_tasks_blocked()
            assert "its first bytes" in destination.waiting_for()
            await main.send_all(data[:8])
            await trio.testing.wait_all_tasks_blocked()
            assert "connections of multifd-0, multifd-1" in destination.waiting_for()


async def test_a_cancel_leaves_behind_what_it_waited_for(tmp_path: Path) -> None:
    with trio.CancelScope() as scope:
        async with (
            serve_destination(f"unix:{tmp_path}/s") as destination,
            await trio.open_unix_socket(tmp_path / "s") as main,
        ):
            await main.send_all(to_bytes(PLAIN)[:20])
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await destination.completed()
    assert scope.cancelled_caught
    assert "active, waiting for main: " in destination.was_waiting_for


async def test_an_exception_carries_what_it_waited_for(tmp_path: Path) -> None:
    problem = RuntimeError("of the caller")
    with pytest.raises(RuntimeError, match="of the caller"):
        async with serve_destination(f"unix:{tmp_path}/s"):
            raise problem
    assert "a connection of main" in problem.__notes__[0]


@pytest.mark.parametrize("name", ["7.2-multifd-rounds-2", "11.1-multifd-rounds-2", "11.1-multifd-zstd-3"])
async def test_channels_of_a_recording_in_any_order(tmp_path: Path, name: str) -> None:
    """Every channel from a task of its own, multifd first: the story waits where QEMU would."""
    (vector,) = [v for v in load_vectors("legacy/recordings") if v.id.endswith(f"#{name}")]

    forward = {channel for channel in vector.channels if channel != "rp"}

    async def source(connect: Callable[[], Awaitable[trio.SocketStream]]) -> None:
        async def send(channel: str) -> None:
            async with await connect() as stream:
                await stream.send_all(vector.data(channel))
                await stream.send_eof()
                await read_all(stream)

        async with trio.open_nursery() as nursery:
            for channel in sorted(forward, reverse=True):
                nursery.start_soon(send, channel)

    told, raw, session = await exchange(tmp_path, source, len(forward) - 1)
    assert raw == {channel: vector.data(channel) for channel in forward}
    assert session.finish() == ()
    kinds = Counter(item.channel for item in told)
    assert set(kinds) == forward
    assert isinstance(next(i.event for i in told if i.channel == "multifd-0"), MultifdHello)


async def test_cancelled_it_leaves_no_descriptor(tmp_path: Path) -> None:
    before = set(Path("/proc/self/fd").iterdir())
    events: list[Record] = []
    with trio.CancelScope() as scope:
        async with (
            serve_destination(
                f"unix:{tmp_path}/s", story=lambda told: events.append(told.event)
            ) as destination,
            await trio.open_unix_socket(tmp_path / "s") as main,
        ):
            await main.send_all(to_bytes(PLAIN[: -len(TAIL)]))
            while not events:
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0)
            scope.cancel()
            await destination.completed()
    assert scope.cancelled_caught
    assert not any(isinstance(event, EndOfFile) for event in events)
    assert set(Path("/proc/self/fd").iterdir()) == before
