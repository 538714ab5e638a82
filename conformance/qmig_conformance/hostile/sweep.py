"""What is wrong in a systematic way: each field of each record, each order, each cut, each channel.

A `Subject` is a record that a destination reads, at a place of a good stream. Its kind's declaration gives
the names of all changes (`qmig.testing.variants`), so the ids of the cases last as long as the names of
fields do. Where the good stream of a build has no such record, or a change changes nothing, a run does not
show the case.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from qmig import Record
from qmig.legacy import block as blk
from qmig.legacy import commands as cmd
from qmig.legacy import dirtybitmap as dbm
from qmig.legacy import header as hdr
from qmig.legacy import mappedram as mapped
from qmig.legacy import multifd as mfd
from qmig.legacy import ram
from qmig.legacy import sections as sec
from qmig.testing.scenario import Scenario
from qmig.testing.variants import variant, variant_names
from qmig_conformance.hostile import disks, postcopy
from qmig_conformance.hostile import families as fam
from qmig_conformance.hostile import ram as rows
from qmig_conformance.hostile.families import Cut, Family
from qmig_conformance.hostile.judged import PAUSED, SUCCEED, WAITS, Held, of_field, refused
from qmig_conformance.hostile.script import Absent, Script
from qmig_conformance.play import REFUSED, Good, Play

#: makes the script ready and says where in it the record stands
Locate = Callable[[Script], tuple[Script, int]]
#: the changed script, and where it is cut; None: nothing would change
Made = tuple[Script, Cut | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A record that is made wrong. `name` is part of the ids."""

    family: Family
    name: str
    kind: type[Record]
    locate: Locate
    since: str = ""
    until: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One wrong stream."""

    subject: Subject
    #: ``field.what``, or the name of an order or a cut
    name: str
    make: Callable[[Script, int], Made]

    @property
    def settings(self) -> Scenario:
        """Of the good stream."""
        return self.subject.family.settings

    @property
    def title(self) -> str:
        """In words."""
        return f"{self.subject.kind.__name__} ({self.subject.name}): {self.name}"

    @property
    def versions(self) -> tuple[str, str]:
        """First and last version that can be asked; the last is empty where there is none."""
        family = self.subject.family
        return self.subject.since or family.since, family.until

    @property
    def verdict(self) -> Held:
        """What its outcome is held to."""
        return held(self)

    @property
    def slow(self) -> bool:
        """Whether it takes too long to be played by default."""
        return self.name.endswith("-open") and self.subject.family.name in OPEN_ENDS

    @property
    def id(self) -> str:
        """Of the case."""
        return f"legacy.destination.sweep.{self.subject.family.name}.{self.subject.name}.{self.name}".replace(
            "_", "-"
        )

    def play(self, good: Good) -> Play:
        """Raises `Absent` where this good stream cannot show it."""
        family = self.subject.family
        script, place = self.subject.locate(family.script(good))
        made = self.make(script, place)
        if made is None:
            raise Absent("the change changes nothing in this stream")
        return family.play(good, *made)


# -- what is done ----------------------------------------------------------------------------------------


def _field(name: str) -> Callable[[Script, int], Made]:
    def make(script: Script, place: int) -> Made:
        new = variant(script.record(place), name)
        return None if new is None else (script.write(place, new), None)

    return make


def _left_out(script: Script, place: int) -> Made:
    return script.drop(place), None


def _doubled(script: Script, place: int) -> Made:
    return script.put(place, script[place].data), None


def _swapped(script: Script, place: int) -> Made:
    if place + 1 == len(script):
        return None
    return script.swap((place, place + 1), (place + 1, place + 2)), None


def _first(script: Script, place: int) -> Made:
    return (script.move(place, place + 1, 0), None) if place else None


def _early(script: Script, place: int) -> Made:
    """Behind the first record, which is a header where the channel has one."""
    return (script.move(place, place + 1, 1), None) if place > 1 else None


def _section(work: Callable[[Script, int, int], Script | None]) -> Callable[[Script, int], Made]:
    def make(script: Script, place: int) -> Made:
        new = work(script, *script.section(place))
        return None if new is None else (new, None)

    return make


def _next_section(script: Script, start: int, stop: int) -> Script | None:
    if stop >= len(script) or not isinstance(script[stop].record, SECTIONS):
        return None
    return script.swap((start, stop), script.section(stop))


def _cut(inside: bool, end: bool) -> Callable[[Script, int], Made]:
    def make(script: Script, place: int) -> Made:
        extra = len(script[place].data) // 2 if inside else 0
        if inside and not extra:
            return None
        return script, Cut(place, extra, end)

    return make


SECTIONS: Final = (sec.SectionStart, sec.SectionPart, sec.SectionEnd, sec.SectionFull)
ORDERS: Final[Mapping[str, Callable[[Script, int], Made]]] = {
    "left-out": _left_out,
    "doubled": _doubled,
    "swapped": _swapped,
    "first": _first,
    "early": _early,
}
SECTION_ORDERS: Final[Mapping[str, Callable[[Script, int], Made]]] = {
    "section-left-out": _section(lambda script, start, stop: script.drop(start, stop)),
    "section-doubled": _section(lambda script, start, stop: script.put(start, script.data(start, stop))),
    "section-swapped": _section(_next_section),
    "section-early": _section(lambda script, start, stop: script.move(start, stop, 1)),
}
#: families -> subjects at which a connection is left open, where that is not at all of them: a file always
#: ends, and a destination with a disk rests only when its pool of threads is gone, 10 s later
OPEN_ENDS: Final[Mapping[str, tuple[str, ...]]] = {
    "mapped-ram": (),
    "dirty-bitmap": ("start",),
    "block": ("data",),
}
#: families whose subjects are loaded before a guest runs, on a connection that a failed load ends
LOADING: Final = frozenset({"main", "postcopy", "mapped-ram", "block"})
#: name -> inside the record, the connection ends there
CUTS: Final = {
    f"cut-{where}-{how}": (where == "inside", how == "closed")
    for where in ("before", "inside")
    for how in ("closed", "open")
}


def items_of(subject: Subject) -> Iterator[Item]:
    """Everything that can be wrong about one record."""
    for name in variant_names(subject.kind):
        yield Item(subject=subject, name=name, make=_field(name))
    for name, make in ORDERS.items():
        yield Item(subject=subject, name=name, make=make)
    if subject.kind in SECTIONS:
        for name, make in SECTION_ORDERS.items():
            yield Item(subject=subject, name=name, make=make)
    for name, (inside, end) in CUTS.items():
        if end or subject.name in OPEN_ENDS.get(subject.family.name, (subject.name,)):
            yield Item(subject=subject, name=name, make=_cut(inside, end))


# -- what it is held to ----------------------------------------------------------------------------------


def held(item: Item) -> Held:
    """The statement, and what it allows."""
    subject = item.subject
    own = subject.kind.requirement
    if item.name in CUTS:
        return _held_cut(subject, CUTS[item.name][1], own)
    field = item.name.partition(".")[0]
    if "behind" in subject.name or subject.family.name not in LOADING:
        return Held(violates=(own,))
    return of_field(subject.kind.__name__, field, own)


def _held_cut(subject: Subject, end: bool, own: str) -> Held:
    """A stream that ends early. Multifd and preempt channels: no statement says more than LEG-DST-165."""
    family = subject.family
    if family.name in {"multifd", "preempt"}:
        return Held(violates=(own,))
    if not end:
        return Held("LEG-DST-003", WAITS, (own,))
    if subject.kind is sec.VmDescription:
        return Held("LEG-DST-040", SUCCEED, (own,))
    if family.name == "recovery":  # 11.1 judges the new connection by its first bytes
        return Held("LEG-DST-162", PAUSED | REFUSED if subject.kind is cmd.RecvBitmap else PAUSED, (own,))
    if subject.name.endswith("behind"):
        return Held("LEG-DST-148", PAUSED, (own,))
    return refused("LEG-DST-038", own)


# -- where records stand ---------------------------------------------------------------------------------


def nth(kind: type[Record], number: int = 0, start: Callable[[Script], int] = lambda _: 0) -> Locate:
    """The `number`-th record of a kind, from a place on."""
    return lambda script: (script, script.find(kind, number, start(script)))


def seeded(place: Callable[[Script], int], *records: Record) -> Locate:
    """A record that is not in the good stream and that a destination takes, the last of these, put there."""

    def locate(script: Script) -> tuple[Script, int]:
        at = place(script)
        return script.put(at, *records), at + len(records) - 1

    return locate


def page(kind: type[Record], start: Callable[[Script], int] = lambda _: 0) -> Locate:
    """The first record of this kind in a batch of pages."""

    def locate(script: Script) -> tuple[Script, int]:
        for place in script.places(ram.RamPages, start(script)):
            batch = script.record(place)
            for number in range(min(batch.normal + batch.zero, 256)):
                split = script.single(place, number)
                at = place + (number > 0)
                if isinstance(split.record(at), kind):
                    return split, at
        raise Absent(f"no {kind.__name__} in this stream")

    return locate


def _behind_configuration(script: Script) -> int:
    return script.find(hdr.Configuration) + 1


def _subjects(family: Family, *rows_: tuple[str, type[Record], Locate], since: str = "") -> list[Subject]:
    return [Subject(family=family, name=n, kind=k, locate=at, since=since) for n, k, at in rows_]


def _main() -> Iterator[Subject]:
    uuid = hdr.Subsection(name="configuration/uuid", version_id=1)
    names = hdr.Subsection(name="configuration/capabilities", version_id=1)
    bits = hdr.Subsection(name="configuration/target-page-bits", version_id=1)
    nothing = hdr.ConfigurationUuid(uuid=bytes(range(16)))
    behind = _behind_configuration
    yield from _subjects(
        fam.MAIN,
        ("file-header", hdr.FileHeader, nth(hdr.FileHeader)),
        ("configuration", hdr.Configuration, nth(hdr.Configuration)),
        ("subsection", hdr.Subsection, _subsection),
        ("uuid", hdr.ConfigurationUuid, seeded(behind, uuid, nothing)),
        (
            "capabilities",
            hdr.ConfigurationCapabilities,
            seeded(behind, names, hdr.ConfigurationCapabilities(capabilities=("xbzrle",))),
        ),
        (
            "page-bits",
            hdr.ConfigurationPageBits,
            seeded(behind, bits, hdr.ConfigurationPageBits(target_page_bits=12)),
        ),
        ("open-return-path", cmd.OpenReturnPath, nth(cmd.OpenReturnPath)),
        ("ping", cmd.Ping, nth(cmd.Ping)),
        ("section-start", sec.SectionStart, nth(sec.SectionStart)),
        ("mem-size", ram.RamMemSize, nth(ram.RamMemSize)),
        ("block-entry", ram.RamBlockEntry, nth(ram.RamBlockEntry)),
        ("last-block-entry", ram.RamBlockEntry, nth(ram.RamBlockEntry, -1)),
        ("eos", ram.RamEos, nth(ram.RamEos)),
        ("footer", sec.SectionFooter, nth(sec.SectionFooter)),
        ("section-part", sec.SectionPart, nth(sec.SectionPart)),
        ("page", ram.RamPage, page(ram.RamPage)),
        ("zero-page", ram.RamZeroPage, page(ram.RamZeroPage)),
        ("xbzrle-page", ram.RamXbzrlePage, seeded(_in_part, rows.difference(b"\x02\x01\xff"))),
        ("section-end", sec.SectionEnd, nth(sec.SectionEnd)),
        ("section-full", sec.SectionFull, nth(sec.SectionFull)),
        ("device-state", sec.DeviceState, nth(sec.DeviceState)),
        ("device-footer", sec.SectionFooter, nth(sec.SectionFooter, 0, lambda s: s.find(sec.DeviceState))),
        ("last-section-full", sec.SectionFull, nth(sec.SectionFull, -1)),
        ("eof", sec.EndOfFile, nth(sec.EndOfFile)),
        ("description", sec.VmDescription, nth(sec.VmDescription)),
        ("recv-bitmap", cmd.RecvBitmap, seeded(_commands, cmd.RecvBitmap(length=7, block=rows.BLOCK))),
        ("resume", cmd.PostcopyResume, seeded(_commands, cmd.PostcopyResume())),
    )
    yield from _subjects(
        fam.MAIN,
        ("switchover-start", cmd.SwitchoverStart, nth(cmd.SwitchoverStart)),
        ("hook", ram.RamHook, seeded(_in_part, ram.RamHook())),
        ("multifd-flush", ram.RamMultifdFlush, seeded(_in_part, ram.RamMultifdFlush())),
        since="10.0",
    )


def _subsection(script: Script) -> tuple[Script, int]:
    at = _behind_configuration(script)
    opening = hdr.Subsection(name="configuration/uuid", version_id=1)
    return script.put(at, opening, hdr.ConfigurationUuid(uuid=bytes(range(16)))), at


def _in_part(script: Script) -> int:
    return rows.first_part(script) + 1


def _commands(script: Script) -> int:
    """Behind the return path, before anything is loaded."""
    return script.find(sec.SectionStart)


def _postcopy() -> Iterator[Subject]:
    inside: Callable[[Script], int] = lambda s: s.find(cmd.Packaged)  # noqa: E731 (one of many, in a table)
    behind = postcopy.part_behind
    yield from _subjects(
        fam.POSTCOPY,
        ("advise", cmd.PostcopyAdvise, nth(cmd.PostcopyAdvise)),
        ("discard", cmd.PostcopyRamDiscard, nth(cmd.PostcopyRamDiscard)),
        ("packaged", cmd.Packaged, nth(cmd.Packaged)),
        ("listen", cmd.PostcopyListen, nth(cmd.PostcopyListen)),
        ("package-section-full", sec.SectionFull, nth(sec.SectionFull, 0, inside)),
        ("package-device-state", sec.DeviceState, nth(sec.DeviceState, 0, inside)),
        ("package-footer", sec.SectionFooter, nth(sec.SectionFooter, 0, inside)),
        ("package-ping", cmd.Ping, nth(cmd.Ping, 0, inside)),
        ("run", cmd.PostcopyRun, nth(cmd.PostcopyRun)),
        ("ping-behind", cmd.Ping, nth(cmd.Ping, 0, postcopy.behind)),
        ("part-behind", sec.SectionPart, nth(sec.SectionPart, 0, behind)),
        ("page-behind", ram.RamPage, page(ram.RamPage, behind)),
        ("eos-behind", ram.RamEos, nth(ram.RamEos, 0, behind)),
        ("footer-behind", sec.SectionFooter, nth(sec.SectionFooter, 0, behind)),
        ("end-behind", sec.SectionEnd, nth(sec.SectionEnd, 0, behind)),
        ("eof-behind", sec.EndOfFile, nth(sec.EndOfFile)),
    )


def _others() -> Iterator[Subject]:
    yield from _subjects(
        fam.RECOVERY,
        ("recv-bitmap", cmd.RecvBitmap, nth(cmd.RecvBitmap)),
        ("resume", cmd.PostcopyResume, nth(cmd.PostcopyResume)),
        ("part", sec.SectionPart, nth(sec.SectionPart)),
        ("page", ram.RamPage, page(ram.RamPage)),
        ("eof", sec.EndOfFile, nth(sec.EndOfFile)),
    )
    device = mfd.MultifdDeviceState(
        flags=int(mfd.MultifdFlag.DEVICE_STATE),
        idstr_field=b"nobody".ljust(256, b"\0"),
        instance_id=0,
        data=b"abcd",
    )
    yield from _subjects(
        fam.MULTIFD,
        ("hello", mfd.MultifdHello, nth(mfd.MultifdHello)),
        ("packet", mfd.MultifdPacket, _packet(lambda p: p.normal_pages > 0)),
        ("sync", mfd.MultifdPacket, _packet(lambda p: p.is_sync)),
        ("device-state", mfd.MultifdDeviceState, seeded(lambda _: 1, device)),
    )
    yield from _subjects(
        fam.MULTIFD_MAIN,
        ("flush", ram.RamMultifdFlush, nth(ram.RamMultifdFlush)),
        ("eos", ram.RamEos, nth(ram.RamEos)),
    )
    yield from _subjects(
        fam.PREEMPT,
        ("page", ram.RamPage, page(ram.RamPage)),
        ("eos", ram.RamEos, nth(ram.RamEos)),
    )
    yield from _subjects(
        fam.MAPPED,
        ("header", mapped.MappedRamHeader, nth(mapped.MappedRamHeader)),
        ("last-header", mapped.MappedRamHeader, nth(mapped.MappedRamHeader, -1)),
        ("bitmap", mapped.MappedRamBitmap, nth(mapped.MappedRamBitmap)),
        ("block-entry", ram.RamBlockEntry, nth(ram.RamBlockEntry)),
    )
    yield from _subjects(
        fam.BITMAPS,
        ("start", dbm.DirtyBitmapStart, nth(dbm.DirtyBitmapStart)),
        ("bits", dbm.DirtyBitmapBits, lambda script: (script, disks.bits(script))),
        ("complete", dbm.DirtyBitmapComplete, nth(dbm.DirtyBitmapComplete)),
        ("chunk", dbm.DirtyBitmapChunk, nth(dbm.DirtyBitmapChunk)),
    )
    yield from _subjects(
        fam.DISKS,
        ("data", blk.BlockDeviceData, nth(blk.BlockDeviceData)),
        ("progress", blk.BlockProgress, nth(blk.BlockProgress)),
        ("eos", blk.BlockEos, nth(blk.BlockEos)),
    )


def _packet(wanted: Callable[[mfd.MultifdPacket], bool]) -> Locate:
    def locate(script: Script) -> tuple[Script, int]:
        for place in script.places(mfd.MultifdPacket):
            if wanted(script.record(place)):
                return script, place
        raise Absent("no such packet on channel 0")

    return locate


SUBJECTS: Final[tuple[Subject, ...]] = (*_main(), *_postcopy(), *_others())
ITEMS: Final[tuple[Item, ...]] = tuple(item for subject in SUBJECTS for item in items_of(subject))
