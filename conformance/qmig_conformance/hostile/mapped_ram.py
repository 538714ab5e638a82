"""Files of `mapped-ram`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from qmig import Record
from qmig.legacy.mappedram import MappedRamBitmap, MappedRamHeader, MappedRamPages
from qmig.legacy.ram import RamFlag, RamMultifdFlush, RamPage
from qmig.testing.scenario import Scenario
from qmig.testing.scenarios import scenario
from qmig_conformance.hostile import ram
from qmig_conformance.hostile.plays import alone, with_capabilities
from qmig_conformance.hostile.script import Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Good, Play

SETTINGS: Final = replace(scenario("mapped-ram"), memory=8)
#: a plain stream in a file, of the same machine
PLAIN: Final = replace(scenario("precopy-file"), memory=8)
TABLE: Final = Table("mapped_ram", SETTINGS)

Change = Callable[[Script], Script | bytes]


def _same(settings: Scenario) -> Scenario:
    return settings


def row(
    value: str, *violates: str, settings: Callable[[Scenario], Scenario] = _same
) -> Callable[[Change], Change]:
    """Declares a change of the file."""

    def declare(change: Change) -> Change:
        def make(good: Good) -> Play:
            new = change(Script.main(good.channels["main"]))
            data = new if isinstance(new, bytes) else new.data()
            return alone(settings(good.settings), data)

        TABLE.add(value, make, *violates)
        return change

    return declare


def header(script: Script, **values: Any) -> Script:
    """The first block's header has other values."""
    return script.change(script.find(MappedRamHeader), **values)


@row("mapped-ram-control")
def control(script: Script) -> Script:
    return script


@row("mapped-ram-multifd-on-control", settings=lambda s: with_capabilities(s, multifd=True))
def with_multifd(script: Script) -> Script:
    return script


@row("mapped-ram-version-0", "LEG-MAP-011")
def version_0(script: Script) -> Script:
    return header(script, version=0)


@row("mapped-ram-version-2", "LEG-MAP-011")
def version_2(script: Script) -> Script:
    return header(script, version=2)


@row("mapped-ram-page-size-8192", "LEG-MAP-012")
def page_size_8192(script: Script) -> Script:
    return header(script, page_size=8192)


@row("mapped-ram-page-size-0", "LEG-MAP-012")
def page_size_0(script: Script) -> Script:
    return header(script, page_size=0)


@row("mapped-ram-bitmap-offset-0", "LEG-MAP-013", "LEG-MAP-016")
def bitmap_at_0(script: Script) -> Script:
    return header(script, bitmap_offset=0)


@row("mapped-ram-bitmap-offset-behind-the-file", "LEG-MAP-013")
def bitmap_behind(script: Script) -> Script:
    return header(script, bitmap_offset=1 << 40)


@row("mapped-ram-pages-offset-unaligned", "LEG-MAP-014", "LEG-MAP-015")
def pages_unaligned(script: Script) -> Script:
    found = script.record(script.find(MappedRamHeader))
    return header(script, pages_offset=found.pages_offset + 512)


@row("mapped-ram-pages-offset-behind-the-file", "LEG-MAP-014")
def pages_behind(script: Script) -> Script:
    return header(script, pages_offset=1 << 40)


@row("mapped-ram-pages-offset-0", "LEG-MAP-014", "LEG-MAP-016")
def pages_at_0(script: Script) -> Script:
    return header(script, pages_offset=0)


def _bits(script: Script, byte: bytes) -> Script:
    place = script.find(MappedRamBitmap)
    return script.write(place, byte * len(script[place].data))


@row("mapped-ram-bitmap-all-ones", "LEG-MAP-021", "LEG-MAP-022")
def all_ones(script: Script) -> Script:
    return _bits(script, b"\xff")


@row("mapped-ram-bitmap-all-zeros", "LEG-MAP-021")
def all_zeros(script: Script) -> Script:
    return _bits(script, b"\0")


@row("mapped-ram-file-cut-in-the-header", "LEG-MAP-010")
def cut_in_the_header(script: Script) -> bytes:
    return script.before(script.find(MappedRamHeader), 10)


@row("mapped-ram-file-cut-in-the-bitmap", "LEG-MAP-021")
def cut_in_the_bitmap(script: Script) -> bytes:
    return script.before(script.find(MappedRamBitmap), 4)


@row("mapped-ram-file-cut-in-the-pages", "LEG-MAP-017")
def cut_in_the_pages(script: Script) -> bytes:
    return script.before(script.find(MappedRamPages), ram.PAGE + 904)


def _in_part(script: Script, record: Record) -> Script:
    return ram.in_part(script, record)


@row("mapped-ram-a-page-record-in-part", "LEG-MAP-023")
def page_record(script: Script) -> Script:
    return _in_part(script, RamPage(word=int(RamFlag.PAGE), block=ram.BLOCK, data=bytes(ram.PAGE)))


@row("mapped-ram-a-zero-record-in-part", "LEG-MAP-023")
def zero_record(script: Script) -> Script:
    return _in_part(script, ram.zero_page())


@row("mapped-ram-a-multifd-flush-record-in-part", "LEG-MAP-023")
def flush_record(script: Script) -> Script:
    return _in_part(script, RamMultifdFlush())


@row(
    "mapped-ram-capability-off-at-the-destination",
    "LEG-MAP-001",
    settings=lambda s: with_capabilities(s, mapped_ram=False),
)
def capability_off(script: Script) -> Script:
    return script


@row("mapped-ram-offset-where-no-stream-begins", "LEG-MAP-025", settings=lambda s: replace(s, offset=0x1000))
def wrong_offset(script: Script) -> Script:
    return script


@row("mapped-ram-empty-file", "LEG-HDR-001")
def empty(script: Script) -> bytes:
    return b""


PLAIN_TABLE: Final = Table("mapped_ram", PLAIN)


def _plain(good: Good) -> Play:
    return alone(with_capabilities(good.settings, mapped_ram=True), good.channels["main"])


PLAIN_TABLE.add("mapped-ram-plain-stream-capability-on", _plain, "LEG-MAP-001")
