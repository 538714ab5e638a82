"""Every scenario with every build as the source and our peer as the destination: it completes, and the
rebuilt memory is the source's, byte for byte.

A run of everything is `make live`; without it those that are marked quick are played.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from pathlib import Path

from qmig.builds import Qemu
from qmig.legacy.ramimage import OpenBlock
from qmig.peers.destination import MigrationFailed
from qmig.peers.play import Received, Side, receive_from, start_side
from qmig.testing.scenario import Flow, Role, Scenario

Played = Callable[..., None]

ROLE = Role.DESTINATION


def test_x86(qemu: Qemu, scenario: Scenario, played: Played) -> None:
    played(play, qemu, scenario)


def test_aarch64(qemu_arm: Qemu, scenario: Scenario, played: Played) -> None:
    played(play, qemu_arm, scenario)


async def play(qemu: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
    async with start_side(qemu, scenario, certificates=x509) as side:
        await migrate(side, x509, tmp_path)


async def migrate(side: Side, x509: Path, tmp_path: Path) -> None:
    try:
        async with receive_from(side, certificates=x509, ram=memory(side)) as received:
            assert received.source.status == "completed"
            await check(side, received, tmp_path)
    except MigrationFailed:
        await side.vm.migration()  # raises QemuDied where it is that
        raise


def memory(side: Side) -> OpenBlock | None:
    """Memory that the source does not send because both sides share it."""
    if not side.scenario.capabilities.get("x-ignore-shared"):
        return None

    def open_block(idstr: str, length: int) -> memoryview:
        if idstr != "mem":
            return memoryview(bytearray(length))
        with (side.folder / "ram").open("r+b") as file:
            return memoryview(mmap.mmap(file.fileno(), length))

    return open_block


async def check(side: Side, received: Received, tmp_path: Path) -> None:
    """The rebuilt memory is the source's."""
    ram = received.destination.ram
    blocks = {block.idstr: block for block in await side.vm.ram_blocks()}
    assert ram.blocks
    assert set(ram.blocks) <= set(blocks)
    compared = 0
    for idstr, block in ram.blocks.items():
        assert block.length == blocks[idstr].used_length
        there = tmp_path / "memory"
        ranges = await side.vm.save_ram_block(idstr, there)
        if side.scenario.transport == "exec" and "background-snapshot" in side.scenario.capabilities:
            ranges = unchanged(side, ranges)
        assert ram.differences(idstr, there, ranges) == []
        compared += sum(length for _, length in ranges)
    assert compared >= side.scenario.memory << 19, "less than half of the memory was looked at"
    if side.scenario.flow in {Flow.POSTCOPY, Flow.RECOVER} and "postcopy-ram" in side.scenario.capabilities:
        assert received.destination.incoming.requests
    shared = ram.blocks.get("mem") if "x-ignore-shared" in side.scenario.capabilities else None
    assert shared is None or shared.counts.total == 0


def unchanged(side: Side, ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The ranges without what a guest that runs on has changed since the snapshot."""
    for low, high in ((0x7000, 0x8000), side.scenario.dirty):
        parts = [(start, min(start + length, low)) for start, length in ranges]
        parts += [(max(start, high), start + length) for start, length in ranges]
        ranges = [(first, last - first) for first, last in parts if first < last]
    return ranges
