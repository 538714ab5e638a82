"""Every scenario with every build as the source and our peer as the destination: it completes, and the
rebuilt memory is the source's, byte for byte.

A run of everything is `make live`; without it those that are marked quick are played.
"""

from __future__ import annotations

import gc
import mmap
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from qmig.builds import Qemu
from qmig.legacy.ramimage import OpenBlock
from qmig.peers.destination import MigrationFailed
from qmig.peers.play import Received, Side, receive_from, start_side
from qmig.peers.qemu import QemuDied
from qmig.testing.scenario import Flow, Role, Scenario, Unsupported
from qmig.testing.scenarios import select

#: A watchdog, not a verdict.
WATCHDOG = 90


def scenarios(target: str) -> list[object]:
    """The scenarios for builds of this target, as parameters."""
    return [
        pytest.param(found, id=found.name, marks=() if found.quick else pytest.mark.live)
        for found in select(role=Role.DESTINATION, target=target)
    ]


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Afterwards there is no descriptor, process or thread that was not there before."""
    before = _mine()
    yield
    gc.collect()
    assert _mine() == before


def _mine() -> tuple[int, set[str], int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    # An idle thread of trio's own stock has such a name; one that works has that of its work.
    threads = [thread for thread in threading.enumerate() if not thread.name.startswith("Trio thread")]
    return len(os.listdir("/proc/self/fd")), set(children), len(threads)  # noqa: PTH208


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("scenario", scenarios("x86_64"))
async def test_x86(qemu: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
    await play(qemu, scenario, x509, tmp_path)


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("scenario", scenarios("aarch64"))
async def test_aarch64(qemu_arm: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
    await play(qemu_arm, scenario, x509, tmp_path)


async def play(qemu: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
    try:
        with trio.fail_after(WATCHDOG):
            async with start_side(qemu, scenario, certificates=x509) as side:
                await migrate(side, x509, tmp_path)
    except Unsupported as reason:
        pytest.skip(f"QEMU {qemu.version}: {reason}")


async def migrate(side: Side, x509: Path, tmp_path: Path) -> None:
    try:
        async with receive_from(side, certificates=x509, ram=memory(side)) as received:
            assert received.source.status == "completed"
            await check(side, received, tmp_path)
    except (MigrationFailed, QemuDied):
        # A build that breaks its own assertion is no peer for anybody (design/decisions.md, 17).
        try:
            await side.vm.migration()
        except QemuDied as death:
            if broken := re.search(r"\S+: Assertion `.*' failed", death.output):
                pytest.skip(f"QEMU {side.vm.version} crashes by itself: {broken[0]}")
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
