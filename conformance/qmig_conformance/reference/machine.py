"""What a destination knows of its own machine: that of a good stream. It refuses what is another one's.

machine = Machine(good_main, settings)
check = machine.checker()          # one per play; sees every event in order, raises RemoteProtocolError
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn, cast

from qmig import LegacyReceiver, Record
from qmig.errors import RemoteProtocolError
from qmig.legacy.block import BlockDeviceData
from qmig.legacy.connection import Told
from qmig.legacy.dirtybitmap import DirtyBitmapStart
from qmig.legacy.header import Configuration, ConfigurationCapabilities, FileHeader, Subsection
from qmig.legacy.mappedram import MappedRamHeader
from qmig.legacy.ram import RamBlockEntry, RamMultifdFlush, RamPages
from qmig.legacy.sections import DeviceState, SectionFull, SectionStart, VmDescription
from qmig.legacy.vmstate.model import NoteKind
from qmig.legacy.vmstate.schema import StreamSchema, schema_from_earlier
from qmig.testing import load_registry

#: capabilities that a configuration names where they are on (LEG-HDR-025)
_VALIDATED: Final = frozenset({"x-ignore-shared", "mapped-ram"})
_SECTOR: Final = 512
#: what tells that a section has not the form of this machine's
_STRANGE: Final = frozenset({NoteKind.MISFIT, NoteKind.UNDESCRIBED, NoteKind.SHORT, NoteKind.EXCESS})


@functools.cache
def _known() -> frozenset[str]:
    """Names of capabilities of any version."""
    return frozenset(str(entry.value) for entry in load_registry("capabilities").entries)


class Machine:
    """Name, sections, RAM blocks and disks of the machine that a good stream came from."""

    def __init__(self, main: bytes, capabilities: Mapping[str, bool]) -> None:
        self.name = ""
        self.capabilities = capabilities
        #: (idstr, instance_id) -> version_id
        self.sections: dict[tuple[str, int], int] = {}
        #: idstr -> used_length
        self.blocks: dict[str, int] = {}
        #: disk -> sectors that were seen
        self.disks: dict[str, int] = {}
        self.schema: StreamSchema | None = None
        self._learn(main)

    def _learn(self, main: bytes) -> None:
        receiver = LegacyReceiver()
        receiver.receive_data(main)
        receiver.receive_data(b"")
        text = b""
        while isinstance(event := receiver.next_event(), Record):
            if isinstance(event, Configuration):
                self.name = event.machine
            elif isinstance(event, (SectionStart, SectionFull)):
                self.sections[event.idstr, event.instance_id] = event.version_id
            elif isinstance(event, RamBlockEntry):
                self.blocks[event.idstr] = event.used_length
            elif isinstance(event, BlockDeviceData):
                end = event.sector + (1 << 20) // _SECTOR
                self.disks[event.device] = max(end, self.disks.get(event.device, 0))
            elif isinstance(event, VmDescription):
                text = bytes(event.json)
        if text:
            self.schema = schema_from_earlier(text)

    def checker(self) -> Callable[[Told], None]:
        """What a play is held to."""
        return _Checker(self).check


class _Checker:
    """One play. Order matters for a few records only; the core has the rest."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._before: Record | None = None
        self._configured = False
        #: validated capabilities that are on here and have not been named
        self._unnamed = {name for name in _VALIDATED if machine.capabilities.get(name)}
        self._bitmaps: set[tuple[str | None, str | None]] = set()

    def check(self, told: Told) -> None:
        event = told.event
        if (
            told.channel == "main"
            and isinstance(self._before, FileHeader)
            and not isinstance(event, Configuration)
        ):
            _refuse(event, "no configuration behind the header", "LEG-DST-014")
        handler = _CHECKS.get(type(event))
        if handler is not None:
            handler(self, event)
        if told.channel == "main":
            self._before = event

    def configuration(self, event: Any) -> None:
        if self._configured:
            _refuse(event, "a second configuration", "LEG-DST-094")
        self._configured = True
        if event.machine != self.machine.name:
            _refuse(event, f"machine type {event.machine!r}, this is {self.machine.name!r}", "LEG-DST-015")

    def subsection(self, event: Any) -> None:
        if event.name.startswith("configuration/") and event.version_id != 1:
            _refuse(event, f"version {event.version_id} of {event.name!r}", "LEG-DST-095")

    def capabilities(self, event: Any) -> None:
        for name in event.capabilities:
            if name not in _known():
                _refuse(event, f"unknown capability {name!r}", "LEG-DST-019")
            if name in _VALIDATED and not self.machine.capabilities.get(name):
                _refuse(event, f"capability {name!r} is off here", "LEG-DST-018")

            self._unnamed.discard(name)

    def section(self, event: Any) -> None:
        if self._unnamed:
            _refuse(event, f"capability {min(self._unnamed)!r} is off at the source", "LEG-DST-018")
        own = self.machine.sections.get((event.idstr, event.instance_id))
        if own is None:
            _refuse(event, f"no section {event.idstr!r}, instance {event.instance_id}", "LEG-DST-031")
        if event.version_id > own or (own and not event.version_id):
            _refuse(event, f"version {event.version_id} of {event.idstr!r}, this has {own}", "LEG-DST-032")

    def state(self, event: Any) -> None:
        section, schema = self._before, self.machine.schema
        if schema is None or not isinstance(section, SectionFull):
            return
        state = schema.decode(section, memoryview(event.data), event.offset)
        if state.opaque_bytes() or any(note.kind in _STRANGE for note in state.notes):
            _refuse(event, f"{section.idstr!r} is not of the form that this machine has", "LEG-DST-114")

    def block(self, event: Any) -> None:
        own = self.machine.blocks.get(event.idstr)
        if own is None:
            _refuse(event, f"no RAM block {event.idstr!r}", "LEG-DST-050")
        if event.used_length != own:
            _refuse(event, f"{event.idstr!r} has {event.used_length} bytes, here {own}", "LEG-DST-050")

    def mapped(self, event: Any) -> None:
        if not self.machine.capabilities.get("mapped-ram"):
            _refuse(event, "mapped-ram is off here", "LEG-DST-158")

    def inline(self, event: Any) -> None:
        if self.machine.capabilities.get("mapped-ram"):
            _refuse(event, f"{type(event).__name__} in a mapped-ram stream", "LEG-DST-159")

    def bitmap(self, event: Any) -> None:
        if (event.node, event.bitmap) in self._bitmaps:
            _refuse(event, f"bitmap {event.bitmap!r} begins twice", "LEG-DST-142")
        self._bitmaps.add((event.node, event.bitmap))

    def disk(self, event: Any) -> None:
        own = self.machine.disks.get(event.device)
        if own is None:
            _refuse(event, f"no disk {event.device!r}", "LEG-DST-144")
        if event.sector >= own:
            _refuse(event, f"sector {event.sector} of {event.device!r}, which has {own}", "LEG-DST-144")


_CHECKS: Final = cast(
    "Mapping[type[Record], Callable[[_Checker, Any], None]]",
    {
        Configuration: _Checker.configuration,
        Subsection: _Checker.subsection,
        ConfigurationCapabilities: _Checker.capabilities,
        SectionStart: _Checker.section,
        SectionFull: _Checker.section,
        DeviceState: _Checker.state,
        RamBlockEntry: _Checker.block,
        MappedRamHeader: _Checker.mapped,
        RamPages: _Checker.inline,
        RamMultifdFlush: _Checker.inline,
        DirtyBitmapStart: _Checker.bitmap,
        BlockDeviceData: _Checker.disk,
    },
)


def _refuse(event: Record, text: str, requirement: str) -> NoReturn:
    raise RemoteProtocolError(text, offset=event.offset, record=type(event).__name__, requirement=requirement)
