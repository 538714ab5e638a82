"""File header and configuration section (spec chapter 10)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from qmig._wire import Record
from qmig.legacy.header import (
    CONFIGURATION_SUBSECTIONS,
    Configuration,
    ConfigurationCapabilities,
    ConfigurationPageBits,
    ConfigurationUuid,
    FileHeader,
    Subsection,
)
from qmig.legacy.sections import SectionStart
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.facts import Facts, Version
from qmig.legacy.verify.findings import Severity
from qmig.legacy.verify.rules import By, Rule, capability, migration_property

#: names that QEMU resolves before it sends
ALIASES: Final = frozenset({"pc", "q35", "pseries", "s390-ccw-virtio", "powernv"})
#: validated capability -> first version that validates it
VALIDATED: Final[dict[str, Version]] = {"x-ignore-shared": (4, 0), "mapped-ram": (9, 0)}
_ORDER: Final = {name: place for place, name in enumerate(CONFIGURATION_SUBSECTIONS)}
_CAPABILITIES: Final = (ConfigurationCapabilities,)


class HeaderChecker(Checker):
    """What stands before the first section."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-HDR-001", title="the stream begins with the magic QEVM", by=By.READER),
        Rule(requirement="LEG-HDR-002", title="the format version is 3", by=By.READER),
        Rule(
            requirement="LEG-HDR-003",
            title="a configuration section follows the header",
            when=migration_property("send-configuration", on=True),
        ),
        Rule(requirement="LEG-HDR-004", title="a resumed stream has no header"),
        Rule(
            requirement="LEG-HDR-011",
            title="the machine type is not an alias",
            severity=Severity.WARNING,
        ),
        Rule(requirement="LEG-HDR-012", title="the machine type is a name: no NUL, nothing behind it"),
        Rule(
            requirement="LEG-HDR-013",
            title="configuration subsections in order, each once",
            about=(Subsection,),
        ),
        Rule(
            requirement="LEG-HDR-014",
            title="no footer behind the configuration",
            by=By.NOBODY,
            why_not="one would be read as a section type, and reported as LEG-SEC-002",
        ),
        Rule(requirement="LEG-HDR-023", title="configuration subsections are known ones", by=By.READER),
        Rule(
            requirement="LEG-HDR-024",
            title="the list of validated capabilities is not empty",
            about=_CAPABILITIES,
        ),
        Rule(
            requirement="LEG-HDR-025",
            title="validated capabilities are named once, in order",
            about=_CAPABILITIES,
        ),
        Rule(
            requirement="LEG-HDR-026",
            title="only x-ignore-shared and mapped-ram (9.0+) are validated",
            about=_CAPABILITIES,
        ),
        Rule(
            requirement="LEG-HDR-027",
            title="no UUID without validate-uuid",
            about=(ConfigurationUuid,),
            when=capability("validate-uuid", on=False),
        ),
        Rule(requirement="LEG-HDR-028", title="no target page bits from x86", about=(ConfigurationPageBits,)),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self._header: str | None = None
        self._configured = False
        self._place = -1

    def handlers(self) -> Mapping[type[Record], Handler]:
        return {
            FileHeader: self._file_header,
            Configuration: self._configuration,
            Subsection: self._subsection,
            ConfigurationCapabilities: self._capabilities,
            ConfigurationPageBits: self._page_bits,
            ConfigurationUuid: self._uuid,
            SectionStart: self._start,
        }

    def _file_header(self, channel: str, event: FileHeader) -> None:
        self._header = channel

    def _configuration(self, channel: str, event: Configuration) -> None:
        self._configured = True
        facts = self.facts
        facts.machine = event.machine
        facts.validated = frozenset()
        if facts.machine_version is not None:
            facts.since(facts.machine_version)
        if event.machine in ALIASES:
            self.report("LEG-HDR-011", channel, event, f"machine type {event.machine!a} is an alias")
        if not event.machine.isprintable() or not event.machine or " " in event.machine:
            self.report("LEG-HDR-012", channel, event, f"machine type {event.machine!a}")

    def _subsection(self, channel: str, event: Subsection) -> None:
        place = _ORDER[event.name]
        if place <= self._place:
            self.report("LEG-HDR-013", channel, event, f"{event.name} is repeated or comes too late")
        self._place = place

    def _capabilities(self, channel: str, event: ConfigurationCapabilities) -> None:
        names = list(event.capabilities)
        self.facts.validated = frozenset(names)
        known = [name for name in VALIDATED if name in names]
        if not names:
            self.report("LEG-HDR-024", channel, event, "no capability is named")
        if known != [name for name in names if name in VALIDATED] or len(set(names)) < len(names):
            self.report("LEG-HDR-025", channel, event, f"capabilities {names} in another order, or repeated")
        for name in names:
            if name not in VALIDATED:
                self.report("LEG-HDR-026", channel, event, f"capability {name!a} is not validated")
            elif self.facts.at_least(VALIDATED[name]) is False:
                self.report("LEG-HDR-026", channel, event, f"capability {name!a} is not validated so early")
            else:
                self.facts.since(VALIDATED[name])

    def _page_bits(self, channel: str, event: ConfigurationPageBits) -> None:
        if self.facts.x86:
            self.report("LEG-HDR-028", channel, event, f"target page bits from {self.facts.machine!a}")

    def _uuid(self, channel: str, event: ConfigurationUuid) -> None:
        self.facts.uuid = event.uuid
        self.report("LEG-HDR-027", channel, event, "the UUID is sent and validate-uuid is off")

    def _start(self, channel: str, event: SectionStart) -> None:
        if self._header == channel and not self._configured:
            self.report("LEG-HDR-003", channel, event, "no configuration section before the first section")
            self._configured = True
