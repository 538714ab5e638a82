"""What is migrated, out of recordings: configuration, RAM, live sections, device state; what it cannot be."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from qmig import limits
from qmig._wire import Record
from qmig.errors import LocalProtocolError
from qmig.legacy import header as hdr
from qmig.legacy import multifd as mfd
from qmig.legacy import sections as sec
from qmig.legacy.connection import Told
from qmig.legacy.dirtybitmap import DirtyBitmapStart
from qmig.legacy.machine_image import ImageCollector, image_of
from qmig.testing import migrations as m
from qmig.testing.images import recorded, small


def fed(*events: Record, channel: str = "main") -> ImageCollector:
    collector = ImageCollector()
    for event in events:
        collector.apply(Told(channel, event, 1, 1, 1))
    return collector


def test_all_of_a_precopy() -> None:
    image = small()
    assert image.machine == "pc-q35-10.0"
    assert (image.page_size, image.footers, image.capabilities) == (4096, True, ())
    assert [(b.idstr, b.used_length) for b in image.blocks] == [("m0", 16 * 4096), ("pc.bios", 2 * 4096)]
    assert image.blocks[0].read(4096, 3) == b"\2\2\2"
    assert [d.section.idstr for d in image.devices] == ["timer", "0000:00:02.0/dev", "globalstate"]
    assert image.vmdesc is not None
    assert not image.early
    assert not image.live


@pytest.mark.parametrize("story", ["precopy", "multifd", "mapped_ram", "postcopy", "xbzrle"])
def test_the_way_of_travelling_does_not_show(story: str) -> None:
    image = small(story)
    assert [d.section.idstr for d in image.devices] == ["timer", "0000:00:02.0/dev", "globalstate"]
    assert [b.idstr for b in image.blocks] == ["m0", "pc.bios"]
    assert image.blocks[1].sent


def test_a_recovered_postcopy() -> None:
    image = small("recovery")
    assert image.blocks[0].page_size == 4 * 4096
    assert image.vmdesc is None


def test_configuration_live_sections_and_early_devices() -> None:
    bitmaps = recorded("11.1-dirty-bitmaps")
    (section,) = bitmaps.live
    assert section.postcopiable
    assert isinstance(section.setup[0], DirtyBitmapStart)
    assert section.end
    with_uuid = recorded("11.1-validate-uuid")
    assert with_uuid.uuid_validated
    assert with_uuid.uuid == bytes.fromhex("00112233445566778899aabbccddeeff")
    shared = recorded("10.0-ignore-shared")
    assert shared.capabilities == ("x-ignore-shared",)
    assert [block.idstr for block in shared.blocks if not block.sent] == ["mem"]
    arm = recorded("11.1-precopy-arm-virt")
    assert (arm.page_bits, arm.page_size) == (None, 4096) or arm.page_size == 1 << (arm.page_bits or 0)


def test_the_last_attempt_counts() -> None:
    first = m.precopy()
    cut = first.bytes_of("main")[:200]
    second = {f"{name}-2": m.multifd().bytes_of(name) for name in ("main", "multifd-0", "multifd-1")}
    image = image_of({"main": cut, **second})
    assert image.uuid == m.UUID
    assert [block.idstr for block in image.blocks] == ["m0", "pc.bios"]


def test_other_channels_are_passed_over() -> None:
    for channel in ("rp", "main.rp", "tls-1", "cpr"):
        assert not fed(hdr.Configuration(machine="x"), channel=channel)._configured


def test_no_end_no_image() -> None:
    story = m.precopy()
    story.drop(story.at(sec.EndOfFile), 2)
    with pytest.raises(LocalProtocolError, match="ends before the guest is complete"):
        fed(*(event for channel, event in story if channel == "main")).finish()


def test_no_ram_no_image() -> None:
    with pytest.raises(LocalProtocolError, match="has no RAM"):
        fed(sec.EndOfFile()).finish()


@pytest.mark.parametrize(
    ("event", "channel", "problem"),
    [
        (
            mfd.MultifdDeviceState(
                flags=0x40, idstr_field=b"vfio\0".ljust(256, b"\0"), instance_id=0, data=b"x"
            ),
            "multifd-0",
            "came over multifd",
        ),
        (sec.UnreadState(data=b"x"), "main", "unknown extent"),
    ],
)
def test_what_an_image_cannot_hold(event: Record, channel: str, problem: str) -> None:
    with pytest.raises(LocalProtocolError, match=problem):
        fed(event, channel=channel)


def test_state_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DEVICE_STATE", 100)
    with pytest.raises(LocalProtocolError, match="more than 100 bytes"):
        small.__wrapped__("precopy")


def test_sections_of_unknown_handlers_are_dropped_where_nothing_started_them() -> None:
    """A PART of `ram` has no live section of its own here, and its records go to memory."""
    collector = fed(*plain(m.start()), sec.SectionPart(section_id=1), sec.SectionEnd(section_id=1))
    assert not collector._live


def plain(events: Iterable[Record]) -> list[Record]:
    return list(events)


def test_early_devices_and_page_bits() -> None:
    events = [
        hdr.FileHeader(version=3),
        hdr.Configuration(machine="virt-9.0"),
        hdr.Subsection(name="configuration/target-page-bits", version_id=1),
        hdr.ConfigurationPageBits(target_page_bits=12),
        *m.full(5, "early", 0, 1, b"abc"),
        *m.start(),
        *m.full(6, "late", 0, 1, b"defg"),
        sec.EndOfFile(),
    ]
    image = fed(*events).finish()
    assert image.page_bits == 12
    assert [(d.section.idstr, d.data) for d in image.early] == [("early", b"abc")]
    assert [(d.section.idstr, d.data) for d in image.devices] == [("late", b"defg")]
    assert not image.blocks[0].sent
    assert [type(e) for e in image.early[0].events(footers=False)] == [sec.SectionFull, sec.DeviceState]
