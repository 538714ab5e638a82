"""Dirty bitmaps, and disks that are sent with the guest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmig.legacy.block import BlockDeviceData, BlockEos, BlockFlag, BlockProgress
from qmig.legacy.dirtybitmap import (
    DirtyBitmapBits,
    DirtyBitmapChunk,
    DirtyBitmapComplete,
    DirtyBitmapFlag,
    DirtyBitmapStart,
)
from qmig.legacy.sections import SectionPart, SectionStart
from qmig.testing.scenarios import scenario
from qmig.testing.variants import parts
from qmig_conformance.hostile.plays import alone, with_capabilities
from qmig_conformance.hostile.script import Absent, Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Good, Play

BITMAPS: Final = Table("dirty_bitmap", scenario("dirty-bitmaps"))
DISKS: Final = Table("block", scenario("block-migration"))

Change = Callable[[Script], Script | bytes]


def row(table: Table, value: str, *violates: str) -> Callable[[Change], Change]:
    """Declares a change of main."""

    def declare(change: Change) -> Change:
        def make(good: Good) -> Play:
            new = change(Script.main(good.channels["main"]))
            return alone(good.settings, new if isinstance(new, bytes) else new.data())

        table.add(value, make, *violates)
        return change

    return declare


def with_fields(script: Script, place: int, **values: bytes) -> Script:
    """The record there with other bytes in these fields."""
    found = parts(script.record(place))
    return script.write(place, b"".join(values.get(name, raw) for name, raw in found))


# -- dirty bitmaps ---------------------------------------------------------------------------------------


def chunks(script: Script) -> int:
    """The first chunk of the first section `dirty-bitmap`."""
    return script.find(SectionStart, idstr="dirty-bitmap") + 1


def bits(script: Script) -> int:
    """The first chunk with bits in it."""
    for place in script.places(DirtyBitmapBits):
        if script.record(place).bits:
            return place
    raise Absent("no bit of the bitmap is set")


@row(BITMAPS, "dirty-bitmap-control")
def control(script: Script) -> Script:
    return script


@row(BITMAPS, "dirty-bitmap-unknown-node", "LEG-DBM-002")
def unknown_node(script: Script) -> Script:
    place = script.find(DirtyBitmapStart)
    return script.change(place, node_alias="Z" + script.record(place).node_alias[1:])


@row(BITMAPS, "dirty-bitmap-reserved-start-flags", "LEG-DBM-011")
def reserved_flags(script: Script) -> Script:
    return with_fields(script, script.find(DirtyBitmapStart), start_flags=b"\x09")


def _granularity(script: Script, value: int) -> Script:
    return script.change(script.find(DirtyBitmapStart), granularity=value)


@row(BITMAPS, "dirty-bitmap-granularity-0", "LEG-DBM-010")
def granularity_0(script: Script) -> Script:
    return _granularity(script, 0)


@row(BITMAPS, "dirty-bitmap-granularity-3", "LEG-DBM-010")
def granularity_3(script: Script) -> Script:
    return _granularity(script, 3)


@row(BITMAPS, "dirty-bitmap-flags-of-two-bytes", "LEG-DBM-003")
def two_bytes(script: Script) -> Script:
    return script.put(chunks(script), b"\x80\x01")


@row(BITMAPS, "dirty-bitmap-flags-0", "LEG-DBM-001")
def no_flags(script: Script) -> Script:
    return script.put(chunks(script), b"\0")


@row(BITMAPS, "dirty-bitmap-complete-before-any-name", "LEG-DBM-012", "LEG-DBM-002")
def complete_first(script: Script) -> Script:
    return script.put(chunks(script), DirtyBitmapComplete(flags=int(DirtyBitmapFlag.COMPLETE)))


@row(BITMAPS, "dirty-bitmap-complete-twice", "LEG-DBM-012")
def complete_twice(script: Script) -> Script:
    place = script.find(DirtyBitmapComplete)
    return script.put(place, script[place].data)


@row(BITMAPS, "dirty-bitmap-start-twice", "LEG-DBM-010")
def start_twice(script: Script) -> Script:
    return script.put(chunks(script), script[script.find(DirtyBitmapStart)].data)


def _length(script: Script, size: int) -> Script:
    place = bits(script)
    content = script.record(place).bits
    return with_fields(script, place, bits=size.to_bytes(8, "big") + content)


@row(BITMAPS, "dirty-bitmap-bits-of-10241-bytes", "LEG-DBM-013")
def bits_10241(script: Script) -> Script:
    return _length(script, 10241)


@row(BITMAPS, "dirty-bitmap-bits-of-2-63-bytes", "LEG-DBM-013")
def bits_2_63(script: Script) -> Script:
    return _length(script, 1 << 63)


@row(BITMAPS, "dirty-bitmap-range-beyond-the-disk", "LEG-DBM-013")
def range_beyond(script: Script) -> Script:
    return script.change(bits(script), start_sector=1 << 40)


@row(BITMAPS, "dirty-bitmap-bits-too-short-for-the-range", "LEG-DBM-013", "LEG-DBM-014")
def bits_too_short(script: Script) -> Script:
    return script.change(bits(script), bits=b"")


@row(BITMAPS, "dirty-bitmap-cut-in-the-section", "LEG-DBM-001")
def cut(script: Script) -> bytes:
    place = bits(script)
    record = script.record(place)
    head = DirtyBitmapChunk(
        flags=record.flags, node_alias=record.node_alias, bitmap_alias=record.bitmap_alias
    )
    return script.before(place, len(head.encode()) + 5)


def _capability_off(good: Good) -> Play:
    return alone(with_capabilities(good.settings, dirty_bitmaps=False), good.channels["main"])


BITMAPS.add("dirty-bitmap-capability-off-at-the-destination", _capability_off, "LEG-PCP-002")

# -- disks -----------------------------------------------------------------------------------------------


def in_section(script: Script, *new: bytes) -> Script:
    """Records before those of the first PART of `block`."""
    opening = script.record(script.find(SectionStart, idstr="block"))
    return script.put(script.find(SectionPart, section_id=opening.section_id) + 1, *new)


def word(value: int) -> bytes:
    return value.to_bytes(8, "big")


@row(DISKS, "block-control")
def disk_control(script: Script) -> Script:
    return script


@row(DISKS, "block-unknown-device", "LEG-BLK-010")
def unknown_device(script: Script) -> Script:
    place = script.find(BlockDeviceData)
    return script.change(place, device="Z" + script.record(place).device[1:])


@row(DISKS, "block-flags-8-alone", "LEG-BLK-002", "LEG-BLK-011")
def zero_alone(script: Script) -> Script:
    return in_section(script, word(BlockFlag.ZERO_BLOCK))


@row(DISKS, "block-flags-0", "LEG-BLK-002", "LEG-BLK-001")
def disk_no_flags(script: Script) -> Script:
    return in_section(script, word(0))


@row(DISKS, "block-progress-200-percent", "LEG-BLK-012")
def progress(script: Script) -> Script:
    return in_section(script, BlockProgress(word=200 << 9 | BlockFlag.PROGRESS).encode())


@row(DISKS, "block-sector-behind-the-disk", "LEG-BLK-010")
def sector(script: Script) -> Script:
    place = script.find(BlockDeviceData)
    flags = script.record(place).word & 0x1FF
    return script.change(place, word=1 << 49 | flags)


@row(DISKS, "block-device-name-of-length-0", "LEG-BLK-010")
def nameless(script: Script) -> Script:
    """The bytes of the name stay."""
    place = script.find(BlockDeviceData)
    name = script.record(place).device.encode()
    return with_fields(script, place, device=b"\0" + name)


@row(DISKS, "block-cut-in-a-block", "LEG-BLK-011")
def cut_in_a_block(script: Script) -> bytes:
    return script.before(script.find(BlockDeviceData), 5000)


@row(DISKS, "block-eos-on-a-record-with-data", "LEG-BLK-013")
def eos_with_data(script: Script) -> Script:
    place = script.find(BlockDeviceData)
    return script.change(place, word=script.record(place).word | BlockFlag.EOS)


EOS: Final = BlockEos(word=int(BlockFlag.EOS))
