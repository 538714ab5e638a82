"""Makes a recording: starts the build with a guest that dirties memory, migrates it, keeps everything.

Beside the channels' bytes it keeps the source's memory after the migration (`RAMBLOCK.memory`, with the
ranges that could be read in meta.json), to hold the rebuilt memory against.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import trio

from qmig.builds import Qemu
from qmig.errors import EnvironmentProblem
from qmig.peers.destination import listen_unix, receive
from qmig.peers.qemu import Migration, QemuProcess, start_qemu
from qmig.qmp import QmpCommandError
from qmig.spec.vectors import Vector
from qmig.testing.guest import Guest, firmware
from qmig_conformance.case import Unsupported
from qmig_conformance.scenarios import Scenario

MACHINE = ("-M", "q35", "-accel", "tcg", "-m", "16M", "-nodefaults", "-device", "isa-serial")
#: what keeps a source from finishing before it has made its rounds, and what lets it finish then
SLOW: Mapping[str, Any] = {"downtime-limit": 1, "max-bandwidth": 2 << 20}
FAST: Mapping[str, Any] = {"downtime-limit": 2000, "max-bandwidth": 1 << 30}
#: A watchdog, not a verdict: what trips it is reported as our error.
WATCHDOG = 120


def record(qemu: Qemu, scenario: Scenario, folder: Path) -> None:
    """Runs one scenario into `folder`. Raises `Unsupported` when the build says it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    trio.run(_record, qemu, scenario, folder)


async def _record(qemu: Qemu, scenario: Scenario, folder: Path) -> None:
    program = firmware(fill=(1 << 20, 8 << 20), dirty=(8 << 20, 9 << 20))
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, scenario.name))
    argv = [*MACHINE, "-uuid", identity]
    with trio.move_on_after(WATCHDOG) as watchdog:
        async with start_qemu(qemu.binary, argv, program=program) as vm:
            await _migrate(vm, program, scenario, folder, argv)
    if watchdog.cancelled_caught:
        raise EnvironmentProblem(f"{scenario.name}: not done within {WATCHDOG} s; the watchdog ended it")


async def _migrate(
    vm: QemuProcess, program: Guest, scenario: Scenario, folder: Path, argv: Sequence[str]
) -> None:
    await vm.wait_guest(program)
    missing = set(scenario.capabilities) - await vm.supported_capabilities()
    if missing:
        raise Unsupported(
            f"QEMU {'.'.join(map(str, vm.version))} has no capability {', '.join(sorted(missing))}"
        )
    try:
        await vm.set_capabilities({"events": True, **scenario.capabilities})
        await vm.set_parameters({**(SLOW if scenario.rounds else FAST), **scenario.parameters})
    except QmpCommandError as refusal:
        raise Unsupported(str(refusal)) from None
    if scenario.to == "unix":
        outcome = await _to_us(vm, scenario, folder)
    else:
        await _to_file(vm, folder / "main.bin")
        outcome = await _finish(vm, scenario)
    if outcome.status != "completed":
        raise EnvironmentProblem(f"the source ended {outcome.status}: {outcome.error}")
    await _keep(vm, scenario, folder, argv, outcome)


async def _to_us(vm: QemuProcess, scenario: Scenario, folder: Path) -> Migration:
    """Migrates over a unix socket into our receiving side, which keeps what comes."""
    path = vm.folder / "migration.sock"
    with ExitStack() as files:
        taps: dict[str, IO[bytes]] = {}

        def tap(channel: str, chunk: memoryview) -> None:
            if channel not in taps:
                taps[channel] = files.enter_context((folder / f"{channel}.bin").open("wb"))
            taps[channel].write(chunk)

        outcome: list[Migration] = []
        listener = await listen_unix(path)
        async with trio.open_nursery() as nursery:

            async def source() -> None:
                await vm.migrate(f"unix:{path}")
                outcome.append(await _finish(vm, scenario))
                if outcome[0].status != "completed":
                    nursery.cancel_scope.cancel()

            nursery.start_soon(source)
            channels = scenario.parameters.get("multifd-channels", 0)
            await receive(listener, tap=tap, multifd_channels=channels)
    return outcome[0]


async def _to_file(vm: QemuProcess, path: Path) -> None:
    """Migrates into a file: `file:` where the build has it (8.2+), else through `cat`."""
    try:
        await vm.migrate(f"file:{path}")
    except QmpCommandError as refusal:
        if "migration protocol" not in str(refusal):  # any other refusal is not about `file:`
            raise
        await vm.migrate(f"exec:cat > '{path}'")


async def _finish(vm: QemuProcess, scenario: Scenario) -> Migration:
    """Lets the source make its rounds, then finish."""
    with vm.events("MIGRATION_PASS", "MIGRATION") as events:
        if scenario.rounds:
            async for event in events:
                data = event["data"]
                if data.get("status") in {"completed", "failed"} or data.get("pass", 0) > scenario.rounds:
                    break
            await vm.set_parameters(FAST)
    return await vm.wait_migration()


async def _keep(
    vm: QemuProcess, scenario: Scenario, folder: Path, argv: Sequence[str], outcome: Migration
) -> None:
    """Writes meta.json and the memory of every RAM block that can be read."""
    memory: dict[str, Any] = {}
    for block in await vm.ram_blocks():
        name = f"memory-{len(memory)}.bin"
        ranges = await vm.save_ram_block(block.idstr, folder / name)
        memory[block.idstr] = {"file": name, "ranges": ranges, "used_length": block.used_length}
    machines = await vm.execute("query-migrate-parameters")
    meta = {
        "scenario": scenario.name,
        "source": {
            "version": ".".join(map(str, vm.version)),
            "argv": list(argv),
        },
        "capabilities": {"events": True, **scenario.capabilities},
        "parameters_set": dict(scenario.parameters),
        "parameters_seen": machines,
        "outcome": {"source": {"status": outcome.status, "stderr": vm.output}},
        "channels": [
            {"name": path.stem, "forward": {"bytes": path.stat().st_size, "file": path.name}}
            for path in sorted(folder.glob("*.bin"))
            if not path.name.startswith("memory-")
        ],
        "memory": memory,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")


def unpack(vector: Vector, folder: Path) -> None:
    """Lays a recording of the repository out like one of ours, without memory to compare."""
    folder.mkdir(parents=True, exist_ok=True)
    channels = []
    for name in vector.channels:
        data = vector.data(name)
        (folder / f"{name}.bin").write_bytes(data)
        # `file:PATH,offset=N` leaves what stood in the first N bytes
        offset = max(data.find(b"QEVM"), 0) if name == "main" else 0
        channels.append(
            {"name": name, "offset": offset, "forward": {"bytes": len(data), "file": f"{name}.bin"}}
        )
    meta = {
        "scenario": vector.id,
        "source": {"version": vector.source["qemu"], "argv": str(vector.source["command"]).split()},
        "capabilities": dict.fromkeys(vector.expect["decoding"]["capabilities"], True),
        "channels": channels,
        "cut": "cut" in vector.flags,
    }
    (folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
