"""Makes a recording: starts the build with a guest that dirties memory, migrates it, keeps everything.

Beside the channels' bytes it keeps the source's memory after the migration (`RAMBLOCK.memory`, with the
ranges that could be read in meta.json), to hold the rebuilt memory against.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import trio

from qmig.builds import Qemu
from qmig.errors import EnvironmentProblem
from qmig.peers.play import Received, Side, receive_from, start_side
from qmig.spec.vectors import Vector
from qmig.testing.scenario import Scenario
from qmig_conformance import interrupt

#: A watchdog, not a verdict: what trips it is reported as our error.
WATCHDOG = 120


def record(qemu: Qemu, scenario: Scenario, folder: Path) -> None:
    """Runs one scenario into `folder`. Raises `Unsupported` when the build says it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    interrupt.run(_record, qemu, scenario, folder)


async def _record(qemu: Qemu, scenario: Scenario, folder: Path) -> None:
    with trio.move_on_after(WATCHDOG) as watchdog:
        async with start_side(qemu, scenario) as side:
            with ExitStack() as files:
                taps: dict[str, IO[bytes]] = {}

                def tap(channel: str, chunk: memoryview) -> None:
                    if channel not in taps:
                        taps[channel] = files.enter_context((folder / f"{channel}.bin").open("wb"))
                    taps[channel].write(chunk)

                async with receive_from(side, tap=tap) as received:
                    pass
            await _keep(side, received, folder)
    if watchdog.cancelled_caught:
        raise EnvironmentProblem(f"{scenario.name}: not done within {WATCHDOG} s; the watchdog ended it")


async def _keep(side: Side, received: Received, folder: Path) -> None:
    """Writes meta.json and the memory of every RAM block that can be read."""
    vm, scenario = side.vm, side.scenario
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
            "argv": scenario.arguments(".".join(map(str, vm.version)), Path("{folder}")),
        },
        "capabilities": {"events": True, **scenario.capabilities},
        "parameters_set": dict(scenario.parameters),
        "parameters_seen": machines,
        "outcome": {"source": {"status": received.source.status, "stderr": vm.output}},
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
