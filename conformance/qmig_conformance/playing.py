"""One play under way on a QEMU, and what becomes of it: seen without a clock (`qmig_conformance.rest`)."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from qmig.errors import EnvironmentProblem
from qmig.peers.play import Side
from qmig.peers.qemu import QemuDied
from qmig.qmp import EventStream, QmpCommandError
from qmig_conformance.play import (
    Close,
    Connect,
    End,
    Expect,
    Outcome,
    Play,
    Qmp,
    Seen,
    Send,
    Settle,
    Step,
)
from qmig_conformance.rest import UNANSWERED, Watch

_PIECE: Final = 1 << 16


@dataclass(eq=False)
class Line:
    """One connection of a play. What the destination does not take stays in the outbox until it does."""

    name: str
    stream: trio.SocketStream
    received: bytearray = field(default_factory=bytearray)
    #: nothing more comes back
    closed: bool = False
    outbox: list[memoryview] = field(default_factory=list)
    #: nothing more is put into the outbox
    ending: bool = False


class Silent(Exception):
    """The destination rests, and has not answered a command."""


@asynccontextmanager
async def listening(side: Side, kind: type[Playing]) -> AsyncIterator[Playing]:
    """What plays on a destination that was started; its connections are closed behind the block."""
    cpus = await side.vm.execute("query-cpus-fast")
    watch = Watch(side.vm.pid, {cpu["thread-id"] for cpu in cpus})
    with side.vm.events("MIGRATION") as events:
        async with trio.open_nursery() as nursery:
            playing = kind(side, watch, events, nursery)
            try:
                yield playing
            finally:
                nursery.cancel_scope.cancel()
                playing.close()


class Playing:
    """One play under way; made by `listening`."""

    def __init__(self, side: Side, watch: Watch, events: EventStream, nursery: trio.Nursery) -> None:
        self.side = side
        self.vm = side.vm
        self.doing = "start"
        self.log: list[Mapping[str, Any]] = []
        self._watch = watch
        self._events = events
        self._nursery = nursery
        self._lines: dict[str, Line] = {}
        self._names = itertools.count()
        self._path = Path()
        self._states: list[str] = []
        self._words: list[str] = []
        #: of a transport that is a file: its content; given to the destination once
        self._file: bytearray | None = bytearray() if side.scenario.transport == "file" else None
        self._options: dict[str, Any] = {}
        self._moved = trio.Event()

    async def play(self, play: Play) -> Seen:
        """All steps, then the outcome."""
        if play.exit_on_error is not None:
            self._options["exit-on-error"] = play.exit_on_error
        try:
            await self._begin()
            for step in play.steps:
                self.doing = type(step).__name__.lower()
                await self._step(step)
            self.doing = "outcome"
            if self._file is not None:
                await self._give_file(self._file)
            return await self._outcome()
        except QmpCommandError as refusal:
            self._words.append(str(refusal))
            return self._seen(Outcome.QMP_ERROR, evidence=f"{refusal.request} was answered by an error")
        except Silent:
            return self._seen(
                Outcome.BLOCKED, evidence=f"{self.log[-1]['execute']} is not answered; {self._watch.words()}"
            )
        except QemuDied as death:
            return self._died(death)

    async def _begin(self) -> None:
        """It is there, and waits for a migration."""
        status = await self._command("query-status")
        if status["status"] != "inmigrate":
            raise EnvironmentProblem(f"before the play its run state is {status['status']}")
        if self._file is None:
            await self._command("migrate-incoming", {"uri": self._address(), **self._options})

    def close(self) -> None:
        """Closes all connections at once."""
        for line in self._lines.values():
            line.stream.socket.close()

    # -- steps --------------------------------------------------------------------------------------------

    async def _step(self, step: Step) -> None:
        if self._file is not None:
            await self._into_file(step)
            return
        match step:
            case Connect(name):
                await self._connect(name)
            case Send(name, data):
                await self._send(self._lines[name], data)
            case End(name):
                self._lines[name].ending = True
                self._look()
                await trio.lowlevel.checkpoint()
            case Close(name):
                await self._lines[name].stream.aclose()
            case Expect(name, data):
                line = self._lines[name]
                await self._until(lambda: data in line.received or line.closed)
            case Settle():
                await self._until(lambda: False)
            case Qmp(command, arguments):
                given = {
                    key: self._address() if value == "{address}" else value
                    for key, value in arguments.items()
                }
                await self._command(command, given)

    async def _into_file(self, step: Step) -> None:
        assert self._file is not None
        match step:
            case Send(data=data):
                self._file += data
            case Qmp(command, arguments):
                await self._command(command, arguments)
            case _:
                pass

    async def _give_file(self, data: bytearray) -> None:
        path = self.side.folder / "stream"
        path.write_bytes(data)
        offset = self.side.scenario.offset
        try:
            uri = f"file:{path},offset={offset}" if offset else f"file:{path}"
            await self._command("migrate-incoming", {"uri": uri, **self._options})
        except QmpCommandError as refusal:
            if "unknown migration protocol" not in str(refusal) or offset:
                raise
            await self._command("migrate-incoming", {"uri": f"exec:cat '{path}'", **self._options})

    def _address(self) -> str:
        self._path = self.vm.folder / f"in-{next(self._names)}"
        return f"unix:{self._path}"

    async def _connect(self, name: str) -> None:
        try:
            stream = await trio.open_unix_socket(self._path)
        except OSError as problem:  # it has ended, or listens no more
            self._words.append(f"connection {name}: {problem.strerror}")
            ours, theirs = trio.socket.socketpair()
            theirs.close()
            stream = trio.SocketStream(ours)
        self._add(name, stream)

    def _add(self, name: str, stream: trio.SocketStream) -> None:
        self._lines[name] = line = Line(name, stream)
        self._nursery.start_soon(self._read, line)
        self._nursery.start_soon(self._write, line)

    async def _read(self, line: Line) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await line.stream.receive_some(_PIECE):
                line.received += data
                self._watch.touch()
                self._look()
        line.closed = True
        self._look()

    def _look(self) -> None:
        """Whoever waits for something looks again."""
        self._moved.set()
        self._moved = trio.Event()

    async def _send(self, line: Line, data: bytes) -> None:
        """Comes back when all of it is taken, or the destination rests."""
        line.outbox.append(memoryview(data))
        self._look()
        await self._until(lambda: not line.outbox)

    async def _write(self, line: Line) -> None:
        with suppress(OSError, trio.ClosedResourceError):
            while line.outbox or not line.ending:
                if not line.outbox:
                    await self._moved.wait()
                    continue
                sent = await line.stream.socket.send(line.outbox[0][:_PIECE])
                self._watch.touch()
                line.outbox[0] = line.outbox[0][sent:]
                if not line.outbox[0]:
                    line.outbox.pop(0)
                    self._look()
            line.stream.socket.shutdown(trio.socket.SHUT_WR)
        line.outbox.clear()
        self._look()

    # -- waiting without a clock --------------------------------------------------------------------------

    async def _race(self, *ways: Callable[[], Awaitable[Any]]) -> int:
        """Runs them until the first one is through, or fails; returns its place."""
        first: list[int] = []
        problems: list[EnvironmentProblem] = []

        async def run(place: int, way: Callable[[], Awaitable[Any]], scope: trio.CancelScope) -> None:
            try:
                await way()
            except (QmpCommandError, QemuDied) as problem:
                problems.append(problem)
            else:
                first.append(place)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            for place, way in enumerate(ways):
                nursery.start_soon(run, place, way, nursery.cancel_scope)
        if not first and problems:
            raise problems[0]
        return min(first)

    async def _rests(self) -> None:
        await self._watch.until_quiet(UNANSWERED)

    async def _ended(self) -> None:
        await self.vm.wait_exit()

    async def _until(self, true: Callable[[], bool]) -> None:
        """Until it is so, or the destination rests, or it has ended."""

        async def so() -> None:
            while not true():
                await self._moved.wait()

        await self._race(so, self._rests, self._ended)

    async def _command(self, command: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The answer. Raises `Silent` when the destination rests without having answered."""
        self.log.append({"execute": command, **({"arguments": dict(arguments)} if arguments else {})})
        answers: list[Any] = []

        async def ask() -> None:
            answers.append(await self.vm.execute(command, arguments))

        await self._race(ask, self._rests)
        if not answers:
            raise Silent
        self.log.append({"return": answers[0]})
        return answers[0]

    # -- outcome ------------------------------------------------------------------------------------------

    async def _outcome(self) -> Seen:
        rested = False
        while True:
            info = await self._command("query-migrate")
            status = info.get("status", "none")
            run_state = (await self._command("query-status"))["status"]
            if self._note_events():
                continue  # what was asked may be out of date
            if reason := info.get("error-desc"):
                self._words.append(str(reason))
            if status == "completed" and self._over(run_state):
                return self._seen(
                    Outcome.SUCCEED, run_state, f"query-migrate: {status}; run state {run_state}"
                )
            if rested:
                kinds = {"failed": Outcome.FAIL, "postcopy-paused": Outcome.POSTCOPY_PAUSED}
                evidence = f"query-migrate: {status}; run state {run_state}; {self._watch.words()}"
                return self._seen(kinds.get(status, Outcome.WAITS), run_state, evidence)
            # It rests at last, or ends, or its state changes: then it is asked again.
            rested = await self._race(self._rests, self._ended, self._event) == 0

    def _over(self, run_state: str) -> bool:
        """Whether a guest in this state is where it is to be behind a migration that has completed."""
        return run_state == "running" or (self.side.scenario.paused and run_state == "paused")

    async def _event(self) -> None:
        event = await self._events.get()
        self._take(event)

    def _note_events(self) -> bool:
        events = self._events.unread()
        for event in events:
            self._take(event)
        return bool(events)

    def _take(self, event: Mapping[str, Any]) -> None:
        self.log.append(dict(event))
        if event["event"] == "MIGRATION":
            self._states.append(event["data"]["status"])

    def _died(self, death: QemuDied) -> Seen:
        self._note_events()
        outcome = Outcome.CRASH if death.returncode < 0 else Outcome.FAIL_DEST_QUIT_ERR
        return self._seen(outcome, evidence=str(death).partition(":")[0], returncode=death.returncode)

    def _seen(
        self, outcome: Outcome, run_state: str = "", evidence: str = "", returncode: int | None = None
    ) -> Seen:
        words = dict.fromkeys([*self.vm.output.splitlines(), *self._words])
        return Seen(
            outcome=outcome,
            words="\n".join(words),
            answered={line.name: bytes(line.received) for line in self._lines.values()},
            states=tuple(self._states),
            returncode=returncode,
            run_state=run_state,
            evidence=evidence,
        )
