"""Our own peer as a destination of the suite: each play has one of its own, in this process.

What becomes of it is told when everything is at rest: no task of it can run and nothing is on the way
(`trio.testing.wait_all_tasks_blocked`), so no clock is looked at. Its machine is that of the good stream.
"""

from __future__ import annotations

import functools
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import trio
from trio.testing import wait_all_tasks_blocked

from qmig.legacy.destination import Phase
from qmig.peers.destination import Destination, serve_destination
from qmig.testing import load_vectors
from qmig.testing.scenario import Scenario, Unsupported
from qmig_conformance import artefacts, interrupt
from qmig_conformance.play import (
    Close,
    Connect,
    End,
    Expect,
    Good,
    Outcome,
    Play,
    Qmp,
    Seen,
    Send,
    Settle,
    Step,
)
from qmig_conformance.reference.machine import Machine

#: settings -> the recording in the repository that is their good stream
RECORDINGS: Final[Mapping[str, str]] = {
    "precopy-sink": "11.1-precopy-plain-q35",
    "precopy-file": "11.1-precopy-plain-q35",
    "return-path": "11.1-switchover-ack",
    "mapped-ram": "10.0-mapped-ram",
    "multifd-none-2": "11.1-multifd-rounds-2",
    "postcopy": "11.1-postcopy",
    "postcopy-preempt": "7.2-postcopy-preempt",
    "dirty-bitmaps": "11.1-dirty-bitmaps",
    "block-migration": "5.2-block-migration",
}
_OUTCOMES: Final = {
    Phase.COMPLETED: Outcome.SUCCEED,
    Phase.FAILED: Outcome.FAIL,
    Phase.PAUSED: Outcome.POSTCOPY_PAUSED,
}
_PIECE: Final = 1 << 16


@functools.cache
def recorded(settings: str) -> Mapping[str, bytes]:
    """The channels of the good stream of these settings. Raises Unsupported."""
    if settings not in RECORDINGS:
        raise Unsupported(f"no recording in the repository has the settings {settings}")
    name = RECORDINGS[settings]
    (vector,) = [one for one in load_vectors("legacy/recordings") if one.id.endswith(f"#{name}")]
    return {channel: vector.data(channel) for channel in vector.channels}


def _machine(settings: Scenario) -> Machine | None:
    """The machine that settings of this name were recorded with, with these capabilities."""
    if settings.name not in RECORDINGS:
        return None
    key = tuple(sorted(name for name, on in settings.capabilities.items() if on))
    return _made(settings.name, key)


@functools.cache
def _made(name: str, capabilities: tuple[str, ...]) -> Machine:
    return Machine(recorded(name)["main"], dict.fromkeys(capabilities, True))


async def _rest() -> None:
    """No task can run, nothing is on the way, no thread works."""
    threads = trio.to_thread.current_default_thread_limiter()
    while True:
        await wait_all_tasks_blocked(0.0005 if threads.borrowed_tokens else 0)
        if not threads.borrowed_tokens:
            return


class ReferenceDestination:
    """An honest one."""

    version = ""

    def __init__(self) -> None:
        self._last: tuple[Play, Seen] | None = None

    def good(self, settings: Scenario) -> Good:
        """Recorded with QEMU; raises Unsupported where the repository has none."""
        return Good(settings, recorded(settings.name))

    def play(self, play: Play) -> Seen:
        """Plays it on a peer of its own."""
        seen = interrupt.run(self._play, play)
        self._last = play, seen
        return seen

    def keep(self, folder: Path) -> None:
        """Writes the artefacts of the last play."""
        assert self._last is not None
        play, seen = self._last
        artefacts.save(folder, play, seen, argv=["qmig", "reference"], qmp=[])

    async def _play(self, play: Play) -> Seen:
        with tempfile.TemporaryDirectory(prefix="qmig-reference-") as folder:
            async with AsyncExitStack() as stack:
                playing = Playing(play.settings, Path(folder), stack)
                try:
                    await playing.play(play.steps)
                    return playing.seen()
                finally:
                    playing.close()


class Playing:
    """One play under way."""

    def __init__(self, settings: Scenario, folder: Path, stack: AsyncExitStack) -> None:
        self.settings = settings
        self._folder = folder
        self._stack = stack
        self._lines: dict[str, trio.SocketStream] = {}
        self._outboxes: dict[str, trio.MemorySendChannel[bytes]] = {}
        self._received: dict[str, bytearray] = {}
        self._file = bytearray() if settings.transport == "file" else None
        self._states: list[str] = []
        self._destination: Destination | None = None
        self._nursery: trio.Nursery | None = None

    async def play(self, steps: Sequence[Step]) -> None:
        """All steps; then it rests."""
        self._nursery = await self._stack.enter_async_context(trio.open_nursery())
        self._stack.callback(self._nursery.cancel_scope.cancel)
        if self._file is None:
            await self._serve(f"unix:{self._folder}/in")
        for step in steps:
            await self._step(step)
        if self._file is not None:
            path = self._folder / "stream"
            path.write_bytes(self._file)
            offset = f",offset={self.settings.offset}" if self.settings.offset else ""
            await self._serve(f"file:{path}{offset}")
        await _rest()

    async def _serve(self, address: str) -> None:
        settings = self.settings
        multifd = settings.capabilities.get("multifd", False) and self._file is None
        machine = _machine(settings)
        self._destination = await self._stack.enter_async_context(
            serve_destination(
                address,
                multifd_channels=settings.parameters.get("multifd-channels", 2) if multifd else 0,
                preempt=settings.capabilities.get("postcopy-preempt", False),
                switchover_ack=settings.capabilities.get("switchover-ack", False),
                postcopy_ram=settings.capabilities.get("postcopy-ram", False),
                story=machine.checker() if machine else None,
            )
        )

    async def _step(self, step: Step) -> None:
        match step:
            case Send(name, data) if self._file is not None:
                self._file += data
            case Connect(name) if self._file is None:
                await self._connect(name)
            case Send(name, data):
                self._outboxes[name].send_nowait(data)
                await _rest()
            case End(name) if self._file is None:
                self._outboxes[name].close()
                await _rest()
            case Close(name) if self._file is None:
                await self._lines[name].aclose()
            case Expect() | Settle():
                await _rest()
            case Qmp(command, _):
                await self._command(command)
            case _:
                pass

    async def _connect(self, name: str) -> None:
        assert self._destination is not None
        assert self._nursery is not None
        path = self._destination.uri.removeprefix("unix:")
        self._lines[name] = stream = await trio.open_unix_socket(path)
        self._received[name] = bytearray()
        self._outboxes[name], outbox = trio.open_memory_channel[bytes](math.inf)
        self._nursery.start_soon(self._read, name, stream)
        self._nursery.start_soon(self._write, stream, outbox)

    async def _read(self, name: str, stream: trio.SocketStream) -> None:
        try:
            while data := await stream.receive_some(_PIECE):
                self._received[name] += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            return  # its end is seen by what was received

    async def _write(self, stream: trio.SocketStream, outbox: trio.MemoryReceiveChannel[bytes]) -> None:
        """What the peer does not take stays here until it does; then the end, if there is to be one."""
        try:
            async for data in outbox:
                await stream.send_all(data)
            await stream.send_eof()
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # refused by its end, which the outcome tells

    async def _command(self, command: str) -> None:
        assert self._destination is not None
        if command != "migrate-recover":
            raise Unsupported(f"the reference peer has no monitor for {command}")
        await self._destination.listen(f"unix:{self._folder}/in-{len(self._lines)}")

    def seen(self) -> Seen:
        """What became of it."""
        assert self._destination is not None
        phase, evidence = self._destination.phase, self._destination.waiting_for()
        outcome = _OUTCOMES.get(phase, Outcome.WAITS)
        words = self._destination.incoming.reason
        if phase is Phase.PAUSED and "its first bytes" in evidence:
            outcome = Outcome.WAITS  # a recovery has begun, and nothing of it has come
        if phase is Phase.SETUP and self._file is not None:
            outcome, words = Outcome.FAIL, "the file ends where a migration would begin"
        return Seen(
            outcome=outcome,
            words=words,
            answered={name: bytes(data) for name, data in self._received.items()},
            run_state="running" if phase is Phase.COMPLETED else "inmigrate",
            evidence=evidence,
        )

    def close(self) -> None:
        """Closes all connections at once."""
        for stream in self._lines.values():
            stream.socket.close()
