"""Plays a scenario's QEMU: starts it, makes it ready, steers it as the source of a migration.

    async with start_side(qemu, scenario("postcopy")) as side:
        outcome = await migrate_to(side, "unix:/run/peer.sock")

A destination is started with `incoming=True` and waits for ``migrate-incoming``; its guest stays stopped.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qmig.builds import Qemu
from qmig.peers.qemu import Migration, QemuDied, QemuProcess, start_qemu
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
    certificates: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> AsyncIterator[Side]:
    """A QEMU for the time of the block: its guest has filled its memory, capabilities and parameters are set.

    `certificates` is the folder of a TLS scenario; `parameters` override the scenario's. Raises `Unsupported`
    when the build, or the host, says that it has not got something."""
    _check_huge_pages(scenario)
    with tempfile.TemporaryDirectory(prefix="qmig-files-") as name:
        folder = Path(name)
        for file, size in scenario.files.items():
            with (folder / file).open("wb") as made:
                made.truncate(size)
        argv = scenario.arguments(qemu.version, folder)
        if incoming:
            argv += ["-S", "-incoming", "defer"]
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


# -- as the source ----------------------------------------------------------------------------------------


async def migrate_to(side: Side, uri: str) -> Migration:
    """Migrates to `uri` as the scenario says, up to the source's own end: completed, failed, paused."""
    vm, scenario = side.vm, side.scenario
    slow = scenario.passes or scenario.flow in {Flow.POSTCOPY, Flow.RECOVER}
    await vm.set_parameters(SLOW if slow else FAST)
    with vm.events("MIGRATION_PASS", "MIGRATION") as events:
        await vm.migrate(uri)
        wanted = 2 if slow and not scenario.passes else scenario.passes + 1
        async for event in events if slow else _nothing():
            data = event["data"]
            if data.get("status") in {"completed", "failed"} or data.get("pass", 0) >= wanted:
                break
    if scenario.flow in {Flow.POSTCOPY, Flow.RECOVER}:
        await vm.execute("migrate-start-postcopy")
    elif slow:
        await vm.set_parameters(FAST)
    outcome = await vm.wait_migration()
    if outcome.status == "pre-switchover":
        await vm.execute("migrate-continue", {"state": "pre-switchover"})
        outcome = await vm.wait_migration(_ENDS)
    return outcome


_ENDS: Final = frozenset({"completed", "failed", "cancelled", "postcopy-paused"})


async def _nothing() -> AsyncIterator[Mapping[str, Any]]:
    return
    yield {}  # makes it a generator
