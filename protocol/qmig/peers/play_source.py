"""Plays a scenario with a QEMU as the destination and a source of ours.

    image = await record(qemu, scenario, folder)         # the guest of a QEMU of this build
    async with start_side(qemu, scenario, incoming=True) as side:
        sent = await send_to(side, image, folder)
        print(sent.outcome.phase, (await side.vm.migration()).status)

A recording is made with what shows in the image only; how it travels is the source's own doing, from the
scenario's capabilities and parameters.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from qmig._nursery import background
from qmig.builds import Qemu
from qmig.errors import EnvironmentProblem, TruncatedStream
from qmig.legacy.connection import Told
from qmig.legacy.machine_image import ImageCollector, MachineImage
from qmig.legacy.session import MigrationSession
from qmig.legacy.source import MigrationSource
from qmig.legacy.source_settings import Postcopy, SourceSettings, ZeroPages
from qmig.legacy.source_table import SourcePhase
from qmig.legacy.verify.facts import version_of
from qmig.peers.address import Address, parse_address
from qmig.peers.channel import Channel
from qmig.peers.play import Side, start_side
from qmig.peers.source import Outcome, Source, open_source
from qmig.peers.tls import TlsCredentials
from qmig.peers.transport import listen
from qmig.qmp import QmpCommandError
from qmig.testing.scenario import Flow, Scenario
from qmig.testing.scenarios import FAST

#: capabilities that show in an image
_OF_THE_IMAGE: Final = frozenset({"x-ignore-shared", "validate-uuid", "dirty-bitmaps", "block"})
#: pages that a guest in postcopy asks for before it gets any unasked (of 2 MiB, it touches few in all), and
#: before a connection is cut: earlier than that, so that it is always cut
_ASKED: Final = 8
_ASKED_HUGE: Final = 2
_CUT: Final = 5


@dataclass(frozen=True, slots=True)
class Sent:
    """How our side ended, and what it was."""

    outcome: Outcome
    core: MigrationSource


async def record(qemu: Qemu, scenario: Scenario, folder: Path) -> MachineImage:
    """Runs the scenario's guest in a QEMU and takes its image; the machine's files are copied to `folder`."""
    capabilities = {name: on for name, on in scenario.capabilities.items() if name in _OF_THE_IMAGE}
    plain = replace(scenario, capabilities=capabilities, parameters={}, tls=False)
    session, collector = MigrationSession(live=True), ImageCollector()
    async with (
        listen(parse_address(f"unix:{folder}/record.sock")) as listener,
        start_side(qemu, plain) as side,
    ):
        await side.vm.set_parameters(FAST)
        await side.vm.migrate(listener.uri)
        with suppress(TruncatedStream):  # then QEMU did not complete, or died, and says why
            await _collect(await listener.accept(), session, collector)
        outcome = await side.vm.wait_migration()
        if outcome.status != "completed":
            raise EnvironmentProblem(f"recording ended {outcome.status}: {outcome.error}")
        for name in scenario.files:
            shutil.copyfile(side.folder / name, folder / name)
    return collector.finish()


async def _collect(channel: Channel, session: MigrationSession, collector: ImageCollector) -> None:
    """Takes a main channel to its end."""
    buffer = memoryview(bytearray(1 << 20))
    async with aclosing(channel):
        size = 1
        while size:
            size = await channel.receive_into(buffer)
            session.receive_data("main", buffer[:size])
            while isinstance(told := session.next_event(), Told):
                collector.apply(told)


def settings_of(
    scenario: Scenario, image: MachineImage, version: str, backing: Mapping[str, int] | None = None
) -> SourceSettings:
    """What the scenario asks of a source, for a destination of this version."""
    on = {name for name, value in scenario.capabilities.items() if value}
    parameters = scenario.parameters
    postcopy = scenario.flow in {Flow.POSTCOPY, Flow.RECOVER}
    given: dict[str, Any] = {
        "return_path": bool(on & {"return-path", "postcopy-ram", "switchover-ack"}),
        "validate_uuid": "validate-uuid" in on,
        "switchover_ack": "switchover-ack" in on,
        "xbzrle": "xbzrle" in on,
        "compress": "compress" in on,
        "mapped_ram": "mapped-ram" in on,
        "file_offset": scenario.offset,
        "rewritten": 3 if scenario.passes else 0,
        "backing_page_sizes": backing or {},
    }
    if "multifd" in on and "mapped-ram" not in on:
        given["multifd_channels"] = parameters["multifd-channels"]
        given["multifd_compression"] = parameters.get("multifd-compression", "none")
    if "zero-page-detection" in parameters:
        given["zero_page_detection"] = ZeroPages(parameters["zero-page-detection"])
    if "postcopy-ram" in on:
        given["postcopy"] = Postcopy.STARTED if postcopy else Postcopy.ADVISED
        given["postcopy_preempt"] = "postcopy-preempt" in on
        given["background_after"] = (_ASKED_HUGE if scenario.huge_pages else _ASKED) if postcopy else 0
    return SourceSettings.for_machine(image.machine, version=version_of(version), **given)


async def send_to(side: Side, image: MachineImage, folder: Path, *, certificates: Path | None = None) -> Sent:
    """Plays the scenario into `side`, to our own end; in postcopy the guest runs from the switchover on.

    `folder` holds the machine's files as `record` left them. Raises `Unsupported` when the build refuses."""
    scenario, vm = side.scenario, side.vm
    for name in scenario.files:
        with (side.folder / name).open("r+b") as there:  # the machine has it open
            there.write((folder / name).read_bytes())
    backing = {block.idstr: block.page_size for block in await vm.ram_blocks()}
    version = ".".join(map(str, vm.version))
    core = MigrationSource(image, settings_of(scenario, image, version, backing))
    tls = TlsCredentials(certificates, hostname="localhost") if certificates and scenario.tls else None
    async with AsyncExitStack() as stack:
        if scenario.flow is Flow.FILE:
            path = side.folder / "stream"
            path.write_bytes(bytes([0xA5]) * scenario.offset)
            offset = f",offset={scenario.offset:#x}" if scenario.offset else ""
            source = await stack.enter_async_context(open_source(parse_address(f"file:{path}{offset}"), core))
            outcome = await source.migrate()
            await _from_file(side, path, offset)
            return Sent(outcome, core)
        address = await _meeting_place(side, stack)
        source = await stack.enter_async_context(open_source(address, core, tls=tls))
        if scenario.flow in {Flow.POSTCOPY, Flow.RECOVER}:
            await vm.execute("cont")  # it runs when it is given up, and asks for pages
        outcome = await _recovered(side, source) if scenario.flow is Flow.RECOVER else await source.migrate()
    return Sent(outcome, core)


async def _recovered(side: Side, source: Source) -> Outcome:
    """Cuts a postcopy when pages have been asked for, and recovers it."""
    core = source.core
    assert isinstance(core, MigrationSource)

    async def interrupt() -> None:
        await source.until(lambda: core.requests_served >= _CUT)
        source.cut()

    async with background() as nursery:
        nursery.start_soon(interrupt)
        outcome = await source.migrate()
    if outcome.phase is not SourcePhase.PAUSED:
        return outcome
    await side.vm.wait_migration({"postcopy-paused"})
    uri = f"unix:{side.folder}/again.sock"
    await side.vm.execute("migrate-recover", {"uri": uri})
    return await source.recover(parse_address(uri))


async def _meeting_place(side: Side, stack: AsyncExitStack) -> Address:
    """Makes the destination listen; where."""
    vm = side.vm
    match side.scenario.transport:
        case "tcp":
            await vm.incoming("tcp:127.0.0.1:0")
            port = (await vm.execute("query-migrate"))["socket-address"][0]["port"]
            return parse_address(f"tcp:127.0.0.1:{port}")
        case "fd":
            ours, theirs = socket.socketpair()
            with theirs:
                vm.qmp.send_fd(theirs.fileno())
                await vm.execute("getfd", {"fdname": "qmig"})
            await vm.incoming("fd:qmig")
            return parse_address(f"fd:{ours.detach()}")
        case "exec":
            os.mkfifo(side.folder / "pipe")
            await vm.incoming(f"exec:cat '{side.folder}/pipe'")
            return parse_address(f"exec:cat > '{side.folder}/pipe'")
        case _:
            uri = f"unix:{side.folder}/migration.sock"
            await vm.incoming(uri)
            return parse_address(uri)


async def _from_file(side: Side, path: Path, offset: str) -> None:
    """Loads a file, with `file:` where the build has it (8.2+), else through `cat`."""
    try:
        await side.vm.incoming(f"file:{path}{offset}")
    except QmpCommandError as refusal:
        if "migration protocol" not in str(refusal):  # any other refusal is not about `file:`
            raise
        await side.vm.incoming(f"exec:cat '{path}'")
