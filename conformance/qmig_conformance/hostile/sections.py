"""Sections of main: types, names, ids, versions, footers, order, cuts, the end and what stands behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from qmig.legacy.header import Configuration, Subsection
from qmig.legacy.ram import RamEos
from qmig.legacy.sections import (
    DeviceState,
    EndOfFile,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionPart,
    VmDescription,
)
from qmig_conformance.hostile import ram
from qmig_conformance.hostile.plays import alone
from qmig_conformance.hostile.script import Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Good, Play

TABLE: Final = Table("sections", ram.SETTINGS)

Change = Callable[[Script], Script | bytes]


def row(
    value: str, *violates: str, end: bool = True, exit_on_error: bool | None = None
) -> Callable[[Change], Change]:
    """Declares a change of main."""

    def declare(change: Change) -> Change:
        def make(good: Good) -> Play:
            new = change(Script.main(good.channels["main"]))
            play = alone(good.settings, new if isinstance(new, bytes) else new.data(), end=end)
            return replace(play, exit_on_error=exit_on_error)

        TABLE.add(value, make, *violates)
        return change

    return declare


# -- places ----------------------------------------------------------------------------------------------


def first_items(script: Script) -> int:
    """Behind the configuration and its subsections."""
    return script.find(Configuration) + 1


def device(script: Script) -> int:
    """The first device that comes behind RAM."""
    return script.find(SectionFull, start=ram.start(script))


def state(script: Script) -> int:
    """Its state."""
    return script.find(DeviceState, start=device(script))


def device_footer(script: Script) -> int:
    return script.find(SectionFooter, start=device(script))


def setup_footer(script: Script) -> int:
    """The footer of the START of `ram`."""
    return script.find(SectionFooter, start=ram.start(script))


def whole(script: Script, place: int) -> bytes:
    """The bytes of the section that opens there."""
    return script.data(*script.section(place))


def eof(script: Script) -> int:
    return script.find(EndOfFile)


# -- types, names, ids -----------------------------------------------------------------------------------


@row("section-type-byte-0x55", "LEG-SEC-002", "LEG-SEC-001")
def unknown_type(script: Script) -> Script:
    place = ram.start(script)
    return script.write(place, b"\x55" + script[place].data[1:])


@row("end-of-stream-byte-replaced-by-0x0a", "LEG-SEC-030")
def other_end(script: Script) -> Script:
    return script.write(eof(script), b"\x0a")


@row("section-idstr-unknown", "LEG-SEC-010")
def unknown_handler(script: Script) -> Script:
    return script.change(ram.start(script), idstr="rax")


@row("ram-instance-1", "LEG-SEC-050", "LEG-RAM-004")
def ram_instance(script: Script) -> Script:
    return script.change(ram.start(script), instance_id=1)


@row("device-idstr-unknown", "LEG-SEC-054", "LEG-SEC-013")
def unknown_device(script: Script) -> Script:
    place = device(script)
    return script.change(place, idstr="Z" + script.record(place).idstr[1:])


@row("device-instance-unknown", "LEG-SEC-013")
def unknown_instance(script: Script) -> Script:
    return script.change(device(script), instance_id=77)


@row("idstr-of-length-0", "LEG-SEC-019")
def nameless(script: Script) -> Script:
    """The bytes of the name stay."""
    place = ram.start(script)
    raw = script[place].data
    return script.write(place, raw[:5] + b"\0" + raw[6:])


@row("section-version-99", "LEG-RAM-004", "LEG-SEC-050")
def ram_version_99(script: Script) -> Script:
    return script.change(ram.start(script), version_id=99)


@row("ram-version-3", "LEG-RAM-004", "LEG-SEC-050")
def ram_version_3(script: Script) -> Script:
    return script.change(ram.start(script), version_id=3)


@row("device-version-99", "LEG-SEC-013")
def device_version_99(script: Script) -> Script:
    return script.change(device(script), version_id=99)


@row("full-version-0", "LEG-SEC-013")
def device_version_0(script: Script) -> Script:
    return script.change(device(script), version_id=0)


@row("section-part-of-unknown-id", "LEG-SEC-015", "LEG-SEC-011")
def part_of_nothing(script: Script) -> Script:
    return script.change(ram.first_part(script), section_id=0x1234)


@row("start-with-the-section-id-of-a-device-footer-as-before", "LEG-SEC-026", "LEG-SEC-053")
def id_of_a_device(script: Script) -> Script:
    return script.change(ram.start(script), section_id=script.record(device(script)).section_id)


# -- footers ---------------------------------------------------------------------------------------------


@row("footer-byte-flipped", "LEG-SEC-020")
def footer_type(script: Script) -> Script:
    place = setup_footer(script)
    return script.write(place, b"\x7f" + script[place].data[1:])


@row("footer-id-differs", "LEG-SEC-021")
def footer_id(script: Script) -> Script:
    return script.change(setup_footer(script), section_id=0x99)


@row("footer-missing", "LEG-SEC-022", "LEG-SEC-020")
def no_footer(script: Script) -> Script:
    return script.drop(setup_footer(script))


@row("device-footer-flipped", "LEG-SEC-020")
def device_footer_type(script: Script) -> Script:
    place = device_footer(script)
    return script.write(place, b"\0" + script[place].data[1:])


# -- order -----------------------------------------------------------------------------------------------


@row("setup-section-sent-twice", "LEG-SEC-016")
def start_twice(script: Script) -> Script:
    place = ram.start(script)
    return script.put(place, whole(script, place))


@row("device-section-removed", "LEG-SEC-041")
def device_left_out(script: Script) -> Script:
    return script.drop(*script.section(device(script)))


@row("full-twice", "LEG-SEC-023", "LEG-SEC-041")
def full_twice(script: Script) -> Script:
    place = device(script)
    return script.put(place, whole(script, place))


@row("full-before-the-first-start", "LEG-SEC-024", "LEG-SEC-003")
def full_first(script: Script) -> Script:
    return script.put(ram.start(script), whole(script, device(script)))


def _empty_part(script: Script, opening: type[SectionPart | SectionEnd]) -> Script:
    """One more PART or END of `ram` behind its END."""
    number = ram.section_id(script)
    footer = SectionFooter(section_id=number)
    return script.put(device(script), opening(section_id=number), RamEos(), footer)


@row("second-end-of-ram", "LEG-SEC-017", "LEG-SEC-018", "LEG-SEC-012")
def end_twice(script: Script) -> Script:
    return _empty_part(script, SectionEnd)


@row("part-behind-end", "LEG-SEC-018")
def part_behind_end(script: Script) -> Script:
    return _empty_part(script, SectionPart)


@row("part-of-an-id-that-full-bound", "LEG-SEC-015")
def part_of_a_device(script: Script) -> Script:
    """The device comes, and again as a PART of its id."""
    place, stop = script.section(device(script))
    part = SectionPart(section_id=script.record(place).section_id)
    return script.put(stop, part, script.data(place + 1, stop))


@row("eof-right-behind-the-configuration", "LEG-RAM-052", "LEG-SEC-030")
def eof_first(script: Script) -> Script:
    return script.drop(first_items(script), eof(script))


@row("eof-behind-start", "LEG-SEC-017", "LEG-RAM-052")
def eof_behind_start(script: Script) -> Script:
    return script.drop(ram.first_part(script), eof(script))


@row("description-before-eof", "LEG-SEC-035", "LEG-SEC-031")
def description_first(script: Script) -> Script:
    return script.put(device(script), script[script.find(VmDescription)].data)


@row("subsection-byte-between-items", "LEG-SEC-002", "LEG-VMS-040")
def subsection_between(script: Script) -> Script:
    return script.put(device(script), b"\x05")


@row("footer-byte-between-items", "LEG-SEC-002", "LEG-SEC-020")
def footer_between(script: Script) -> Script:
    return script.put(device(script), SectionFooter(section_id=ram.section_id(script)))


# -- device state ----------------------------------------------------------------------------------------


@row("device-one-byte-too-many", "LEG-SEC-014")
def state_long(script: Script) -> Script:
    return script.put(device_footer(script), b"\0")


@row("device-one-byte-missing", "LEG-SEC-014")
def state_short(script: Script) -> Script:
    place = state(script)
    return script.write(place, script[place].data[:-1])


@row("device-unknown-subsection-of-own-prefix", "LEG-DST-043")
def own_subsection(script: Script) -> Script:
    name = f"{script.record(device(script)).idstr}/nope"
    return script.put(device_footer(script), Subsection(name=name, version_id=1))


@row("device-subsection-of-foreign-prefix", "LEG-DST-042")
def foreign_subsection(script: Script) -> Script:
    return script.put(device_footer(script), Subsection(name="foreign/nope", version_id=1))


# -- the description, and behind it ----------------------------------------------------------------------


@row("truncated-before-device-description", "LEG-SEC-034")
def cut_description(script: Script) -> bytes:
    return script.before(script.find(VmDescription))


@row("truncated-inside-device-description", "LEG-SEC-031")
def cut_in_description(script: Script) -> bytes:
    return script.before(script.find(VmDescription), 200)


@row("device-description-missing", "LEG-SEC-034")
def no_description(script: Script) -> Script:
    return script.drop(script.find(VmDescription))


@row("device-description-length-0xffffffff", "LEG-SEC-031")
def endless_description(script: Script) -> Script:
    place = script.find(VmDescription)
    return script.write(place, b"\x06\xff\xff\xff\xff" + script[place].data[5:])


@row("description-is-no-json", "LEG-SEC-040")
def no_json(script: Script) -> Script:
    return script.write(script.find(VmDescription), VmDescription(json=b"oops"))


@row("bytes-that-are-no-description-behind-eof", "LEG-SEC-035", "LEG-SEC-033")
def other_behind(script: Script) -> Script:
    return script.write(script.find(VmDescription), b"XXXX")


@row("trailing-bytes-after-the-end", "LEG-SEC-033")
def trailing(script: Script) -> Script:
    return script.put(len(script), bytes(range(256)))


@row("trailing-bytes-after-the-end-stays-open", "LEG-SEC-033", end=False)
def trailing_open(script: Script) -> Script:
    return script.put(len(script), bytes(range(256)))


@row("stays-open-after-the-end", end=False)
def open_behind(script: Script) -> Script:
    return script


# -- cuts ------------------------------------------------------------------------------------------------


@row("truncated-after-config", "LEG-SEC-030")
def cut_behind_configuration(script: Script) -> bytes:
    return script.before(first_items(script))


@row("truncated-inside-ram-section-header", "LEG-SEC-010")
def cut_in_start(script: Script) -> bytes:
    return script.before(ram.start(script), 7)


@row("truncated-before-setup-footer", "LEG-SEC-020")
def cut_before_footer(script: Script) -> bytes:
    return script.before(setup_footer(script))


@row("truncated-after-setup-section", "LEG-SEC-030")
def cut_behind_setup(script: Script) -> bytes:
    return script.before(setup_footer(script) + 1)


@row("truncated-before-first-device", "LEG-SEC-030")
def cut_before_device(script: Script) -> bytes:
    return script.before(device(script))


@row("truncated-inside-first-device-header", "LEG-SEC-013")
def cut_in_full(script: Script) -> bytes:
    return script.before(device(script), 7)


@row("truncated-inside-first-device", "LEG-SEC-014")
def cut_in_state(script: Script) -> bytes:
    return script.before(state(script), 1)


@row("truncated-before-first-device-s-footer", "LEG-SEC-020")
def cut_before_device_footer(script: Script) -> bytes:
    return script.before(device_footer(script))


@row("truncated-before-end-of-stream-byte", "LEG-SEC-030")
def cut_before_eof(script: Script) -> bytes:
    return script.before(eof(script))


@row("truncated-before-end-of-stream-byte-stays-open", "LEG-SEC-030", end=False)
def cut_before_eof_open(script: Script) -> bytes:
    return script.before(eof(script))


@row("truncated-inside-ram-pages-stays-open", "LEG-RAM-031", end=False)
def cut_in_a_page_open(script: Script) -> bytes:
    return script.before(*ram.in_a_page(script))


@row("truncated-inside-ram-pages-exit-on-error-false", "LEG-RAM-031", exit_on_error=False)
def cut_in_a_page_stays(script: Script) -> bytes:
    return script.before(*ram.in_a_page(script))
