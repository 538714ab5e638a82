"""The `ram` section of a precopy: block list, page records, marks, cuts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qmig import Record
from qmig.legacy.ram import (
    RamBlockEntry,
    RamCompressedPage,
    RamEos,
    RamFlag,
    RamHook,
    RamMemSize,
    RamMultifdFlush,
    RamPage,
    RamPages,
    RamXbzrlePage,
    RamZeroPage,
)
from qmig.legacy.sections import SectionFull, SectionPart, SectionStart
from qmig.testing.scenarios import scenario
from qmig_conformance.hostile.plays import alone
from qmig_conformance.hostile.script import Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Good, Play

SETTINGS: Final = scenario("precopy-sink")
PAGE: Final = 4096
TABLE: Final = Table("ram", SETTINGS)
#: a block that every x86 machine has, and its name
BLOCK: Final = "pc.ram"

Change = Callable[[Script], Script | bytes]


def row(value: str, *violates: str, end: bool = True) -> Callable[[Change], Change]:
    """Declares a change of main."""

    def declare(change: Change) -> Change:
        def make(good: Good) -> Play:
            new = change(Script.main(good.channels["main"]))
            return alone(good.settings, new if isinstance(new, bytes) else new.data(), end=end)

        TABLE.add(value, make, *violates)
        return change

    return declare


# -- places ----------------------------------------------------------------------------------------------


def start(script: Script) -> int:
    """SECTION_START of `ram`."""
    return script.find(SectionStart, idstr="ram")


def section_id(script: Script) -> int:
    """The number that the source gave to `ram`."""
    number: int = script.record(start(script)).section_id
    return number


def first_part(script: Script) -> int:
    """The first PART of `ram`."""
    return script.find(SectionPart, section_id=section_id(script))


def first_pages(script: Script) -> int:
    """The first batch of pages."""
    return script.find(RamPages)


def listed(script: Script) -> tuple[int, int]:
    """The block list: the place of MEM_SIZE, and the place behind the last entry."""
    return script.find(RamMemSize), script.find(RamBlockEntry, -1) + 1


def total_of(script: Script) -> int:
    """The sum of the list, in bytes."""
    total: int = script.record(script.find(RamMemSize)).total
    return total


def mem_size(total: int) -> RamMemSize:
    return RamMemSize(word=total | RamFlag.MEM_SIZE)


def in_part(script: Script, *records: bytes | Record) -> Script:
    """Puts records before the first page."""
    return script.put(first_part(script) + 1, *records)


def zero_page(offset: int = 0, *, block: str = BLOCK, fill: int = 0, flags: int = 0) -> RamZeroPage:
    return RamZeroPage(word=offset | RamFlag.ZERO | flags, block=block, fill=fill)


def difference(delta: bytes, offset: int = PAGE) -> RamXbzrlePage:
    return RamXbzrlePage(word=offset | RamFlag.XBZRLE, block=BLOCK, delta=delta)


def word(value: int) -> bytes:
    return value.to_bytes(8, "big")


# -- the block list --------------------------------------------------------------------------------------


def _resized(script: Script, by: int) -> Script:
    place = script.find(RamBlockEntry)
    script = script.change(place, used_length=script.record(place).used_length + by)
    return script.write(script.find(RamMemSize), mem_size(total_of(script) + by))


@row("ram-block-longer-than-here", "LEG-RAM-019")
def longer(script: Script) -> Script:
    return _resized(script, 1 << 24)


@row("ram-block-shorter-than-here", "LEG-RAM-019")
def shorter(script: Script) -> Script:
    return _resized(script, -(1 << 20))


@row("ram-block-name-unknown", "LEG-RAM-019")
def renamed(script: Script) -> Script:
    place = script.find(RamBlockEntry)
    return script.change(place, idstr="q" + script.record(place).idstr[1:])


@row("ram-resizable-block-longer-than-its-maximum", "LEG-RAM-019")
def beyond_its_maximum(script: Script) -> Script:
    place = script.find(RamBlockEntry, idstr="/rom@etc/acpi/tables")
    more = 1 << 24
    script = script.change(place, used_length=script.record(place).used_length + more)
    return script.write(script.find(RamMemSize), mem_size(total_of(script) + more))


@row("ram-resizable-block-of-2-64-1-bytes", "LEG-RAM-019", "LEG-RAM-012")
def endless_block(script: Script) -> Script:
    """The last entry, which is a table of the firmware's, is as long as a number can say."""
    place = script.find(RamBlockEntry, -1)
    return script.change(place, used_length=(1 << 64) - 1)


@row("ram-total-smaller-than-the-blocks", "LEG-RAM-010", "LEG-RAM-012")
def total_too_small(script: Script) -> Script:
    return script.write(script.find(RamMemSize), mem_size(total_of(script) - PAGE))


@row("ram-total-of-2-63", "LEG-RAM-010", "LEG-RAM-012")
def total_of_2_63(script: Script) -> Script:
    return script.write(script.find(RamMemSize), mem_size(1 << 63))


@row("ram-total-ends-inside-a-block", "LEG-RAM-012", "LEG-RAM-015")
def total_inside_a_block(script: Script) -> Script:
    """The list goes on with a block too long for what is left of the total."""
    _, stop = listed(script)
    last = script.record(stop - 1)
    more = RamBlockEntry(idstr=last.idstr, used_length=last.used_length)
    half = total_of(script) + last.used_length // 2
    return script.put(stop, more).write(script.find(RamMemSize), mem_size(half))


@row("ram-empty-block-list", "LEG-RAM-010", "LEG-RAM-014")
def empty_list(script: Script) -> Script:
    place, stop = listed(script)
    return script.drop(place, stop).put(place, mem_size(0))


@row("ram-a-block-left-out-of-the-list", "LEG-RAM-010")
def left_out(script: Script) -> Script:
    place, stop = listed(script)
    short = total_of(script) - script.record(stop - 1).used_length
    return script.drop(stop - 1).write(place, mem_size(short))


@row("ram-a-block-twice-in-the-list", "LEG-RAM-013")
def block_twice(script: Script) -> Script:
    place, stop = listed(script)
    last = script.record(stop - 1)
    return script.put(stop, last).write(place, mem_size(total_of(script) + last.used_length))


@row("ram-page-before-any-block-list", "LEG-RAM-014")
def page_first(script: Script) -> Script:
    page = RamPage(word=int(RamFlag.PAGE), block=BLOCK, data=bytes(PAGE))
    return script.put(script.find(RamMemSize), page)


@row("page-mem-size-in-the-middle", "LEG-RAM-014")
def list_again(script: Script) -> Script:
    place, stop = listed(script)
    return in_part(script, script.data(place, stop))


# -- flags and marks -------------------------------------------------------------------------------------


@row("page-unknown-flag-0x800", "LEG-RAM-002", "LEG-RAM-043")
def unknown_flag(script: Script) -> Script:
    return in_part(script, word(0x800))


@row("page-flag-0x001-obsolete", "LEG-RAM-003")
def obsolete_flag(script: Script) -> Script:
    return in_part(script, word(RamFlag.FULL))


@row("ram-flags-0", "LEG-RAM-002")
def no_flag(script: Script) -> Script:
    return in_part(script, word(0))


@row("ram-page-and-zero", "LEG-RAM-002")
def two_flags(script: Script) -> Script:
    return in_part(script, word(RamFlag.PAGE | RamFlag.ZERO))


@row("page-hook-flag", "LEG-RAM-058", "LEG-RAM-022")
def hook(script: Script) -> Script:
    return in_part(script, RamHook())


@row("page-multifd-flush-capability-off", "LEG-RAM-057", "LEG-RAM-021")
def flush(script: Script) -> Script:
    return in_part(script, RamMultifdFlush())


@row("ram-eos-with-address-bits-and-continue", "LEG-RAM-020")
def eos_with_more(script: Script) -> Script:
    return script.write(script.find(RamEos), RamEos(word=PAGE | RamFlag.EOS | RamFlag.CONTINUE))


@row("ram-no-eos-before-the-footer", "LEG-RAM-020")
def no_eos(script: Script) -> Script:
    return script.drop(script.find(RamEos))


@row("ram-no-pages-at-all", "LEG-RAM-052")
def no_pages(script: Script) -> Script:
    return script.drop(first_part(script), script.find(SectionFull, start=first_part(script)))


# -- pages -----------------------------------------------------------------------------------------------


@row("page-continue-before-any-block", "LEG-RAM-041")
def continue_first(script: Script) -> Script:
    flags = PAGE | RamFlag.CONTINUE | RamFlag.PAGE
    return in_part(script, RamPage(word=int(flags), data=bytes(PAGE)))


@row("page-offset-beyond-the-block", "LEG-RAM-042")
def beyond(script: Script) -> Script:
    return in_part(script, RamPage(word=0x7FFFFFFF000 | RamFlag.PAGE, block=BLOCK, data=bytes(PAGE)))


@row("page-block-name-unknown", "LEG-RAM-040")
def unknown_block(script: Script) -> Script:
    return in_part(script, RamPage(word=PAGE | RamFlag.PAGE, block="zzz", data=bytes(PAGE)))


@row("ram-block-name-of-length-0", "LEG-RAM-040")
def nameless(script: Script) -> Script:
    return in_part(script, zero_page(PAGE, block=""))


@row("ram-unaligned-offset-bit-0x400", "LEG-RAM-043")
def unaligned(script: Script) -> Script:
    return in_part(script, zero_page(PAGE, flags=0x400))


@row("ram-zero-page-fill-0x5a", "LEG-RAM-053", "LEG-RAM-045")
def filled(script: Script) -> Script:
    return in_part(script, zero_page(PAGE, fill=0x5A))


@row("page-compress-capability-off", "LEG-RAM-056", "LEG-RAM-033")
def compressed(script: Script) -> Script:
    flags = PAGE | RamFlag.COMPRESS_PAGE
    return in_part(script, RamCompressedPage(word=flags, block=BLOCK, deflated=bytes(64)))


@row("page-compress-length-0xffffffff", "LEG-RAM-056", "LEG-RAM-035")
def compressed_without_end(script: Script) -> Script:
    head = RamCompressedPage(word=PAGE | RamFlag.COMPRESS_PAGE, block=BLOCK, deflated=b"").encode()
    return in_part(script, head[:-4] + b"\xff\xff\xff\xff" + bytes(64))


@row("page-xbzrle-capability-off", "LEG-RAM-054", "LEG-RAM-036")
def xbzrle_cut(script: Script) -> Script:
    """A difference that ends where the length of a run is to begin."""
    return in_part(script, difference(b"\x00\x01\x01\xaa"))


@row("page-xbzrle-bad-encoding", "LEG-RAM-036", "LEG-RAM-038")
def xbzrle_bad(script: Script) -> Script:
    return in_part(script, difference(b"\xff" * 6))


@row("ram-xbzrle-good", "LEG-RAM-054")
def xbzrle(script: Script) -> Script:
    return in_part(script, difference(b"\x02\x01\xff"))


@row("ram-xbzrle-empty", "LEG-RAM-036")
def xbzrle_empty(script: Script) -> Script:
    return in_part(script, difference(b""))


@row("ram-xbzrle-encoding-byte-2", "LEG-RAM-032")
def xbzrle_other(script: Script) -> Script:
    raw = difference(b"\x00\x01\x02").encode()
    at = len(raw) - 6
    return in_part(script, raw[:at] + b"\x02" + raw[at + 1 :])


@row("ram-xbzrle-length-4097", "LEG-RAM-034")
def xbzrle_long(script: Script) -> Script:
    return in_part(script, difference(bytes(PAGE + 1)))


# -- cuts ------------------------------------------------------------------------------------------------


@row("truncated-after-ram-section-header", "LEG-RAM-014")
def cut_behind_the_opening(script: Script) -> bytes:
    return script.before(start(script) + 1)


@row("truncated-inside-ram-block-list", "LEG-RAM-011")
def cut_in_the_list(script: Script) -> bytes:
    return script.before(script.find(RamBlockEntry), 4)


@row("truncated-after-ram-block-list", "LEG-RAM-020")
def cut_behind_the_list(script: Script) -> bytes:
    return script.before(listed(script)[1])


@row("truncated-inside-page-header", "LEG-RAM-001")
def cut_in_a_word(script: Script) -> bytes:
    return script.before(first_pages(script), 4)


@row("truncated-inside-ram-pages", "LEG-RAM-031")
def cut_in_a_page(script: Script) -> bytes:
    return script.before(*in_a_page(script))


def in_a_page(script: Script) -> tuple[int, int]:
    """A place inside the content of a page."""
    for place in script.places(RamPages):
        if script.record(place).normal:
            number = 0
            while not isinstance(script.single(place, number).record(place + (number > 0)), RamPage):
                number += 1
            before = len(script.single(place, number)[place].data) if number else 0
            return place, before + PAGE // 2
    raise AssertionError("a migration without a page")
