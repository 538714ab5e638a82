"""The main channel the other way: events to bytes, in an order that a reader can follow.

Rule 1: every event knows its bytes (`Record.encode`); this class knows only which may
come next, as a table, so that a caller's slip is a `LocalProtocolError` here and not a
broken guest there.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

from qmig._wire import Record
from qmig.errors import LocalProtocolError
from qmig.legacy.commands import COMMANDS, Packaged, PackageEnd, UnknownCommand
from qmig.legacy.header import CONFIGURATION_SUBSECTIONS, Configuration, FileHeader, Subsection
from qmig.legacy.sections import (
    DeviceState,
    EndOfFile,
    SectionEnd,
    SectionFooter,
    SectionFull,
    SectionPart,
    SectionStart,
    TrailingBytes,
    UnreadState,
    VmDescription,
)


class Phase(enum.Enum):
    """Where in the stream the next event stands."""

    HEADER = "before the file header"
    CONFIGURATION = "after the header, a configuration may come"
    ITEMS = "between sections"
    LIVE = "in a live section"
    DEVICE = "in a device's state"
    FOOTER = "after a device's state"
    ENDED = "after EOF"
    DESCRIBED = "after the description"


_COMMANDS: Final[list[type[Record]]] = [kind for kinds in COMMANDS.values() for kind in kinds]
_OPEN: Final[dict[type[Record], Phase]] = {
    SectionStart: Phase.LIVE,
    SectionPart: Phase.LIVE,
    SectionEnd: Phase.LIVE,
    SectionFull: Phase.DEVICE,
    EndOfFile: Phase.ENDED,
    PackageEnd: Phase.ITEMS,
    **dict.fromkeys([*_COMMANDS, UnknownCommand], Phase.ITEMS),
}
#: phase -> event type -> next phase; Record stands for any type not named elsewhere
TRANSITIONS: Final[dict[Phase, dict[type[Record], Phase]]] = {
    Phase.HEADER: {FileHeader: Phase.CONFIGURATION},
    Phase.CONFIGURATION: {
        Configuration: Phase.CONFIGURATION,
        Subsection: Phase.CONFIGURATION,
        **dict.fromkeys(CONFIGURATION_SUBSECTIONS.values(), Phase.CONFIGURATION),
        **_OPEN,
    },
    Phase.ITEMS: _OPEN,
    Phase.LIVE: {SectionFooter: Phase.ITEMS, **_OPEN, Record: Phase.LIVE},
    Phase.DEVICE: {DeviceState: Phase.FOOTER, UnreadState: Phase.DEVICE},
    Phase.FOOTER: {SectionFooter: Phase.ITEMS, **_OPEN},
    Phase.ENDED: {VmDescription: Phase.DESCRIBED, TrailingBytes: Phase.DESCRIBED, PackageEnd: Phase.ITEMS},
    Phase.DESCRIBED: {TrailingBytes: Phase.DESCRIBED},
}


class LegacySender:
    """Writes a main channel. With `headerless`, the second one of a postcopy recovery."""

    def __init__(self, *, headerless: bool = False) -> None:
        self.phase = Phase.ITEMS if headerless else Phase.HEADER

    def send(self, event: Record) -> bytes:
        """The event's bytes. Raises `LocalProtocolError` if it may not come now."""
        row = TRANSITIONS[self.phase]
        kind = type(event)
        if kind not in row and (Record not in row or kind in _FRAMES):
            raise LocalProtocolError(
                f"{kind.__name__} cannot come {self.phase.value}", requirement="LEG-SEC-001"
            )
        self.phase = row.get(kind, self.phase)
        return event.encode()

    def send_package(self, events: Iterable[Record]) -> bytes:
        """A PACKAGED command and its content, with the length worked out."""
        outside, self.phase = self.phase, Phase.ITEMS
        try:
            content = b"".join(self.send(event) for event in events)
        finally:
            self.phase = outside
        return self.send(Packaged(size_of_package=len(content))) + content


_FRAMES: Final = frozenset(
    {
        FileHeader,
        Configuration,
        Subsection,
        DeviceState,
        UnreadState,
        VmDescription,
        TrailingBytes,
        SectionFooter,
        *_OPEN,
    }
)
