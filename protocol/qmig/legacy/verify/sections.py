"""Order and identity of sections (spec chapter 20)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from qmig._wire import Record
from qmig.legacy.channels import parse_name
from qmig.legacy.commands import EnableColo, Packaged, PackageEnd
from qmig.legacy.sections import (
    DeviceState,
    EndOfFile,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionPart,
    SectionStart,
    TrailingBytes,
    VmDescription,
)
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.findings import Severity
from qmig.legacy.verify.rules import By, Rule, When, before, capability, migration_property, since

#: Sections whose identity is remembered. The largest machines have a few thousand devices.
TRACKED: Final = 65536
#: Body of `globalstate`: a length and a buffer of 100 bytes.
GLOBAL_STATE: Final = 104


def _described(facts: Facts) -> bool | None:
    if facts.known.suppress_vmdesc is None or (facts.machine is None and not facts.known.suppress_vmdesc):
        return None  # machine types up to 2.3 do not name themselves in the stream either
    version = facts.machine_version
    return not facts.known.suppress_vmdesc and (version is None or version > (2, 2))


class SectionChecker(Checker):
    """Sections of the main channels."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-SEC-002", title="every item opens with a known type byte", by=By.READER),
        Rule(requirement="LEG-SEC-015", title="PART and END name a section that was started", by=By.READER),
        Rule(requirement="LEG-SEC-016", title="one START per section_id"),
        Rule(requirement="LEG-SEC-017", title="one END per START in a completed precopy or postcopy"),
        Rule(requirement="LEG-SEC-018", title="no PART and no END after END of the same section"),
        Rule(requirement="LEG-SEC-019", title="idstr is 1 to 255 bytes"),
        Rule(requirement="LEG-SEC-021", title="a footer repeats its section's id", by=By.READER),
        Rule(
            requirement="LEG-SEC-022",
            title="every section has a footer",
            when=migration_property("send-section-footer", on=True),
        ),
        Rule(requirement="LEG-SEC-023", title="idstr and instance_id are unique among FULL sections"),
        Rule(requirement="LEG-SEC-024", title="no live data behind the device state of a precopy stream"),
        Rule(
            requirement="LEG-SEC-025",
            title="no FULL section before the first PART",
            when=before((8, 0)),
        ),
        Rule(requirement="LEG-SEC-026", title="section ids are unique"),
        Rule(
            requirement="LEG-SEC-027",
            title="machine isapc of 5.2 and 7.2 sends isa-ide twice",
            severity=Severity.NOTE,
        ),
        Rule(
            requirement="LEG-SEC-032",
            title="no description behind a postcopy stream",
            about=(Packaged,),
        ),
        Rule(
            requirement="LEG-DBM-007",
            title="no dirty-bitmap section without dirty-bitmaps",
            when=capability("dirty-bitmaps", on=False),
        ),
        Rule(requirement="LEG-BLK-003", title="no block section from 9.1 on", when=since((9, 1))),
        Rule(
            requirement="LEG-SEC-034",
            title="a description follows a completed precopy stream",
            when=When("machines with a description, not suppressed by hand", _described),
        ),
        Rule(
            requirement="LEG-SEC-035",
            title="nothing but a description follows EOF",
            severity=Severity.WARNING,
        ),
        Rule(requirement="LEG-SEC-050", title="ram is instance 0, version 4"),
        Rule(requirement="LEG-SEC-051", title="globalstate is 104 bytes"),
        Rule(requirement="LEG-SEC-052", title="globalstate's size counts the run state's name and its NUL"),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.nesting = 0
        self.started: dict[int, SectionStart] = {}
        self.ended: set[int] = set()
        self.full_ids: set[int] = set()
        self.identities: set[tuple[str, int]] = set()
        self.early: list[tuple[str, SectionFull]] = []
        self.device: SectionFull | None = None
        self.iterating = False  # a PART or END was seen
        self.devices_began = False
        self.unfooted: tuple[str, Record] | None = None

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            SectionStart: self._start,
            SectionPart: self._live,
            SectionEnd: self._live,
            SectionFull: self._full,
            SectionFooter: self._footer,
            DeviceState: self._body,
            Packaged: self._package,
            PackageEnd: self._package_end,
            EnableColo: lambda *_: self.facts.seen.add("colo"),
            EndOfFile: self._eof,
            VmDescription: self._description,
            TrailingBytes: self._trailing,
        }

    def _open(self, channel: str, event: Record) -> None:
        """A section begins: the one before must have had its footer, unless its channel was cut."""
        if self.unfooted is not None and self.unfooted[0] == channel:
            self._close()
        self.unfooted = (channel, event)

    def _close(self) -> None:
        if self.unfooted is not None:
            self.report("LEG-SEC-022", *self.unfooted, "the section has no footer")
            self.unfooted = None

    def _footer(self, channel: str, event: SectionFooter) -> None:
        self.unfooted = None

    def _named(self, channel: str, event: SectionStart | SectionFull) -> None:
        if not event.idstr:
            self.report("LEG-SEC-019", channel, event, "idstr is empty")

    def _start(self, channel: str, event: SectionStart) -> None:
        self._open(channel, event)
        self._named(channel, event)
        if event.section_id in self.started:
            self.report("LEG-SEC-016", channel, event, f"section {event.section_id} is started again")
        elif event.section_id in self.full_ids:
            self.report("LEG-SEC-026", channel, event, f"section id {event.section_id} is used again")
        self.started[event.section_id] = event
        if event.idstr == "dirty-bitmap":
            self.report("LEG-DBM-007", channel, event, "a dirty-bitmap section")
        elif event.idstr == "block":
            self.report("LEG-BLK-003", channel, event, "a block section")
        if event.idstr == "ram" and (event.instance_id, event.version_id) != (0, 4):
            text = f"ram is instance {event.instance_id}, version {event.version_id}"
            self.report("LEG-SEC-050", channel, event, text)

    def _live(self, channel: str, event: SectionPart | SectionEnd) -> None:
        self._open(channel, event)
        if not self.iterating:
            self.iterating = True
            for where, early in self.early:
                self.report("LEG-SEC-025", where, early, f"state of {early.idstr!a} in the setup phase")
        if self.devices_began and not self.nesting:
            self.report("LEG-SEC-024", channel, event, "live data behind device state")
        elif event.section_id in self.ended and "colo" not in self.facts.seen:
            self.report("LEG-SEC-018", channel, event, f"section {event.section_id} has ended before")
        if isinstance(event, SectionEnd):
            self.ended.add(event.section_id)

    def _full(self, channel: str, event: SectionFull) -> None:
        self._open(channel, event)
        self._named(channel, event)
        self.device = event
        if not self.nesting:
            if self.iterating:
                self.devices_began = True
            elif len(self.early) < TRACKED:
                self.early.append((channel, event))
        if "colo" in self.facts.seen or len(self.identities) >= TRACKED:
            return
        if event.section_id in self.full_ids or event.section_id in self.started:
            self.report("LEG-SEC-026", channel, event, f"section id {event.section_id} is used again")
        self.full_ids.add(event.section_id)
        identity = (event.idstr, event.instance_id)
        if identity in self.identities:
            isapc = self.facts.machine == "isapc" and identity == ("isa-ide", 0)
            rule = "LEG-SEC-027" if isapc else "LEG-SEC-023"
            self.report(rule, channel, event, f"{event.idstr!a} {event.instance_id} comes again")
        self.identities.add(identity)

    def _body(self, channel: str, event: DeviceState) -> None:
        if self.device is None or self.device.idstr != "globalstate":
            return
        data = bytes(event.data[:GLOBAL_STATE])
        if len(event.data) != GLOBAL_STATE:
            self.report("LEG-SEC-051", channel, event, f"globalstate is {len(event.data)} bytes")
            return
        size = int.from_bytes(data[:4], "big")
        length = data[4:].find(b"\0")
        if size != length + 1:
            text = f"size is {size}, the name is {length} bytes and a NUL"
            self.report("LEG-SEC-052", channel, event, text)

    def _package(self, channel: str, event: Packaged) -> None:
        self._close()
        self.nesting += 1
        self.facts.seen.add("postcopy")

    def _package_end(self, channel: str, event: PackageEnd) -> None:
        self._close()
        self.nesting -= 1

    def _eof(self, channel: str, event: EndOfFile) -> None:
        self._close()
        if not self.nesting:
            self.facts.seen.add("eof")
            self.end = (channel, event)

    def _description(self, channel: str, event: VmDescription) -> None:
        self.facts.seen.add("vmdesc")
        if "postcopy" in self.facts.seen:
            self.report("LEG-SEC-032", channel, event, "a description after postcopy")

    def _trailing(self, channel: str, event: TrailingBytes) -> None:
        if not self.nesting and parse_name(channel).kind == "main":
            self.report("LEG-SEC-035", channel, event, f"{len(event.data)} bytes behind the end")

    def finish(self) -> None:
        if "eof" not in self.facts.seen:
            return
        channel, event = self.end
        # A background snapshot ends no live handler; its capability is not in the stream.
        snapshot = not self.ended and self.facts.capability("background-snapshot") is not False
        if not snapshot and "colo" not in self.facts.seen:
            for section_id, start in self.started.items():
                if section_id not in self.ended:
                    self.report("LEG-SEC-017", channel, event, f"{start.idstr!a} has no END")
        if not self.facts.seen & {"vmdesc", "postcopy", "colo"}:
            self.report("LEG-SEC-034", channel, event, "no description follows")
