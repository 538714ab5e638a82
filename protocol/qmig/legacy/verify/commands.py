"""Commands on the main channel, and the switchover (spec chapter 50)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final

from qmig._wire import Record
from qmig.legacy.commands import (
    COMMANDS,
    EnableColo,
    OpenReturnPath,
    Packaged,
    Ping,
    SwitchoverStart,
    UnknownCommand,
)
from qmig.legacy.sections import EndOfFile, SectionEnd, SectionFull, SectionPart, SectionStart
from qmig.legacy.verify.checker import Checker, Handler, Journal
from qmig.legacy.verify.facts import Facts
from qmig.legacy.verify.rules import By, Rule, both, migration_property, seen

#: Every event that begins an item of a main stream.
ITEMS: Final[tuple[type[Record], ...]] = (
    SectionStart,
    SectionPart,
    SectionEnd,
    SectionFull,
    EndOfFile,
    UnknownCommand,
    *(kind for kinds in COMMANDS.values() for kind in kinds),
)
#: PING values that sources use; 0x42 is 10.2+
PINGS: Final = frozenset({1, 2, 3, 4, 0x42})
_RETURN_PATH: Final = seen("return-path", "streams with a return path")


class CommandChecker(Checker):
    """Which command may come when."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(requirement="LEG-CMD-002", title="commands have a known number"),
        Rule(requirement="LEG-CMD-003", title="a command's payload has the form of its number", by=By.READER),
        Rule(requirement="LEG-CMD-030", title="OPEN_RETURN_PATH comes first, and once"),
        Rule(requirement="LEG-CMD-031", title="PING 1 follows OPEN_RETURN_PATH at once"),
        Rule(requirement="LEG-CMD-032", title="no PING without a return path"),
        Rule(requirement="LEG-CMD-033", title="PING carries 1, 2, 3, 4 or 0x42"),
        Rule(
            requirement="LEG-CMD-034",
            title="no return path is opened on file: and exec:",
            by=By.NOBODY,
            why_not="a recording does not say over which transport it came",
        ),
        Rule(
            requirement="LEG-CMD-035",
            title="SWITCHOVER_START at most once, behind the last PART before the first END",
        ),
        Rule(
            requirement="LEG-CMD-036",
            title="no SWITCHOVER_START with send-switchover-start off",
            when=migration_property("send-switchover-start", on=False),
        ),
        Rule(requirement="LEG-CMD-037", title="commands exist in the version that sends them"),
        Rule(
            requirement="LEG-CMD-038",
            title="SWITCHOVER_START with send-switchover-start on",
            when=both(migration_property("send-switchover-start", on=True), _RETURN_PATH),
        ),
    )

    def __init__(self, facts: Facts, journal: Journal) -> None:
        super().__init__(facts, journal)
        self.items = 0
        self.opened: Record | None = None  # OPEN_RETURN_PATH was the last item
        self.switchover = False
        self.packaged = False
        self.ended: tuple[str, Record] | None = None  # the first END

    def handlers(self) -> Mapping[type[Record], Handler]:
        own: dict[type[Record], Handler] = {
            OpenReturnPath: self._open,
            Ping: self._ping,
            SectionPart: self._part,
            SectionEnd: self._end,
            Packaged: self._package,
            EnableColo: self._colo,
            SwitchoverStart: self._switchover,
            UnknownCommand: self._unknown,
            EndOfFile: self._eof,
        }
        return {**dict.fromkeys(ITEMS, self._item), **own}

    def _item(self, channel: str, event: Record) -> None:
        self.items += 1
        if self.opened is not None:
            text = f"{type(event).__name__} follows OPEN_RETURN_PATH"
            self.report("LEG-CMD-031", channel, self.opened, text)
            self.opened = None

    def _open(self, channel: str, event: OpenReturnPath) -> None:
        if self.items:
            self.report("LEG-CMD-030", channel, event, "OPEN_RETURN_PATH is not the first item")
        self._item(channel, event)
        self.facts.seen.add("return-path")
        self.opened = event

    def _ping(self, channel: str, event: Ping) -> None:
        if event.value == 1:
            self.opened = None
        self._item(channel, event)
        if "return-path" not in self.facts.seen:
            self.report("LEG-CMD-032", channel, event, f"PING {event.value:#x} without a return path")
        if event.value not in PINGS:
            self.report("LEG-CMD-033", channel, event, f"PING {event.value:#x}")

    def _part(self, channel: str, event: SectionPart) -> None:
        self._item(channel, event)
        if self.switchover and not self.packaged:
            self.report("LEG-CMD-035", channel, event, "a PART behind SWITCHOVER_START")

    def _end(self, channel: str, event: SectionEnd) -> None:
        self._item(channel, event)
        self.ended = self.ended or (channel, event)

    def _package(self, channel: str, event: Packaged) -> None:
        self._item(channel, event)
        self.packaged = True
        self.ended = self.ended or (channel, event)

    def _colo(self, channel: str, event: EnableColo) -> None:
        self._item(channel, event)
        if self.facts.at_least((11, 0)):
            self.report("LEG-CMD-037", channel, event, "ENABLE_COLO is not sent from 11.0 on")

    def _switchover(self, channel: str, event: SwitchoverStart) -> None:
        self._item(channel, event)
        if self.switchover or self.ended is not None:
            text = (
                "SWITCHOVER_START comes again" if self.switchover else "an END comes before SWITCHOVER_START"
            )
            self.report("LEG-CMD-035", channel, event, text)
        self.switchover = True
        if self.facts.at_least((10, 0)) is False:
            self.report("LEG-CMD-037", channel, event, "SWITCHOVER_START is not sent before 10.0")
        else:
            self.facts.since((10, 0))
            self.report("LEG-CMD-036", channel, event, "SWITCHOVER_START is sent")

    def _unknown(self, channel: str, event: UnknownCommand) -> None:
        self._item(channel, event)
        self.report("LEG-CMD-002", channel, event, f"command {event.command:#x}")

    def _eof(self, channel: str, event: EndOfFile) -> None:
        self._item(channel, event)
        if self.ended is not None and not self.switchover:
            self.report("LEG-CMD-038", *self.ended, "no SWITCHOVER_START before it")
