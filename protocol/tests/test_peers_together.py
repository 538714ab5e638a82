"""Our source into our destination, over every transport and in every way: the memory is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from qmig.legacy.sections import SectionFooter
from qmig.legacy.source import MigrationSource
from qmig.legacy.source_settings import PageOrder, Postcopy, SourceSettings, ZeroPages
from qmig.legacy.source_table import SourcePhase
from qmig.legacy.sync import SyncMode
from qmig.peers.address import parse_address
from qmig.peers.destination import Destination, MigrationFailed, serve_destination
from qmig.peers.source import open_source
from qmig.peers.tls import TlsCredentials
from qmig.testing.images import recorded

POSTCOPY: dict[str, Any] = {"return_path": True, "postcopy": Postcopy.STARTED}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "return path, scattered": {"return_path": True, "page_order": PageOrder.SCATTERED},
    "xbzrle": {"xbzrle": True, "rewritten": 3},
    "compress": {"compress": True},
    "multifd": {"multifd_channels": 4, "return_path": True, "rewritten": 2},
    "multifd zlib": {"multifd_channels": 2, "multifd_compression": "zlib"},
    "multifd zstd": {"multifd_channels": 3, "multifd_compression": "zstd", "return_path": True},
    "multifd as 7.2 has it": {
        "multifd_channels": 2, "sync_mode": SyncMode.PER_SECTION, "stale_packets": True,
        "zero_page_detection": ZeroPages.LEGACY, "return_path": True,
    },
    "postcopy": POSTCOPY,
    "postcopy, pages asked for first": {**POSTCOPY, "background_after": 50},
    "preempt": {**POSTCOPY, "postcopy_preempt": True},
    "preempt as 7.2 has it": {**POSTCOPY, "postcopy_preempt": True, "preempt_pre_7_2": True},
    "multifd, then postcopy": {**POSTCOPY, "multifd_channels": 2},
    "postcopy not used": {"return_path": True, "postcopy": Postcopy.ADVISED},
    "switchover-ack": {"return_path": True, "switchover_ack": True, "switchover_ack_legacy": True},
}  # fmt: skip


def core(**given: Any) -> MigrationSource:
    taken = recorded()
    return MigrationSource(taken, SourceSettings.for_machine(taken.machine, **given))


def same_memory(destination: Destination) -> None:
    for block in recorded().blocks:
        assert destination.ram.read(block.idstr, 0, block.used_length) == block.read(0, block.used_length)


def expected(given: dict[str, Any]) -> dict[str, Any]:
    """What the destination has to be told."""
    return {
        "multifd_channels": given.get("multifd_channels", 0),
        "preempt": given.get("postcopy_preempt", False),
        "switchover_ack": given.get("switchover_ack", False),
        "legacy_ack": given.get("switchover_ack_legacy"),
    }


@pytest.mark.parametrize("way", WAYS)
async def test_every_way(way: str, tmp_path: Path) -> None:
    migration = core(**WAYS[way])
    async with (
        serve_destination(f"unix:{tmp_path}/m", **expected(WAYS[way])) as destination,
        open_source(parse_address(destination.uri), migration) as source,
    ):
        outcome = await source.migrate()
        assert outcome.phase is SourcePhase.COMPLETED, outcome
        await destination.completed()
        same_memory(destination)
    if WAYS[way].get("background_after"):
        assert migration.requests_served >= 50


async def test_over_tcp_with_tls(tmp_path: Path, x509: Path) -> None:
    tls = TlsCredentials(x509, hostname="localhost")
    async with (
        serve_destination("tcp:127.0.0.1:0", multifd_channels=2, tls=tls) as destination,
        open_source(
            parse_address(destination.uri), core(multifd_channels=2, return_path=True), tls=tls
        ) as source,
    ):
        assert (await source.migrate()).phase is SourcePhase.COMPLETED
        await destination.completed()
        same_memory(destination)


@pytest.mark.parametrize("mapped", [False, True])
async def test_through_a_file(mapped: bool, tmp_path: Path) -> None:
    address = f"file:{tmp_path}/f,offset=0x10000"
    async with open_source(parse_address(address), core(mapped_ram=mapped, file_offset=0x10000)) as source:
        assert (await source.migrate()).phase is SourcePhase.COMPLETED
    async with serve_destination(address) as destination:
        await destination.completed()
        same_memory(destination)


@pytest.mark.parametrize("preempt", [False, True])
@pytest.mark.parametrize("cut_by", ["source", "destination"])
async def test_a_recovered_postcopy(preempt: bool, cut_by: str, tmp_path: Path) -> None:
    migration = core(**POSTCOPY, postcopy_preempt=preempt, background_after=100)
    async with (
        serve_destination(f"unix:{tmp_path}/m", preempt=preempt) as destination,
        open_source(parse_address(destination.uri), migration) as source,
    ):

        async def interrupt() -> None:
            await source.until(lambda: migration.requests_served >= 20)
            source.cut() if cut_by == "source" else destination.interrupt()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            outcome = await source.migrate()
        assert outcome.phase is SourcePhase.PAUSED, outcome
        await destination.paused()
        outcome = await source.recover(parse_address(destination.uri))
        assert outcome.phase is SourcePhase.COMPLETED, outcome
        await destination.completed()
        same_memory(destination)
    assert {"main", "main-2"} <= set(outcome.sent)


async def test_a_refused_stream_is_told(tmp_path: Path) -> None:
    """One thing changed on the way: the destination refuses it, and the source says so."""
    migration: MigrationSource = core(
        return_path=True,
        change=lambda channel, event: (
            [SectionFooter(section_id=event.section_id + 1)] if isinstance(event, SectionFooter) else [event]
        ),
    )
    async with (
        serve_destination(f"unix:{tmp_path}/m") as destination,
        open_source(parse_address(destination.uri), migration) as source,
    ):
        outcome = await source.migrate()
        assert (outcome.phase, outcome.shut) == (SourcePhase.FAILED, 1)
        with pytest.raises(MigrationFailed, match="footer"):
            await destination.completed()
