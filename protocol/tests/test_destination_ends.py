"""How the destination peer ends: cancelled at any await, connections that break at any point, memory that
cannot be had, many channels that stand still. Nothing is left, and only what is documented comes out."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from qmig._wire import Record
from qmig.legacy import ram
from qmig.legacy.destination import Phase
from qmig.legacy.returnpath import RpPong, RpShut
from qmig.peers.accepted import WORKERS
from qmig.peers.destination import Destination, MigrationFailed, serve_destination
from qmig.testing import migrations as mig
from qmig.testing.leaks import Held
from qmig.testing.streams import to_bytes


class Steps(trio.abc.Instrument):
    """Does something at the so-manyth step of any task."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.left = at
        self._act = act

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.left -= 1
        if not self.left:
            self._act()


def channels(name: str) -> dict[str, bytes]:
    story = getattr(mig, name)()
    return {channel: story.bytes_of(channel) for channel in story.channels() if not channel.startswith("rp")}


WAYS: dict[str, dict[str, Any]] = {
    "precopy": {},
    "multifd": {"multifd_channels": 2},
    "postcopy": {"preempt": True},
}


async def send(path: Path, data: bytes, gate: trio.Event | None = None) -> None:
    """One channel: sends all of it, says the end, reads what comes back. The destination may go meanwhile.

    With a gate, what is behind the first bytes waits for it, and comes in small pieces."""
    try:
        async with await trio.open_unix_socket(path) as stream:
            if gate is not None:
                await stream.send_all(data[:100])
                await gate.wait()
                for at in range(100, len(data), 6000):
                    await stream.send_all(data[at : at + 6000])
                    await trio.testing.wait_all_tasks_blocked()
            else:
                await stream.send_all(data)
            await stream.send_eof()
            async for _ in stream:
                pass
    except (OSError, trio.BrokenResourceError):
        pass


@asynccontextmanager
async def played(name: str, path: Path) -> AsyncIterator[Destination]:
    """A destination, and a source that sends this story. Preempt connects when main is known to be there."""
    async with (
        serve_destination(f"unix:{path}", **WAYS[name]) as destination,
        trio.open_nursery() as nursery,
    ):
        data = channels(name)
        gate = trio.Event() if "preempt" in data else None
        nursery.start_soon(send, path, data.pop("main"), gate)
        if gate is not None:
            await destination.until(lambda: destination.phase is not Phase.SETUP)
        for channel in data:
            nursery.start_soon(send, path, data[channel])
        if gate is not None:
            await destination.until(lambda: "preempt" in {line.name for line in destination.session.lines()})
            gate.set()
        yield destination
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("name", WAYS)
async def test_cancelled_at_any_await_nothing_is_left(name: str, tmp_path: Path) -> None:
    finished, at = False, 1
    async with serve_destination(f"unix:{tmp_path}/first"):
        pass  # what trio keeps once it was used
    while not finished:
        before = Held.now()
        with trio.CancelScope() as scope:
            steps = Steps(at, scope.cancel)
            trio.lowlevel.add_instrument(steps)
            try:
                async with played(name, tmp_path / "m") as destination:
                    await destination.completed()
            finally:
                trio.lowlevel.remove_instrument(steps)
        finished = not scope.cancelled_caught
        assert Held.now() == before
        assert list(tmp_path.iterdir()) == []
        at += 1 + at // 8
    assert destination.phase is Phase.COMPLETED
    assert at > 20


@pytest.mark.parametrize("name", WAYS)
async def test_cut_at_any_await_it_fails_pauses_or_has_completed(name: str, tmp_path: Path) -> None:
    seen, reasons, at = set(), {"cut on this side"}, 1
    while Phase.COMPLETED not in seen:
        wrong: list[Exception] = []
        async with played(name, tmp_path / "m") as destination:

            def cut(there: Destination = destination, wrong: list[Exception] = wrong) -> None:
                try:
                    there.interrupt()
                except Exception as problem:  # noqa: BLE001 - trio would only print what an instrument raises
                    wrong.append(problem)

            steps = Steps(at, cut)
            trio.lowlevel.add_instrument(steps)
            try:
                await destination.until(
                    lambda there=destination, wrong=wrong: (  # type: ignore[misc]
                        there.phase in {Phase.COMPLETED, Phase.PAUSED} or wrong
                    )
                )
            except MigrationFailed as failure:
                reasons.add(str(failure))
            finally:
                trio.lowlevel.remove_instrument(steps)
            assert wrong == []
            await trio.testing.wait_all_tasks_blocked()
            assert destination.waiting_for()
        seen.add(destination.phase)
        at += 1 + at // 8
    assert Phase.FAILED in seen
    assert reasons == {"cut on this side"}
    assert (Phase.PAUSED in seen) == (name == "postcopy")


def with_return_path() -> dict[str, bytes]:
    """The multifd migration, its main channel with a return path."""
    story = mig.multifd()
    events = [event for channel, event in story if channel == "main"]
    data = {name: story.bytes_of(name) for name in ("multifd-0", "multifd-1")}
    return {**data, "main": to_bytes([*events[:2], *mig.return_path(), *events[2:]])}


async def test_a_main_channel_that_is_reset_behind_the_end_does_no_harm(tmp_path: Path) -> None:
    """The source closes with answers unread, which resets the connection, while other channels are open."""
    data = with_return_path()
    async with serve_destination(f"unix:{tmp_path}/m", multifd_channels=2) as destination:
        main = await trio.open_unix_socket(tmp_path / "m")
        await main.send_all(data["main"])
        streams = []
        for name in ("multifd-0", "multifd-1"):
            streams.append(await trio.open_unix_socket(tmp_path / "m"))
            await streams[-1].send_all(data[name])
        await destination.until(lambda: destination.phase is Phase.COMPLETED)
        await trio.testing.wait_all_tasks_blocked()
        await main.aclose()
        await trio.testing.wait_all_tasks_blocked()
        for stream in streams:
            await stream.aclose()
        await destination.completed()
        content = destination.ram.read("m0", 0, 16 * mig.PAGE)
    filled = b"".join(bytes([page + 1]) * mig.PAGE for page in range(12))
    assert content == filled.ljust(16 * mig.PAGE, b"\0")


async def test_channels_that_wait_for_their_turn_are_cut_as_well(tmp_path: Path) -> None:
    """More channels stand in the middle of a packet than may: those that wait are let go when all is cut."""
    number = WORKERS + 3
    flush = ram.RamMultifdFlush()
    opening = to_bytes([*mig.opening("pc-q35-10.0"), *mig.start(flush)])
    begun = mig.packet(9, "m0", range(8)).encode()[:3000]
    async with serve_destination(f"unix:{tmp_path}/m", multifd_channels=number) as destination:
        streams = [await trio.open_unix_socket(tmp_path / "m")]
        await streams[0].send_all(opening)
        for channel in range(number):
            streams.append(await trio.open_unix_socket(tmp_path / "m"))
            await streams[-1].send_all(mig.hello(channel).encode() + mig.sync(channel).encode())
        await trio.testing.wait_all_tasks_blocked()
        for stream in streams[1:]:  # main has left the sync point
            await stream.send_all(begun)
        await trio.testing.wait_all_tasks_blocked()
        assert destination.waiting_for().count("the rest of a MultifdPacket") == WORKERS
        destination.interrupt()
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(MigrationFailed, match="cut on this side"):
            await destination.completed()
        for stream in streams:
            await stream.aclose()


async def test_packets_without_a_block_list_are_a_refusal(tmp_path: Path) -> None:
    """Main ends before it has listed a block; what the channels bring then has no place."""
    main = to_bytes([*mig.opening("pc-q35-10.0"), *itertools.islice(mig.closing(), 1)])
    packets = mig.hello(0).encode() + mig.packet(1, "m0", range(4)).encode()
    async with serve_destination(f"unix:{tmp_path}/m", multifd_channels=1) as destination:
        for data in (main, packets):
            stream = await trio.open_unix_socket(tmp_path / "m")
            await stream.send_all(data)
            await stream.aclose()
        await destination.completed()
        assert not destination.ram.blocks


async def test_memory_that_cannot_be_had_is_a_refusal(tmp_path: Path) -> None:
    def full(idstr: str, length: int) -> bytearray:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    story = mig.precopy()
    async with (
        serve_destination(f"unix:{tmp_path}/m", ram=full) as destination,
        await trio.open_unix_socket(tmp_path / "m") as main,
    ):
        await main.send_all(story.bytes_of("main"))
        with pytest.raises(MigrationFailed, match="No space left on device"):
            await destination.completed()
        assert await main.receive_some(1000) == RpPong(value=1).encode() + RpShut(value=1).encode()
        assert destination.phase is Phase.FAILED


async def test_a_block_larger_than_a_file_can_be_is_a_refusal(tmp_path: Path) -> None:
    """A length on the wire is not believed: what the file system says to it comes back as a refusal."""
    large = ram.RamBlockEntry(idstr="m0", used_length=1 << 50)
    events: list[Record] = [*mig.opening("pc-q35-10.0"), *itertools.islice(mig.start(), 1)]
    events += [ram.RamMemSize(word=1 << 50 | 4), large]
    async with (
        serve_destination(f"unix:{tmp_path}/m", ram=tmp_path / "ram") as destination,
        await trio.open_unix_socket(tmp_path / "m") as main,
    ):
        await main.send_all(to_bytes(events))
        await main.send_eof()
        with pytest.raises(MigrationFailed):
            await destination.completed()
