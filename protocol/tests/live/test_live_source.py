"""Every scenario with every build as the destination and our peer as the source: it completes, the memory
there is what was sent, and the guest runs on.

A run of everything is `make live`; without it those that are marked quick are played.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from qmig.builds import BuildError, Qemu, find
from qmig.legacy.dirtybitmap import DirtyBitmapStart
from qmig.legacy.machine_image import ImageBlock, MachineImage
from qmig.legacy.source_table import SourcePhase
from qmig.peers.play import Side, start_side
from qmig.peers.play_source import record, send_to
from qmig.testing.scenario import Flow, Role, Scenario, Unsupported

Played = Callable[..., None]

ROLE = Role.SOURCE


def test_x86(qemu: Qemu, scenario: Scenario, played: Played) -> None:
    played(play, qemu, scenario)


def test_aarch64(qemu_arm: Qemu, scenario: Scenario, played: Played) -> None:
    played(play, qemu_arm, scenario)


async def play(qemu: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
    destination = other(qemu, scenario)
    scenario = replace(scenario, machine=scenario.machine_type(qemu.version), other="")
    image = await record(qemu, scenario, tmp_path)
    await migrate(destination, qemu, scenario, image, x509, tmp_path)


def other(qemu: Qemu, scenario: Scenario) -> Qemu:
    """The destination's build: another one where the scenario names it."""
    if not scenario.name.startswith("cross-"):
        return qemu
    try:
        found = find(scenario.target, scenario.other)
    except BuildError as problem:
        raise Unsupported(str(problem)) from None
    if found is None:
        raise Unsupported(f"no build of QEMU {scenario.other} to migrate to")
    return found


async def migrate(
    qemu: Qemu, recorder: Qemu, scenario: Scenario, image: MachineImage, x509: Path, tmp_path: Path
) -> None:
    async with start_side(qemu, scenario, incoming=True, certificates=x509) as side:
        sent = await send_to(side, image, tmp_path, certificates=x509)
        if sent.outcome.phase is not SourcePhase.COMPLETED and scenario.name.startswith("cross-"):
            await check_that_a_real_one_is_taken(side, qemu, recorder)
        assert sent.outcome.phase is SourcePhase.COMPLETED, sent.outcome
        there = await side.vm.wait_migration()
        assert there.status == "completed", there.error
        await check_memory(side, image, tmp_path)
        if scenario.capabilities.get("postcopy-ram") and scenario.flow in {Flow.POSTCOPY, Flow.RECOVER}:
            assert sent.core.requests_served
        assert ("main-2" in sent.outcome.sent) is (scenario.flow is Flow.RECOVER)
        if scenario.bitmap:
            await check_bitmap(side, image)
        await side.vm.execute("cont")
        assert side.program is not None
        await side.vm.wait_guest(side.program, 3)


async def check_that_a_real_one_is_taken(side: Side, qemu: Qemu, recorder: Qemu) -> None:
    """Skips where these two builds refuse each other: then nobody's source gets through."""
    async with (
        start_side(qemu, side.scenario, incoming=True) as destination,
        start_side(recorder, side.scenario) as source,
    ):
        uri = f"unix:{destination.folder}/real.sock"
        await destination.vm.incoming(uri)
        await source.vm.migrate(uri)
        if (await source.vm.wait_migration()).status != "completed":
            raise Unsupported(f"{recorder.version} and {side.vm.name} refuse each other's stream")


async def check_memory(side: Side, image: MachineImage, tmp_path: Path) -> None:
    """The destination's memory is the image's, apart from what a guest that runs has changed."""
    runs = side.scenario.flow in {Flow.POSTCOPY, Flow.RECOVER}
    if runs:
        await side.vm.execute("stop")
    compared = 0
    for block in image.blocks:
        if not block.sent and "x-ignore-shared" in image.capabilities:
            continue
        path = tmp_path / "memory"
        ranges = await side.vm.save_ram_block(block.idstr, path)
        ranges = list(unchanged(side, ranges)) if runs and block is image.blocks[0] else ranges
        data = path.read_bytes()
        assert different(data, block, ranges) == [], block.idstr
        compared += sum(length for _, length in ranges)
    shared = "x-ignore-shared" in image.capabilities
    assert shared or compared >= side.scenario.memory << 18, "less than a quarter of the memory was looked at"


def different(data: bytes, block: ImageBlock, ranges: list[tuple[int, int]]) -> list[int]:
    """Pages that are not the image's, the first few."""
    found = []
    for start, length in ranges:
        if data[start : start + length] != block.read(start, length):
            found += [
                at
                for at in range(start, start + length, 4096)
                if data[at : min(at + 4096, start + length)] != block.read(at, min(4096, start + length - at))
            ]
    return found[:8]


def unchanged(side: Side, ranges: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges without what the guest program writes to."""
    parts = ranges
    for low, high in ((0x7000, 0x8000), side.scenario.dirty):
        parts = [
            piece
            for start, length in parts
            for piece in ((start, min(start + length, low)), (max(start, high), start + length))
        ]
        parts = [(first, last - first) for first, last in parts if first < last]
    yield from parts


async def check_bitmap(side: Side, image: MachineImage) -> None:
    """The dirty bitmap is there."""
    assert side.scenario.bitmap is not None
    node, name = side.scenario.bitmap
    started = [event for section in image.live for event in section.setup]
    assert any(isinstance(event, DirtyBitmapStart) for event in started)
    nodes = await side.vm.execute("query-named-block-nodes")
    bitmaps = {
        bitmap["name"]: bitmap for row in nodes if row["node-name"] == node for bitmap in row["dirty-bitmaps"]
    }
    assert bitmaps[name]["count"] == 3 * 65536  # 192 KiB were written, in clusters of 64
