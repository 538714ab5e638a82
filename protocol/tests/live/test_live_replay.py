"""What a real source sent, sent again byte for byte to a real destination; and what a destination does with
one thing changed, or when it stops reading."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing

from qmig._wire import Record
from qmig.builds import Qemu
from qmig.legacy.header import Configuration
from qmig.legacy.replay import Replay
from qmig.legacy.sections import SectionFull
from qmig.legacy.source import MigrationSource
from qmig.legacy.source_settings import Change, SourceSettings
from qmig.legacy.source_table import SourcePhase
from qmig.peers.address import Address, parse_address
from qmig.peers.play import Side, receive_from, start_side
from qmig.peers.play_source import record
from qmig.peers.qemu import QemuDied
from qmig.peers.source import open_source
from qmig.testing.scenario import Scenario
from qmig.testing.scenarios import scenario as named

Played = Callable[..., None]

QUICK = ("return-path", "multifd-rounds-2")
AGAIN = (*QUICK, "xbzrle", "postcopy-unused", "precopy-sink", "switchover-ack")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.live) for name in AGAIN]
)
def test_sent_again(qemu: Qemu, name: str, played: Played) -> None:
    played(again, qemu, named(name))


async def again(qemu: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
    raw: dict[str, bytearray] = {}

    def tap(channel: str, data: memoryview) -> None:
        raw.setdefault(channel, bytearray()).extend(data)

    async with (
        start_side(qemu, scenario) as source,
        receive_from(source, tap=tap) as received,
        start_side(qemu, scenario, incoming=True) as side,
    ):
        replay = Replay({name: bytes(data) for name, data in raw.items() if not name.startswith("rp")})
        async with open_source(await listening(side), replay) as peer:
            outcome = await peer.migrate()
        assert outcome.phase is SourcePhase.COMPLETED, outcome
        assert (await side.vm.wait_migration()).status == "completed"
        blocks = {block.idstr for block in await side.vm.ram_blocks()}
        for idstr in set(received.destination.ram.blocks) & blocks:
            ranges = await side.vm.save_ram_block(idstr, tmp_path / "memory")
            assert received.destination.ram.differences(idstr, tmp_path / "memory", ranges) == []
        await side.vm.execute("cont")
        assert side.program is not None
        await side.vm.wait_guest(side.program, 3)


async def listening(side: Side) -> Address:
    uri = f"unix:{side.folder}/migration.sock"
    await side.vm.incoming(uri)
    return parse_address(uri)


def other_machine(channel: str, event: Record) -> list[Record]:
    return [Configuration(machine="pc-q35-1.0") if isinstance(event, Configuration) else event]


def newer_device(channel: str, event: Record) -> list[Record]:
    if isinstance(event, SectionFull) and event.idstr == "timer":
        return [SectionFull(**{**event.values(), "version_id": 99})]
    return [event]


def unknown_device(channel: str, event: Record) -> list[Record]:
    if isinstance(event, SectionFull) and event.idstr == "timer":
        return [SectionFull(**{**event.values(), "idstr": "tymer"})]
    return [event]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_machine, "Machine type received is 'pc-q35-1.0'"),
        (newer_device, "unsupported version 99 for 'timer'"),
        (unknown_device, "section or instance 'tymer'"),
    ],
)
def test_one_thing_changed(qemu: Qemu, change: Change, words: str, played: Played) -> None:
    async def play(qemu: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
        image = await record(qemu, scenario, tmp_path)
        settings = SourceSettings.for_machine(image.machine, return_path=True, change=change)
        async with start_side(qemu, scenario, incoming=True) as side:
            address = await listening(side)
            async with open_source(address, MigrationSource(image, settings)) as peer:
                outcome = await peer.migrate()
            assert outcome.phase is SourcePhase.FAILED
            with pytest.raises(QemuDied) as death:
                await side.vm.wait_migration({"completed"})
            assert words in death.value.output

    played(play, qemu, named("return-path"))


def test_a_qemu_that_stops_is_named_and_left(qemu: Qemu, played: Played) -> None:
    async def play(qemu: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
        image = await record(qemu, scenario, tmp_path)
        settings = SourceSettings.for_machine(image.machine, return_path=True)
        async with start_side(qemu, scenario, incoming=True) as side:
            address = await listening(side)
            os.kill(side.vm.pid, signal.SIGSTOP)
            async with open_source(address, MigrationSource(image, settings)) as peer:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(peer.migrate)
                    while "does not take" not in peer.waiting_for():
                        await trio.testing.wait_all_tasks_blocked()
                    nursery.cancel_scope.cancel()
                assert peer.state is SourcePhase.FAILED

    played(play, qemu, named("return-path"))


def test_a_qemu_that_dies_is_an_outcome(qemu: Qemu, played: Played) -> None:
    async def play(qemu: Qemu, scenario: Scenario, x509: Path, tmp_path: Path) -> None:
        image = await record(qemu, scenario, tmp_path)
        settings = SourceSettings.for_machine(
            image.machine, return_path=True, switchover_ack=True, switchover_ack_legacy=True
        )
        async with (
            start_side(qemu, scenario, incoming=True) as side,
            open_source(await listening(side), MigrationSource(image, settings)) as peer,
            trio.open_nursery() as nursery,
        ):

            async def kill() -> None:  # it waits for an agreement that this destination never gives
                await peer.until(lambda: "SWITCHOVER_ACK" in peer.waiting_for())
                side.vm.kill()

            nursery.start_soon(kill)
            outcome = await peer.migrate()
            assert outcome.phase is SourcePhase.FAILED
            assert outcome.error

    played(play, qemu, named("return-path"))
