"""A destination: loads a saved machine, compares, goes on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import trio

from qmig.peers.qemu import QemuDied, QemuProcess, start_qemu
from qmig.qmp import QmpCommandError
from qmig.testing.remote import Mailbox
from qmig_conformance.matrix import machine
from qmig_conformance.matrix.blame import last_words, named_by, words_of
from qmig_conformance.matrix.drivers import compare
from qmig_conformance.matrix.io import LOOK_EVERY, Io
from qmig_conformance.matrix.model import BuildInfo, Outcome
from qmig_conformance.matrix.saving import Saved, Setup, by_file, digest, guest_memory

#: Events by which a guest that does not go on is seen.
_STOPS = ("SHUTDOWN", "RESET", "GUEST_PANICKED", "WATCHDOG", "STOP", "BLOCK_IO_ERROR")
#: Looks at the heartbeat between two questions after the run state.
_LOOKS = 64


@dataclass(slots=True, kw_only=True)
class Loaded:
    """What came of loading a machine."""

    outcome: Outcome
    #: what the destination said; its own words
    words: str = ""
    named: frozenset[str] = frozenset()
    #: device id -> what differs for the guest
    differing: dict[str, str] = field(default_factory=dict)
    command: str = ""
    #: its monitor has answered
    started: bool = False
    #: id of the device that is looked at
    doing: str = ""

    @property
    def good(self) -> bool:
        return self.outcome is Outcome.WORKS


async def load(
    build: BuildInfo, setup: Setup, saved: Saved, folder: Path, name: str, watchdog: float
) -> Loaded:
    """Starts the same machine and gives it the saved stream. Ends after `watchdog` seconds, which is nobody's
    verdict."""
    async with guest_memory(folder, name) as ram:
        words = machine.arguments(setup.board, setup.machine, setup.state, setup.group, ram)
        words += ["-incoming", "defer"]
        loaded = Loaded(outcome=Outcome.ERROR, command=machine.shown(build.binary, words))
        with trio.move_on_after(watchdog) as scope:
            try:
                await _load(build, setup, words, saved, loaded, ram)
            except QemuDied as death:
                loaded.words = words_of(death)
                loaded.outcome = _death(death, loaded)
        if scope.cancelled_caught:
            loaded.words = f"our watchdog ended the destination after {watchdog:g} s"
            loaded.outcome = Outcome.ERROR
    loaded.named = named_by(loaded.words, setup.group) | frozenset(loaded.differing)
    if loaded.doing:
        loaded.named |= {loaded.doing}
    return loaded


async def _load(
    build: BuildInfo, setup: Setup, words: list[str], saved: Saved, loaded: Loaded, ram: Path
) -> None:
    assert saved.stream is not None
    program = machine.guest_of(setup.board, setup.state)
    async with start_qemu(build.binary, words, program=program.guest, folder=ram.parent) as vm:
        loaded.started = True
        with Mailbox(ram, program) as mailbox:
            if await _incoming(vm, saved.stream, loaded):
                await _go_on(vm, mailbox, setup, saved, loaded)


def _death(death: QemuDied, loaded: Loaded) -> Outcome:
    """A build that does not start says that it has no such thing; afterwards it is the stream, or the
    guest."""
    if death.returncode < 0:
        return Outcome.DESTINATION_CRASHES
    if not loaded.started:
        return Outcome.UNSUPPORTED
    return Outcome.GUEST_STOPS if loaded.outcome is Outcome.GUEST_STOPS else Outcome.DESTINATION_REFUSES


async def _incoming(vm: QemuProcess, stream: Path, loaded: Loaded) -> bool:
    """Whether all of the stream was loaded."""
    try:
        await by_file(vm, stream, vm.incoming, write=False)
    except QmpCommandError as problem:
        loaded.words, loaded.outcome = problem.desc, Outcome.DESTINATION_REFUSES
        return False
    outcome = await vm.wait_migration()
    loaded.words = last_words(vm.output)
    if outcome.status == "completed":
        return True
    loaded.words = outcome.error or loaded.words or f"migration {outcome.status}"
    loaded.outcome = Outcome.DESTINATION_REFUSES
    return False


async def _go_on(vm: QemuProcess, mailbox: Mailbox, setup: Setup, saved: Saved, loaded: Loaded) -> None:
    """Memory, then the guest itself, then what it sees in its devices."""
    if digest(mailbox) != saved.digest:
        loaded.outcome = Outcome.MEMORY_DIFFERS
        loaded.words += "\nthe guest's RAM has another SHA-256 than the stopped source's"
        return
    loaded.outcome = Outcome.GUEST_STOPS  # until it is seen to go on
    before = mailbox.heartbeat
    with vm.events(*_STOPS) as events:
        await vm.execute("cont")
        looks = 0
        while mailbox.heartbeat == before:
            if stopped := [event["event"] for event in events.unread()]:
                loaded.words += f"\nevents behind cont: {', '.join(stopped)}"
                return
            looks += 1
            if looks % _LOOKS == 0:  # raises QemuDied
                status = (await vm.execute("query-status"))["status"]
                if status != "running":
                    loaded.words += f"\nrun state behind cont: {status}"
                    return
            await trio.sleep(LOOK_EVERY)
        if saved.prepared:
            io = Io(vm, mailbox, machine.guest_of(setup.board, setup.state), setup.board)
            async for doing in compare(io, setup.group, saved.prepared, loaded.differing):
                loaded.doing = doing
            loaded.doing = ""
        if stopped := [event["event"] for event in events.unread()]:
            loaded.words += f"\nevents behind cont: {', '.join(stopped)}"
            return
    loaded.words = last_words(vm.output)
    loaded.outcome = Outcome.DEVICE_DIFFERS if loaded.differing else Outcome.WORKS
