"""Plays a scenario's QEMU: starts it, makes it ready, steers it as the source of a migration.

    async with start_side(qemu, scenario("postcopy")) as side, receive_from(side) as received:
        print(received.source.status, received.destination.ram.digest("pc.ram"))

A destination is started with `incoming=True` and waits for ``migrate-incoming``.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import trio

from qmig._nursery import background
from qmig.builds import Qemu
from qmig.errors import QmigError
from qmig.legacy.connection import Told
from qmig.legacy.destination import Phase
from qmig.legacy.ram import RamPages
from qmig.legacy.ramimage import OpenBlock
from qmig.peers.accepted import Story, Tap
from qmig.peers.destination import Destination, MigrationFailed, serve_destination
from qmig.peers.qemu import RESTING, Migration, QemuDied, QemuProcess, start_qemu
from qmig.peers.tls import TlsCredentials
from qmig.peers.transport import Listener, listen_pair
from qmig.qmp import QmpCommandError
from qmig.testing.guest import Guest
from qmig.testing.scenario import Flow, Scenario, Unsupported
from qmig.testing.scenarios import FAST, SLOW

#: how builds say at their start that they have not got something
_LACKING: Final = re.compile(
    r"unsupported machine type|Property '[^']*' not found|is not a valid device model"
)
#: what a destination is told as well; the rest is the source's business
_BOTH_CAPABILITIES: Final = frozenset(
    {"postcopy-ram", "postcopy-preempt", "multifd", "mapped-ram", "x-ignore-shared", "switchover-ack",
     "dirty-bitmaps", "compress", "xbzrle", "validate-uuid", "release-ram", "zero-blocks", "return-path",
     "pause-before-switchover"}
)  # fmt: skip
_BOTH_PARAMETERS: Final = frozenset(
    {"multifd-channels", "multifd-compression", "zero-page-detection", "xbzrle-cache-size", "tls-creds"}
)


@dataclass(frozen=True, slots=True)
class Side:
    """A QEMU that is ready to migrate, or to be migrated to."""

    vm: QemuProcess
    scenario: Scenario
    program: Guest | None
    #: holds the machine's files (`Scenario.files`)
    folder: Path


@asynccontextmanager
async def start_side(
    qemu: Qemu,
    scenario: Scenario,
    *,
    incoming: bool = False,
    held: bool = True,
    certificates: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> AsyncIterator[Side]:
    """A QEMU for the time of the block: its guest has filled its memory, capabilities and parameters are set.

    `incoming` makes it a destination, whose guest stays stopped if it is `held`. `certificates` is the
    folder of a TLS scenario; `parameters` override the scenario's. Raises `Unsupported` when the build, or
    the host, says that it has not got something."""
    _check_huge_pages(scenario)
    with tempfile.TemporaryDirectory(prefix="qmig-files-") as name:
        folder = Path(name)
        for file, size in scenario.files.items():
            with (folder / file).open("wb") as made:
                made.truncate(size)
        argv = scenario.arguments(qemu.version, folder)
        if incoming:
            argv += [*(["-S"] if held else []), "-incoming", "defer"]
        if scenario.tls:
            argv += _tls_object(certificates, incoming)
        program = scenario.program()
        entered = False
        try:
            async with start_qemu(qemu.binary, argv, program=program, name=f"QEMU {qemu.version}") as vm:
                await _prepare(vm, scenario, program, parameters or {}, incoming=incoming)
                entered = True
                yield Side(vm, scenario, program, folder)
        except QemuDied as death:
            if entered or not _LACKING.search(death.output):
                raise
            raise Unsupported(death.output.strip().splitlines()[0]) from None


async def _prepare(
    vm: QemuProcess,
    scenario: Scenario,
    program: Guest | None,
    parameters: Mapping[str, Any],
    *,
    incoming: bool,
) -> None:
    if program is not None and not incoming:
        await vm.wait_guest(program, 1)
    if scenario.paused and not incoming:
        await vm.execute("stop")
    if scenario.bitmap and not incoming:
        node, bitmap = scenario.bitmap
        await vm.execute(
            "block-dirty-bitmap-add",
            {"node": node, "name": bitmap, "persistent": False, "granularity": 65536},
        )
        await vm.hmp(f'qemu-io {node} "write -P 0x5a 128k 192k"')
    capabilities = dict(scenario.capabilities)
    settings = {**scenario.parameters, **parameters}
    if scenario.tls:
        settings["tls-creds"] = "tls0"
    if incoming:
        capabilities = {name: on for name, on in capabilities.items() if name in _BOTH_CAPABILITIES}
        settings = {name: value for name, value in settings.items() if name in _BOTH_PARAMETERS}
    elif scenario.tls:
        settings["tls-hostname"] = "localhost"
    missing = set(capabilities) - await vm.supported_capabilities()
    if missing:
        raise Unsupported(f"no capability {', '.join(sorted(missing))}")
    try:
        await vm.set_capabilities(capabilities)
        await vm.set_parameters(settings)
    except QmpCommandError as refusal:
        raise Unsupported(str(refusal)) from None


def _check_huge_pages(scenario: Scenario) -> None:
    if scenario.huge_pages:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        free = int(re.search(r"HugePages_Free:\s+(\d+)", text)[1])  # type: ignore[index] # always there
        if free < scenario.huge_pages:
            raise Unsupported(f"the host has {free} free huge pages, {scenario.huge_pages} are needed")


def _tls_object(certificates: Path | None, incoming: bool) -> list[str]:
    if certificates is None:
        raise ValueError("a TLS scenario needs a folder of certificates")
    endpoint = "server" if incoming else "client"
    return ["-object", f"tls-creds-x509,id=tls0,endpoint={endpoint},dir={certificates},verify-peer=yes"]


# -- as the source, into a destination of ours --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """How both sides ended; the destination's RAM can be looked at."""

    destination: Destination
    source: Migration


@asynccontextmanager
async def receive_from(
    side: Side,
    *,
    certificates: Path | None = None,
    ram: Path | OpenBlock | None = None,
    story: Story | None = None,
    tap: Tap | None = None,
) -> AsyncIterator[Received]:
    """Plays the scenario with `side` as the source and a destination of ours, to the end of both.

    `ram`, `story` and `tap` are `serve_destination`'s. Raises `MigrationFailed` when either side fails,
    `Unsupported` when the build refuses to migrate this way."""
    scenario = side.scenario
    async with AsyncExitStack() as stack:
        if scenario.flow is Flow.FILE:
            outcome, address = await _into_file(side)
            destination = await stack.enter_async_context(_serve(scenario, address, None, ram, story, tap))
            await destination.completed()
        else:
            if scenario.flow is Flow.CANCEL:
                await _cancelled(side)
            tls = (
                TlsCredentials(certificates, hostname="localhost") if certificates and scenario.tls else None
            )
            where, uri = await _meeting_place(side, stack)
            destination = await stack.enter_async_context(_serve(scenario, where, tls, ram, story, tap))
            outcome = await _both(side, destination, uri or destination.uri)
        yield Received(destination, outcome)


def _serve(
    scenario: Scenario,
    address: str | Listener,
    tls: TlsCredentials | None,
    ram: Path | OpenBlock | None,
    story: Story | None,
    tap: Tap | None,
) -> AbstractAsyncContextManager[Destination]:
    multifd = scenario.capabilities.get("multifd", False) and scenario.transport != "file"
    return serve_destination(
        address,
        multifd_channels=scenario.parameters["multifd-channels"] if multifd else 0,
        preempt=scenario.capabilities.get("postcopy-preempt", False),
        switchover_ack=scenario.capabilities.get("switchover-ack", False),
        tls=tls,
        ram=ram,
        story=story,
        tap=tap,
    )


async def _meeting_place(side: Side, stack: AsyncExitStack) -> tuple[str | Listener, str]:
    """Where the destination listens, and what the source is told if that is not the destination's own URI."""
    match side.scenario.transport:
        case "tcp":
            return "tcp:127.0.0.1:0", ""
        case "fd":
            listener, theirs = await stack.enter_async_context(listen_pair())
            side.vm.qmp.send_fd(theirs.fileno())
            await side.vm.execute("getfd", {"fdname": "qmig"})
            theirs.close()
            return listener, "fd:qmig"
        case "exec":
            os.mkfifo(side.folder / "pipe")
            return f"exec:cat '{side.folder}/pipe'", f"exec:cat > '{side.folder}/pipe'"
        case _:
            return f"unix:{side.folder}/migration.sock", ""


async def _both(side: Side, destination: Destination, uri: str) -> Migration:
    """Runs both sides to their ends. If either fails, its reason comes out."""
    outcomes: list[Migration] = []
    problems: list[QmigError] = []
    rests = trio.Event()

    async def source(scope: trio.CancelScope) -> None:
        try:
            outcomes.append(await _migrate(side, uri))
        except QmigError as problem:
            problems.append(problem)
        else:
            if outcomes[0].status in {"completed", "postcopy-paused"}:
                rests.set()
                return
            problems.append(MigrationFailed(f"the source ended {outcomes[0].status}: {outcomes[0].error}"))
        scope.cancel()

    async with background() as nursery:
        nursery.start_soon(source, nursery.cancel_scope)
        if side.scenario.flow is Flow.RECOVER:
            await _interrupt(side, destination, rests)
        await destination.completed()
        await rests.wait()
        return await side.vm.wait_migration(RESTING - {"postcopy-paused"})
    raise problems[0]


async def _interrupt(side: Side, destination: Destination, rests: trio.Event) -> None:
    """Cuts a postcopy when pages have been asked for, then lets the source recover."""
    incoming = destination.incoming
    in_flight, incoming.in_flight = incoming.in_flight, 0
    await destination.until(lambda: destination.phase is Phase.POSTCOPY)
    # Before this state a source takes its guest back instead of waiting for a recovery (10.2 and later).
    await side.vm.wait_migration({"postcopy-active", *RESTING})
    incoming.in_flight = in_flight
    await destination.until(lambda: incoming.requests > 0)
    destination.interrupt()
    await rests.wait()
    await side.vm.set_parameters({"max-postcopy-bandwidth": 0})
    await side.vm.migrate(destination.uri, resume=True)


async def _migrate(side: Side, uri: str) -> Migration:
    """Steers the source up to where it rests: completed, failed, postcopy-paused."""
    vm, scenario = side.vm, side.scenario
    postcopy = scenario.flow in {Flow.POSTCOPY, Flow.RECOVER}
    slow = postcopy or scenario.passes
    await vm.set_parameters(SLOW if slow else FAST)
    with vm.events("MIGRATION_PASS", "MIGRATION") as events:
        await vm.migrate(uri)
        while slow:
            data = (await events.get())["data"]
            if data.get("status") in RESTING or data.get("pass", 0) >= max(scenario.passes, 1) + 1:
                break
    if postcopy:
        await vm.execute("migrate-start-postcopy")
    elif slow:
        await vm.set_parameters(FAST)
    outcome = await vm.wait_migration()
    if outcome.status == "pre-switchover":
        await vm.execute("migrate-continue", {"state": "pre-switchover"})
        outcome = await vm.wait_migration(RESTING - {"pre-switchover"})
    return outcome


async def _into_file(side: Side) -> tuple[Migration, str]:
    """Migrates into a file, with `file:` where the build has it (8.2+), else through `cat`."""
    path, offset = side.folder / "stream", side.scenario.offset
    with path.open("wb") as file:
        file.write(bytes([0xA5]) * offset)
    address = f"file:{path}" + (f",offset={offset:#x}" if offset else "")
    await side.vm.set_parameters(FAST)
    try:
        await side.vm.migrate(address)
    except QmpCommandError as refusal:
        if "migration protocol" not in str(refusal):  # any other refusal is not about `file:`
            raise
        await side.vm.migrate(f"exec:cat > '{path}'")
    outcome = await side.vm.wait_migration()
    if outcome.status != "completed":
        raise MigrationFailed(f"the source ended {outcome.status}: {outcome.error}")
    return outcome, address


async def _cancelled(side: Side) -> None:
    """A first attempt, cancelled when some memory has come."""
    await side.vm.set_parameters(SLOW)
    begun = trio.Event()

    def story(told: Told) -> None:
        if isinstance(told.event, RamPages):
            begun.set()

    async with serve_destination(f"unix:{side.folder}/first.sock", story=story) as destination:
        await side.vm.migrate(destination.uri)
        await begun.wait()
        await side.vm.execute("migrate_cancel")
        await side.vm.wait_migration({"cancelled"})
        with suppress(MigrationFailed):
            await destination.completed()
        if destination.phase is not Phase.FAILED:
            raise MigrationFailed(f"cancelled by the source, {destination.waiting_for()}")
