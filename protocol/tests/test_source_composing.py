"""What a source makes of an image verifies, and whoever reads it has the same memory; with every setting."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from qmig._wire import Record
from qmig.errors import LocalProtocolError
from qmig.legacy import commands as cmd
from qmig.legacy import header as hdr
from qmig.legacy import multifd as mfd
from qmig.legacy import sections as sec
from qmig.legacy.connection import Told
from qmig.legacy.deflate import open_packer
from qmig.legacy.dirtybitmap import DirtyBitmapChunk
from qmig.legacy.machine_image import ImageCollector, LiveSection, MachineImage
from qmig.legacy.pageplan import in_order, older
from qmig.legacy.source import MigrationSource
from qmig.legacy.source_settings import PageOrder, Postcopy, SourceSettings, ZeroPages
from qmig.legacy.source_table import SourcePhase
from qmig.legacy.sync import SyncMode
from qmig.legacy.verify import Known
from qmig.testing import migrations as m
from qmig.testing.answerer import Answerer, drive
from qmig.testing.images import Q35, recorded, small


def sent(
    source_image: MachineImage, version: tuple[int, int], known: Known | None = None, **given: Any
) -> Answerer:
    """Migrates, and looks at everything that can be looked at."""
    settings = SourceSettings.for_machine(source_image.machine, version=version, **given)
    source = MigrationSource(source_image, settings)
    answerer = Answerer(known=known or capabilities(version, settings))
    answerer.page_size = source_image.page_size
    drive(source, answerer)
    assert source.phase is SourcePhase.COMPLETED, source.waiting_for()
    assert source.waiting_for() == ""
    report = answerer.finish()
    assert report.findings == ()
    same_memory(source_image, answerer)
    return answerer


def same_memory(source_image: MachineImage, answerer: Answerer) -> None:
    assert set(answerer.memory) == {block.idstr for block in source_image.blocks}
    for block in source_image.blocks:
        if block.sent or not source_image.capabilities:
            assert answerer.memory[block.idstr] == block.read(0, block.used_length)


def capabilities(version: tuple[int, int], settings: SourceSettings) -> Known:
    """A source that would send this."""
    names = {
        "return-path": settings.return_path,
        "multifd": bool(settings.multifd_channels),
        "postcopy-ram": settings.postcopy is not Postcopy.OFF,
        "postcopy-preempt": settings.postcopy_preempt,
        "xbzrle": settings.xbzrle,
        "compress": settings.compress,
        "mapped-ram": settings.mapped_ram,
        "validate-uuid": settings.validate_uuid,
        "switchover-ack": settings.switchover_ack,
    }
    parameters: dict[str, Any] = {"zero-page-detection": settings.zero_page_detection.value}
    if settings.multifd_channels:
        parameters |= {
            "multifd-channels": settings.multifd_channels,
            "multifd-compression": settings.multifd_compression,
        }
    return m.known(version, *(name for name, on in names.items() if on), **parameters)


def kinds(answerer: Answerer, channel: str = "main") -> list[type[Record]]:
    return [type(event) for name, event in answerer.told if name == channel]


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "return path": {"return_path": True},
    "twice": {"rewritten": 3},
    "xbzrle": {"rewritten": 3, "xbzrle": True},
    "descending": {"page_order": PageOrder.DESCENDING, "rewritten": 5},
    "scattered, small batches": {"page_order": PageOrder.SCATTERED, "chunk": 24 * 4096},
    "multifd": {"multifd_channels": 2, "return_path": True},
    "multifd zlib": {"multifd_channels": 3, "multifd_compression": "zlib", "rewritten": 2},
    "multifd zstd": {"multifd_channels": 1, "multifd_compression": "zstd"},
    "multifd, zero pages on main": {"multifd_channels": 2, "zero_page_detection": ZeroPages.LEGACY},
    "multifd, zero pages as others": {
        "multifd_channels": 2, "zero_page_detection": ZeroPages.NONE, "page_order": PageOrder.DESCENDING,
    },
    "multifd in per-section mode": {"multifd_channels": 2, "sync_mode": SyncMode.PER_SECTION},
    "mapped-ram": {"mapped_ram": True},
    "postcopy announced": {"return_path": True, "postcopy": Postcopy.ADVISED},
    "switchover-ack": {"return_path": True, "switchover_ack": True},
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_travelling_verifies_and_arrives(way: str) -> None:
    given = WAYS[way]
    known = None
    if given.get("sync_mode"):  # set by hand against the machine type
        known = capabilities((11, 1), SourceSettings.for_machine(recorded(Q35).machine, **given))
        known = Known(
            version=known.version, capabilities=known.capabilities, parameters=known.parameters,
            properties={"multifd-flush-after-each-section": True}, suppress_vmdesc=False,
        )  # fmt: skip
    answerer = sent(recorded(Q35), (11, 1), known, **given)
    assert kinds(answerer)[-1] is sec.VmDescription


@pytest.mark.parametrize(
    ("name", "version", "given"),
    [
        ("5.2-compress-xbzrle", (5, 2), {"compress": True, "rewritten": 4, "xbzrle": True}),
        ("7.2-multifd-rounds-2", (7, 2), {"multifd_channels": 2}),
        (
            "7.2-multifd-rounds-2",
            (7, 2),
            {"multifd_channels": 2, "multifd_compression": "zlib", "rewritten": 7},
        ),
        ("10.0-precopy-plain-pc", (10, 0), {"multifd_channels": 4, "vmdesc": True}),
        ("11.1-dirty-bitmaps", (11, 1), {}),
        ("11.1-validate-uuid", (11, 1), {"validate_uuid": True, "multifd_channels": 1}),
        ("10.0-ignore-shared", (10, 0), {}),
        ("10.0-ignore-shared", (10, 0), {"mapped_ram": True}),
        ("11.1-precopy-arm-virt", (11, 1), {"rewritten": 2}),
        ("11.1-precopy-plain-microvm", (11, 1), {}),
        ("11.1-postcopy", (11, 1), {}),
        ("10.0-mapped-ram", (10, 0), {"multifd_channels": 2}),
    ],
)
def test_images_of_every_kind(name: str, version: tuple[int, int], given: dict[str, Any]) -> None:
    taken = recorded(name)
    settings = SourceSettings.for_machine(taken.machine, version=version, **given)
    known = capabilities(version, settings)
    others = {"dirty-bitmaps"} if taken.live else set()
    others |= {name for name in taken.capabilities if name != "mapped-ram"}
    assert known.capabilities is not None
    known = replace(known, capabilities=known.capabilities | others)
    if taken.vmdesc is None:  # a precopy made of a postcopy has no description to send
        known = replace(known, suppress_vmdesc=True)
    sent(taken, version, known, **given)


def test_device_state_is_what_was_recorded() -> None:
    answerer = sent(recorded(Q35), (11, 1))
    there = [bytes(event.data) for _, event in answerer.told if isinstance(event, sec.DeviceState)]
    assert there == [device.data for device in recorded(Q35).devices]


def test_a_uuid_of_ones_own() -> None:
    other = bytes(range(16, 32))
    answerer = sent(small(), (10, 0), uuid=other, validate_uuid=True, multifd_channels=1)
    (hello,) = [event for _, event in answerer.told if isinstance(event, mfd.MultifdHello)]
    (told,) = [event for _, event in answerer.told if isinstance(event, hdr.ConfigurationUuid)]
    assert hello.uuid == told.uuid == other


def test_the_description_can_be_left_out() -> None:
    known = Known(
        version=(10, 0), capabilities=frozenset(), parameters={}, properties={}, suppress_vmdesc=True
    )
    assert kinds(sent(small(), (10, 0), known, vmdesc=False))[-1] is sec.EndOfFile


def test_old_packets_keep_what_they_had() -> None:
    """Up to 8.2 a SYNC has pages_alloc and the length of the payload before it."""
    answerer = sent(recorded("7.2-multifd-rounds-2"), (7, 2), multifd_channels=2)
    packets = [
        event for name, event in answerer.told if name == "multifd-0" and isinstance(event, mfd.MultifdPacket)
    ]
    syncs = [packet for packet in packets if packet.is_sync]
    assert {packet.pages_alloc for packet in syncs} == {128}
    assert syncs[0].next_packet_size == 0
    assert syncs[-1].next_packet_size > 0
    assert not any(packet.zero_pages for packet in packets)


def test_mapped_ram_counts_from_the_files_beginning() -> None:
    answerer = sent(small(), (10, 0), mapped_ram=True, file_offset=0x5000)
    headers = [event for _, event in answerer.told if type(event).__name__ == "MappedRamHeader"]
    first = headers[0].values()
    assert first["bitmap_offset"] == 0x5000 + headers[0].offset + 28
    assert first["pages_offset"] == 0x100000


def test_a_change_in_one_place() -> None:
    """Events can be dropped, replaced and added, inside a package too."""
    seen: list[tuple[str, str]] = []

    def change(channel: str, event: Record) -> Iterable[Record]:
        seen.append((channel, type(event).__name__))
        if isinstance(event, sec.SectionFull) and event.idstr == "timer":
            return [sec.SectionFull(section_id=event.section_id, idstr="tymer", instance_id=0, version_id=9)]
        if isinstance(event, hdr.Configuration):
            return [hdr.Configuration(machine="pc-q35-9.9")]
        return [] if isinstance(event, sec.VmDescription) else [event]

    settings = SourceSettings.for_machine("pc-q35-10.0", change=change)
    source, answerer = MigrationSource(small(), settings), Answerer()
    drive(source, answerer)
    answerer.finish()
    fulls = [event.idstr for _, event in answerer.told if isinstance(event, sec.SectionFull)]
    assert fulls[0] == "tymer"
    assert (hdr.Configuration(machine="pc-q35-9.9")) in [event for _, event in answerer.told]
    assert ("main", "VmDescription") in seen
    assert sec.VmDescription not in kinds(answerer)

    seen.clear()
    settings = SourceSettings.for_machine(
        "pc-q35-11.1", change=change, return_path=True, postcopy=Postcopy.STARTED
    )
    source, answerer = MigrationSource(small("postcopy"), settings), Answerer()
    drive(source, answerer)
    assert ("main", "PostcopyListen") in seen
    assert ("main", "Packaged") in seen
    assert "tymer" in [event.idstr for _, event in answerer.told if isinstance(event, sec.SectionFull)]


def test_machines_decide() -> None:
    old = SourceSettings.for_machine("pc-i440fx-7.2")
    assert (old.sync_mode, old.stale_packets, old.zero_page_detection) == (
        SyncMode.PER_SECTION, True, ZeroPages.LEGACY,
    )  # fmt: skip
    assert (old.switchover_start, old.preempt_pre_7_2, old.switchover_ack_legacy) == (False, True, True)
    new = SourceSettings.for_machine("pc-q35-11.1")
    assert (new.sync_mode, new.stale_packets, new.switchover_ack_legacy) == (SyncMode.PER_ROUND, False, False)
    assert SourceSettings.for_machine("microvm").switchover_start
    assert not SourceSettings.for_machine("microvm", version=(5, 2)).switchover_start


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"multifd_channels": 256}, "0 to 255"),
        ({"multifd_compression": "qpl"}, "none, zlib, zstd"),
        ({"postcopy": Postcopy.ADVISED}, "postcopy needs a return path"),
        ({"switchover_ack": True}, "switchover-ack needs"),
        ({"postcopy_preempt": True}, "preempt needs postcopy"),
        ({"multifd_channels": 1, "xbzrle": True}, "exclude each other"),
        ({"postcopy": Postcopy.STARTED, "return_path": True, "xbzrle": True}, "no xbzrle in postcopy"),
        ({"mapped_ram": True, "compress": True}, "mapped-ram goes alone"),
        ({"rewritten": -1}, "not negative"),
    ],
)
def test_settings_that_no_source_has(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(LocalProtocolError, match=problem):
        SourceSettings(**given)


def test_a_method_that_cannot_be_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LocalProtocolError, match="no compressor"):
        open_packer(mfd.MultifdFlag.QPL, 1)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(LocalProtocolError, match="install zstandard"):
        open_packer(mfd.MultifdFlag.ZSTD, 1)


def test_orders() -> None:
    assert list(in_order(range(4), PageOrder.ASCENDING)) == [0, 1, 2, 3]
    assert list(in_order(range(4), PageOrder.DESCENDING)) == [3, 2, 1, 0]
    assert list(in_order(range(5), PageOrder.SCATTERED)) == [1, 3, 0, 2, 4]


def test_older_contents_differ_in_few_places() -> None:
    page = bytes(range(256)) * 16
    before = older(page)
    assert len(before) == 4096
    assert 0 < sum(a != b for a, b in zip(page, before, strict=True)) < 64


def with_section(idstr: str) -> MachineImage:
    """An image with a live section that has a part."""
    bitmaps = recorded("11.1-dirty-bitmaps")
    (there,) = bitmaps.live
    start = there.start
    section = LiveSection(
        sec.SectionStart(section_id=start.section_id, idstr=idstr, instance_id=0, version_id=1)
    )
    chunk = DirtyBitmapChunk(flags=1, node_alias=None, bitmap_alias=None, node="q0", bitmap="bm0")
    section.setup, section.parts, section.end = there.setup, [[chunk]], there.end
    return replace(bitmaps, live=(section,))


def test_live_sections_go_on_in_their_order() -> None:
    taken = with_section("dirty-bitmap")
    precopy = sent(taken, (11, 1), m.known((11, 1), "dirty-bitmaps"))
    names = [type(event).__name__ for _, event in precopy.told]
    last_part = len(names) - names[::-1].index("SectionPart") - 1
    assert last_part < names.index("SwitchoverStart")

    settings = SourceSettings.for_machine(taken.machine, return_path=True, postcopy=Postcopy.STARTED)
    source, answerer = MigrationSource(taken, settings), Answerer()
    drive(source, answerer)
    assert source.phase is SourcePhase.COMPLETED
    ends = [n for n, (_, event) in enumerate(answerer.told) if isinstance(event, sec.SectionEnd)]
    run = next(n for n, (_, event) in enumerate(answerer.told) if isinstance(event, cmd.PostcopyRun))
    assert len(ends) == 2
    assert ends[0] > run
    same_memory(taken, answerer)


@pytest.mark.parametrize("has_end", [True, False])
def test_handlers_that_cannot_wait_end_before_the_package(has_end: bool) -> None:
    taken = with_section("vfio-like")
    if not has_end:
        taken.live[0].end = None
    names: list[str] = []

    def change(channel: str, event: Record) -> list[Record]:
        names.append(type(event).__name__)
        return [event]

    settings = SourceSettings.for_machine(
        taken.machine, return_path=True, postcopy=Postcopy.STARTED, change=change
    )
    source = MigrationSource(taken, settings)
    while source.next_output({"main"}) is not None:
        pass
    before = names[: names.index("PostcopyListen")]
    assert ("SectionEnd" in before) is has_end
    assert before.count("SectionStart") == 2
    assert "DirtyBitmapChunk" in before[before.index("RamPages") :]


def test_what_machines_may_leave_out() -> None:
    """No configuration section, no footers, no description; device state that comes before RAM."""
    taken = replace(
        recorded(Q35),
        configuration=None,
        footers=False,
        early=recorded(Q35).devices[:1],
        vmdesc=None,
        page_bits=12,
    )
    events: list[type[Record]] = []

    def change(channel: str, event: Record) -> list[Record]:
        events.append(type(event))
        return [event, cmd.PackageEnd()]  # which has no bytes

    for keeps in (False, True):
        if keeps:
            taken = replace(taken, configuration=recorded(Q35).configuration, footers=True)
        source = MigrationSource(taken, SourceSettings.for_machine("pc-q35-11.1", change=change))
        while source.next_output({"main"}) is not None:
            pass
        assert events[0] is hdr.FileHeader
        assert (hdr.Configuration in events) is (hdr.ConfigurationPageBits in events) is keeps
        assert (sec.SectionFooter in events) is keeps
        assert events.index(sec.SectionFull) < events.index(sec.SectionStart)
        assert sec.VmDescription not in events
        events.clear()


def test_parts_of_live_sections_are_kept() -> None:
    """A postcopy of dirty bitmaps has PARTs."""
    start = sec.SectionStart(section_id=3, idstr="dirty-bitmap", instance_id=0, version_id=1)
    chunk = DirtyBitmapChunk(flags=1, node_alias=None, bitmap_alias=None, node="q0", bitmap="bm0")
    events = [
        *m.start(), start, chunk, sec.SectionFooter(section_id=3),
        sec.SectionPart(section_id=3), chunk, sec.SectionFooter(section_id=3),
        sec.SectionEnd(section_id=3), chunk, sec.SectionFooter(section_id=3), sec.EndOfFile(),
    ]  # fmt: skip
    collector = ImageCollector()
    for event in events:
        collector.apply(Told("main", event, 1, 1, 1))
    (section,) = collector.finish().live
    assert (section.setup, section.parts, section.end) == ([chunk], [[chunk]], [chunk])
