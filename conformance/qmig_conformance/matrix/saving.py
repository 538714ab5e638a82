"""A source: a machine with devices, initialised or not, stopped and saved to a file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio

from qmig.peers.qemu import QemuDied, QemuProcess, start_qemu
from qmig.qmp import QmpCommandError
from qmig.testing.remote import Mailbox
from qmig_conformance.matrix import machine
from qmig_conformance.matrix.blame import last_words, named_by, words_of
from qmig_conformance.matrix.boards import MEMORY
from qmig_conformance.matrix.drivers import Prepared, initialise
from qmig_conformance.matrix.io import LOOK_EVERY, DriverProblem, Io
from qmig_conformance.matrix.model import Board, BuildInfo, Group, State

#: How a build says that a device of the machine cannot be migrated. Any other answer to `migrate` is a
#: failure.
BLOCKED = re.compile(
    r"non-migratable|[Mm]igration is (?:disabled|not supported)|not migratable|does not support mig"
)


@dataclass(frozen=True, slots=True)
class Setup:
    """A machine: what both sides of a cell have in common."""

    board: Board
    machine: str
    state: State
    group: Group


@dataclass(slots=True, kw_only=True)
class Saved:
    """What came of saving a machine."""

    #: None where there is no state to load
    stream: Path | None = None
    #: of the guest's RAM
    digest: str = ""
    #: device id -> what its driver did
    prepared: dict[str, Prepared] = field(default_factory=dict)
    #: what the source said; its own words
    words: str = ""
    #: it is the build that says it cannot: no such device, option, or it is not migratable
    refused: bool = False
    #: it started and says that a device cannot be migrated
    blocked: bool = False
    #: a signal ended it
    crashed: bool = False
    #: ids that the words name
    named: frozenset[str] = frozenset()
    command: str = ""
    #: our watchdog or our driver ended it
    ours: bool = False
    #: id of the device whose driver is at work
    doing: str = ""

    @property
    def good(self) -> bool:
        return self.stream is not None


@asynccontextmanager
async def guest_memory(folder: Path, name: str) -> AsyncIterator[Path]:
    """A file of the guest's RAM size, removed at the end."""
    path = folder / f"{name}.ram"
    with path.open("wb") as file:
        file.truncate(MEMORY << 20)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def digest(mailbox: Mailbox) -> str:
    """Of the whole RAM."""
    return hashlib.sha256(mailbox.all_memory()).hexdigest()


async def wait_ready(vm: QemuProcess, mailbox: Mailbox) -> None:
    """Until the guest's program runs. Raises QemuDied."""
    while not mailbox.ready:
        if vm.returncode is not None:
            await vm.execute("query-status")  # raises
        await trio.sleep(LOOK_EVERY)


async def save(build: BuildInfo, setup: Setup, folder: Path, name: str, watchdog: float) -> Saved:
    """Starts, initialises, stops and saves. `folder` gets the stream, ``NAME.mig``. Ends after `watchdog`
    seconds, which is nobody's verdict."""
    async with guest_memory(folder, name) as ram:
        words = machine.arguments(setup.board, setup.machine, setup.state, setup.group, ram)
        saved = Saved(command=machine.shown(build.binary, words))
        with trio.move_on_after(watchdog) as scope:
            try:
                await _save(build, setup, words, saved, folder / f"{name}.mig", ram)
            except QemuDied as death:
                saved.words = words_of(death)
                saved.refused, saved.crashed = death.returncode > 0, death.returncode < 0
            except DriverProblem as problem:
                saved.words, saved.ours = f"our driver: {problem}", True
        if scope.cancelled_caught:
            saved.words = f"our watchdog ended the source after {watchdog:g} s"
            saved.stream, saved.ours = None, True
    saved.named = named_by(saved.words, setup.group) | ({saved.doing} if saved.doing else frozenset())
    return saved


async def _save(
    build: BuildInfo, setup: Setup, words: list[str], saved: Saved, stream: Path, ram: Path
) -> None:
    program = machine.guest_of(setup.board, setup.state)
    async with start_qemu(build.binary, words, program=program.guest, folder=stream.parent) as vm:
        with Mailbox(ram, program) as mailbox:
            await vm.execute("cont")
            await wait_ready(vm, mailbox)
            if setup.state is State.INITIALISED:
                io = Io(vm, mailbox, program, setup.board)
                saved.prepared = {}
                async for doing in initialise(io, setup.group, saved.prepared):
                    saved.doing = doing
            saved.doing = ""
            await vm.execute("stop")
            saved.digest = digest(mailbox)
            await _migrate(vm, stream, saved)


async def _migrate(vm: QemuProcess, path: Path, saved: Saved) -> None:
    """To a plain file: no other process buffers anything."""
    try:
        await by_file(vm, path, vm.migrate, write=True)
    except QmpCommandError as problem:
        saved.words = problem.desc
        saved.refused = saved.blocked = BLOCKED.search(problem.desc) is not None
        return
    outcome = await vm.wait_migration()
    saved.words = last_words(vm.output)
    if outcome.status == "completed":
        saved.stream = path
        return
    saved.words = outcome.error or saved.words or f"migration {outcome.status}"


async def by_file(
    vm: QemuProcess, path: Path, start: Callable[[str], Awaitable[None]], *, write: bool
) -> None:
    """Starts a migration through a file: by name, or for builds that do not know ``file:`` by descriptor.
    Raises QmpCommandError."""
    try:
        await start(f"file:{path}")
    except QmpCommandError as problem:
        if "migration protocol" not in problem.desc:
            raise
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if write else os.O_RDONLY
        fd = os.open(path, flags, 0o600)
        try:
            vm.qmp.send_fd(fd)
            await vm.execute("getfd", {"fdname": "state"})
        finally:
            os.close(fd)
        await start("fd:state")
