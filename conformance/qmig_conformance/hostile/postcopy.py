"""Postcopy: the package, what comes behind it, and what is lost in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from qmig import Record
from qmig.legacy.commands import (
    CommandHeader,
    Packaged,
    PackageEnd,
    Ping,
    PostcopyAdvise,
    PostcopyListen,
    PostcopyRamDiscard,
    PostcopyRun,
)
from qmig.legacy.ram import RamFlag, RamMultifdFlush, RamPage, RamPages, RamXbzrlePage
from qmig.legacy.sections import EndOfFile, SectionFooter, SectionFull, SectionPart
from qmig.testing.scenarios import scenario
from qmig_conformance.hostile import ram
from qmig_conformance.hostile.plays import alone, in_phases, pong
from qmig_conformance.hostile.script import Script
from qmig_conformance.hostile.table import Table
from qmig_conformance.play import Good, Play

SETTINGS: Final = scenario("postcopy")
TABLE: Final = Table("postcopy", SETTINGS)
PAGE: Final = ram.PAGE
#: the last PING of a package before RUN in every version
LOADING: Final = 3

Change = Callable[[Script], Script | Sequence[bytes]]


def row(value: str, *violates: str, end: bool = True, behind: bool = True) -> Callable[[Change], Change]:
    """Declares a change of main: a script, or what comes up to the package's end and what comes behind.

    Without `behind`, what is behind the package is not sent, and the connection ends when the destination
    rests: a load that fails in the package is not to race against the thread that reads there
    (LEG-DST-154)."""

    def declare(change: Change) -> Change:
        def make(good: Good) -> Play:
            new = change(Script.main(good.channels["main"]))
            found = phases(new) if isinstance(new, Script) else new
            steps = in_phases(found if behind else found[:1], end=end, until=pong(LOADING))
            return Play(settings=good.settings, steps=steps)

        TABLE.add(value, make, *violates)
        return change

    return declare


def phases(script: Script, stop: int | None = None, extra: int = 0) -> Sequence[bytes]:
    """The bytes up to the package's end, and those behind it up to `extra` bytes into the piece `stop`."""
    place = behind(script)
    stop = len(script) if stop is None else stop
    whole = script.before(stop, extra)
    first = script.before(min(place, stop))
    return first, whole[len(first) :]


# -- places ----------------------------------------------------------------------------------------------


def package(script: Script) -> tuple[int, int]:
    """PACKAGED, and the end of its package."""
    place = script.find(Packaged)
    return place, script.find(PackageEnd, start=place)


def behind(script: Script) -> int:
    """The first piece behind the package."""
    return script.find(PackageEnd) + 1


def part_behind(script: Script) -> int:
    """The first PART with pages behind the package."""
    place = behind(script)
    for opening in script.places(SectionPart, place):
        if isinstance(script.record(opening + 1), RamPages):
            return opening
    raise AssertionError("nothing was left for postcopy")


def behind_run(script: Script, *new: bytes | Record) -> Script:
    """Records before the first page behind the package."""
    return script.put(part_behind(script) + 1, *new)


def between(script: Script, *new: bytes | Record) -> Script:
    """Items before the first PART behind the package."""
    return script.put(part_behind(script), *new)


def device(script: Script) -> bytes:
    """The first device's section in the package."""
    return script.data(*script.section(script.find(SectionFull, start=package(script)[0])))


# -- the package -----------------------------------------------------------------------------------------


@row("postcopy-control")
def control(script: Script) -> Script:
    return script


@row("postcopy-cut-inside-the-package", "LEG-PCP-023", "LEG-CMD-016")
def cut_inside(script: Script) -> Sequence[bytes]:
    return (_half(script),)


@row("postcopy-cut-inside-the-package-stays-open", "LEG-PCP-023", end=False)
def cut_inside_open(script: Script) -> Sequence[bytes]:
    return (_half(script),)


def _half(script: Script) -> bytes:
    place, stop = package(script)
    whole = script.before(stop)
    return whole[: (script.offset(place) + len(whole)) // 2]


@row("postcopy-package-without-listen", "LEG-PCP-020", behind=False)
def no_listen(script: Script) -> Script:
    return script.drop(script.find(PostcopyListen))


@row("postcopy-package-without-run", "LEG-PCP-020", "LEG-CMD-014", behind=False)
def no_run(script: Script) -> Script:
    return script.drop(script.find(PostcopyRun))


@row("postcopy-eof-in-place-of-run", "LEG-PCP-022", behind=False)
def eof_for_run(script: Script) -> Script:
    return script.write(script.find(PostcopyRun), EndOfFile())


@row("postcopy-listen-twice", "LEG-CMD-013", "LEG-PCP-020", behind=False)
def listen_twice(script: Script) -> Script:
    return script.put(script.find(PostcopyListen), PostcopyListen())


@row("postcopy-run-twice", "LEG-CMD-014")
def run_twice(script: Script) -> Script:
    return script.put(script.find(PostcopyRun), PostcopyRun())


@row("postcopy-bytes-behind-run-in-the-package", "LEG-PCP-020", "LEG-PCP-023")
def more_in_the_package(script: Script) -> Script:
    return script.put(package(script)[1], b"\x55" * 50)


@row("postcopy-unknown-section-in-the-package", "LEG-SEC-013", behind=False)
def unknown_section(script: Script) -> Script:
    section = SectionFull(section_id=77, idstr="zzz", instance_id=0, version_id=1)
    return script.put(script.find(PostcopyListen) + 1, section)


@row("postcopy-footer-wrong-in-the-package", "LEG-SEC-021", behind=False)
def footer_in_the_package(script: Script) -> Script:
    place = script.find(SectionFooter, start=package(script)[0])
    return script.change(place, section_id=999)


def _size(script: Script, by: int) -> Script:
    place, stop = package(script)
    size = len(script.before(stop)) - len(script.before(place + 1)) + by
    return script.write(place, Packaged(size_of_package=size).encode())


@row("postcopy-size-one-too-small", "LEG-PCP-023", behind=False)
def too_small(script: Script) -> Script:
    return _size(script, -1)


@row("postcopy-size-one-too-large", "LEG-PCP-023")
def too_large(script: Script) -> Script:
    return _size(script, 1)


@row("postcopy-without-discard", "LEG-PCP-010", "LEG-CMD-015", behind=False)
def no_discard(script: Script) -> Script:
    first = script.find(PostcopyRamDiscard)
    return script.drop(first, script.find(PostcopyRamDiscard, -1) + 1)


@row("postcopy-without-advise", "LEG-PCP-001", "LEG-CMD-012", behind=False)
def no_advise(script: Script) -> Script:
    return script.drop(script.find(PostcopyAdvise))


def _capability_off(good: Good) -> Play:
    from qmig_conformance.hostile.plays import with_capabilities

    return alone(with_capabilities(good.settings, postcopy_ram=False), good.channels["main"])


TABLE.add("postcopy-postcopy-ram-off", _capability_off, "LEG-PCP-002")

# -- behind it -------------------------------------------------------------------------------------------


@row("postcopy-cut-behind-the-package", "LEG-PCP-024", "LEG-PCP-025")
def cut_behind(script: Script) -> Sequence[bytes]:
    return phases(script, behind(script))


@row("postcopy-cut-inside-a-page-behind-run", "LEG-RAM-031")
def cut_in_a_page(script: Script) -> Sequence[bytes]:
    return phases(script, part_behind(script) + 1, PAGE // 2)


@row("postcopy-cut-before-the-eof-byte", "LEG-SEC-030")
def cut_before_eof(script: Script) -> Sequence[bytes]:
    return phases(script, script.find(EndOfFile))


@row("postcopy-stays-open-before-the-eof-byte", "LEG-SEC-030", end=False)
def open_before_eof(script: Script) -> Sequence[bytes]:
    return phases(script, script.find(EndOfFile))


@row("postcopy-behind-run-xbzrle", "LEG-RAM-060")
def xbzrle(script: Script) -> Script:
    page = RamXbzrlePage(word=int(RamFlag.XBZRLE), block=ram.BLOCK, delta=b"\x02\x01\xff")
    return behind_run(script, page)


@row("postcopy-behind-run-multifd-flush", "LEG-RAM-060", "LEG-RAM-057")
def flush(script: Script) -> Script:
    return behind_run(script, RamMultifdFlush())


@row("postcopy-behind-run-flags-0", "LEG-RAM-002")
def no_flag(script: Script) -> Script:
    return behind_run(script, bytes(8))


@row("postcopy-behind-run-block-list", "LEG-RAM-014", "LEG-RAM-060")
def block_list(script: Script) -> Script:
    place, stop = ram.listed(script)
    return behind_run(script, script.data(place, stop))


@row("postcopy-behind-run-unknown-block", "LEG-RAM-040")
def unknown_block(script: Script) -> Script:
    return behind_run(script, ram.zero_page(block="zzz"))


@row("postcopy-behind-run-offset-beyond-the-block", "LEG-RAM-042")
def beyond(script: Script) -> Script:
    return behind_run(script, ram.zero_page(1 << 40))


@row("postcopy-behind-run-a-page-twice", "LEG-PCP-031")
def page_twice(script: Script) -> Script:
    """A page with content, behind itself."""
    place = part_behind(script) + 1
    number = 0
    while True:
        split = script.single(place, number)
        at = place + (number > 0)
        if isinstance(split.record(at), RamPage):
            return split.put(at + 1, split[at].data)
        number += 1


@row("postcopy-behind-run-a-full-section", "LEG-PCP-025", "LEG-PCP-022")
def full_section(script: Script) -> Script:
    return between(script, device(script))


@row("postcopy-behind-run-ping-9", "LEG-PCP-024")
def ping(script: Script) -> Script:
    return between(script, Ping(value=9))


@row("postcopy-behind-run-unknown-command", "LEG-CMD-002")
def unknown_command(script: Script) -> Script:
    return between(script, CommandHeader(command=99, length=0))


@row("postcopy-behind-run-unknown-section-type", "LEG-SEC-002")
def unknown_type(script: Script) -> Script:
    return between(script, b"\x55")


@row("postcopy-behind-run-footer-wrong", "LEG-SEC-021")
def footer_behind(script: Script) -> Script:
    return script.change(script.find(SectionFooter, start=part_behind(script)), section_id=999)


@row("postcopy-behind-run-run", "LEG-PCP-020", "LEG-CMD-014")
def run_behind(script: Script) -> Script:
    return between(script, PostcopyRun())


@row("postcopy-behind-run-a-second-package", "LEG-PCP-025", "LEG-CMD-016")
def second_package(script: Script) -> Script:
    place, stop = package(script)
    return between(script, script.data(place, stop))


@row("postcopy-behind-run-eof-at-once", "LEG-RAM-052", "LEG-PCP-031")
def eof_at_once(script: Script) -> Script:
    place = part_behind(script)
    return script.drop(place, len(script)).put(place, EndOfFile())
